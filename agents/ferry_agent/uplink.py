"""The stream to the coordinator: joins, renewals and reports up, orders down; reconnects by itself."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import grpc.aio
import structlog

from ferry.v1 import membership_pb2, membership_pb2_grpc
from ferry_types.errors import FerryError
from ferry_types.messages import HostEnvelope, HostOrder
from ferry_wire.channels import open_channel
from ferry_wire.envelopes import host_envelope_to_proto, host_order_from_proto
from ferry_wire.status import refusal_of

OUTBOX_MAX = 1024
"""Reports waiting to be written; a stream that falls so far behind is closed and opened anew."""

BACKOFF_S_MIN = 0.05
BACKOFF_S_MAX = 1.0

EVICTED = "evicted"
FATAL_RULES = frozenset(
    {
        "live name claimed",
        "identity in use",
        "node limit",
        "functional level",
        "known network",
        "subnet",
        "scale",
        EVICTED,
    }
)
"""Refusals that trying again does not change."""

PASSING_RULES = frozenset({"nic addresses"})
"""Refusals that time may cure: the address is free once the node that had it is known to be lost."""

_log = structlog.get_logger("uplink")


class Uplink:
    """Keeps one stream to the coordinator open as long as the agent lives."""

    def __init__(
        self,
        address: str,
        *,
        on_open: Callable[[], None],
        on_close: Callable[[], None],
        on_order: Callable[[HostOrder], None],
    ) -> None:
        self._address = address
        self._on_open = on_open
        self._on_close = on_close
        self._on_order = on_order
        self._outbox: asyncio.Queue[HostEnvelope] | None = None
        self._overflow = asyncio.Event()
        self._cut = asyncio.Event()
        self._whole = asyncio.Event()
        self._whole.set()

    def cut(self) -> None:
        """Close the stream, as a pulled cable would in the end, and open none until ``mend``."""
        self._whole.clear()
        self._cut.set()

    def mend(self) -> None:
        """Connect again."""
        self._cut.clear()
        self._whole.set()

    def send(self, envelope: HostEnvelope) -> None:
        """Queue a report for the open stream; without one it is dropped: the core repeats what matters."""
        if self._outbox is None:
            return
        try:
            self._outbox.put_nowait(envelope)
        except asyncio.QueueFull:
            self._overflow.set()

    async def run(self) -> None:
        """Connect and reconnect until cancelled. Raises FerryError if the host is turned away for good."""
        backoff_s = BACKOFF_S_MIN
        while True:
            opened = False
            await self._whole.wait()
            try:
                async with open_channel(self._address) as channel:
                    await asyncio.wait_for(channel.channel_ready(), timeout=5.0)
                    opened = True
                    if self._whole.is_set():
                        await self._attend(channel)
            except TimeoutError:
                _log.info("coordinator not reachable", address=self._address)
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of(error)
                if refusal.rule in FATAL_RULES:
                    raise FerryError(refusal) from error
                if refusal.rule in PASSING_RULES:
                    opened = False  # not to ask ever so often: it may take a lease
                    _log.warning("not admitted yet", address=self._address, reason=refusal.message)
                else:
                    _log.info("stream ended", address=self._address, reason=refusal.message)
            backoff_s = BACKOFF_S_MIN if opened else min(backoff_s * 2, BACKOFF_S_MAX)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    async def _attend(self, channel: grpc.aio.Channel) -> None:
        outbox: asyncio.Queue[HostEnvelope] = asyncio.Queue(OUTBOX_MAX)
        self._outbox = outbox
        self._overflow.clear()
        overflow = asyncio.ensure_future(self._overflow.wait())
        cut = asyncio.ensure_future(self._cut.wait())
        self._on_open()
        call = membership_pb2_grpc.MembershipStub(channel).Attend(_drain(outbox))
        reading = asyncio.ensure_future(self._read(call))
        try:
            await asyncio.wait({reading, overflow, cut}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                await reading
        finally:
            self._outbox = None
            for task in (reading, overflow, cut):
                task.cancel()
            call.cancel()
            self._on_close()

    async def _read(
        self, call: "grpc.aio.StreamStreamCall[membership_pb2.FromHost, membership_pb2.ToHost]"
    ) -> None:
        async for message in call:
            self._on_order(host_order_from_proto(message))


async def _drain(outbox: asyncio.Queue[HostEnvelope]) -> AsyncIterator[membership_pb2.FromHost]:
    while True:
        yield host_envelope_to_proto(await outbox.get())
