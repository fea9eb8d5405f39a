"""How datagrams of guests pass the host's NIC: in turn with what else passes it, and late by its latency."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ferry_agent.network.wire import Wire
from ferry_types.errors import FerryError

DATAGRAMS_MAX: Final = 256
"""That wait in each direction, as in the queue of a virtual switch's port; what comes then is dropped."""


class GuestWay:
    """The NIC that guests are reached by. On one event loop, but for ``leave``.

    What the NIC does not pass is lost, as a datagram is: it is down, or too much waits already.
    """

    def __init__(self, receiving: Wire, sending: Wire) -> None:
        self._loop = asyncio.get_running_loop()
        self._receiving = receiving
        self._sending = sending
        self._waiting: dict[Wire, set[asyncio.Task[None]]] = {receiving: set(), sending: set()}

    def arrive(self, size_bytes: int, then: Callable[[], None]) -> None:
        """Call ``then`` once so many bytes have come in and taken effect."""
        self._pass(self._receiving, size_bytes, then)

    def leave(self, size_bytes: int, then: Callable[[], None]) -> None:
        """Call ``then`` once so many bytes may leave: at once in this thread, or later on the event loop."""
        if self._sending.pass_at_once(size_bytes):
            then()
            return
        with suppress(RuntimeError):  # the loop has ended, and the host with it
            self._loop.call_soon_threadsafe(self._pass, self._sending, size_bytes, then)

    def _pass(self, wire: Wire, size_bytes: int, then: Callable[[], None]) -> None:
        if not wire.latency_s and wire.pass_at_once(size_bytes):
            then()
            return
        tasks = self._waiting[wire]
        if len(tasks) < DATAGRAMS_MAX:
            task = self._loop.create_task(_passed(wire, size_bytes, then))
            tasks.add(task)
            task.add_done_callback(tasks.discard)


async def _passed(wire: Wire, size_bytes: int, then: Callable[[], None]) -> None:
    with suppress(FerryError, OSError):  # the NIC is down, or the datagram cannot be sent: it is lost
        await wire.pass_bytes(size_bytes)
        if wire.latency_s:
            await asyncio.sleep(wire.latency_s)
        then()
