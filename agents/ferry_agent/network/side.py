"""One direction of a NIC in real time: a lane, and those who wait on it, in threads and on event loops.

Whoever waits sleeps until its bytes can have passed at the earliest, carries the lane forward and looks
again. No thread of its own does it, and nothing spins.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ferry_host.shaping.lane import Flow, Lane, Request
from ferry_types.errors import ErrorCode, FerryError, Refusal
from ferry_types.links import TrafficClass

EARLY_S: Final = 0.0005
"""A wait shorter than this is not made, but owed: what follows passes later by it. An event loop sleeps for
whole milliseconds, so that waits come out right to the nearest one."""


class Side:
    """A lane under a lock. Methods may be called from any thread."""

    def __init__(self, nic_name: str, lane: Lane) -> None:
        self.free = not lane.shaped
        """Whether bytes pass at once: nothing is shaped, and the NIC is up."""
        self.lane = lane
        """To be read by others, and used under the lock."""
        self._nic_name = nic_name
        self._lock = threading.Lock()
        self._wakers: dict[Request, Callable[[], None]] = {}

    def count(self, flow: Flow, size_bytes: int) -> None:
        """Bytes that pass at once."""
        with self._lock:
            if self.lane.is_up:
                self.lane.pass_at_once(flow, size_bytes)

    def unit_bytes(self, flow: Flow) -> float:
        """See ``Lane``; endless while the NIC is down, when nothing passes anyway."""
        with self._lock:
            return self.lane.unit_bytes(flow) if self.lane.is_up else math.inf

    def begin(self, flow: Flow, size_bytes: int, wake: Callable[[], None]) -> Request:
        """Queue bytes. ``wake`` is called, in any thread, when it is time to ask ``wait_s`` before it said.

        Raises FerryError if the NIC is down. Otherwise ``end`` is due, whatever happens.
        """
        with self._lock:
            if not self.lane.is_up:
                raise FerryError(self._down())
            request = self.lane.ask(flow, size_bytes, time.monotonic())
            self._wakers[request] = wake
            return request

    def wait_s(self, request: Request) -> float:
        """Seconds after which to ask again; 0: all has passed. Raises FerryError if the NIC went down."""
        with self._lock:
            now_s = time.monotonic()
            if self.lane.is_up:
                self.lane.advance(now_s)
            passed = not request.left_bytes
            if passed and request.ends_s - now_s <= EARLY_S:
                return 0.0
            if request.dropped or not self.lane.is_up:
                raise FerryError(self._down())
            return max(self.lane.earliest_end_s(request) - now_s, EARLY_S)

    def end(self, request: Request) -> None:
        """Forget a request; what of it has not passed does not pass."""
        with self._lock:
            del self._wakers[request]
            self.lane.withdraw(request)
            if request.left_bytes:
                self._wake_all()

    def take_down(self, member: str) -> None:
        """A member passes nothing any more; whoever waits is woken to see what that means for it."""
        with self._lock:
            self.lane.take_down(member, time.monotonic())
            self._look_again()

    def bring_up(self, member: str) -> None:
        """A member passes bytes again."""
        with self._lock:
            self.lane.bring_up(member, time.monotonic())
            self._look_again()

    def limit(self, traffic_class: TrafficClass, limit_bytes_per_s: float) -> None:
        """Give a class another limit, also for what waits. Raises ValueError."""
        with self._lock:
            self.lane.limit(traffic_class, limit_bytes_per_s, time.monotonic())
            self._look_again()

    def _look_again(self) -> None:
        self.free = self.lane.is_up and not self.lane.shaped
        self._wake_all()

    def _wake_all(self) -> None:
        for wake in self._wakers.values():
            wake()

    def _down(self) -> Refusal:
        return Refusal(
            ErrorCode.UNREACHABLE,
            f"NIC {self._nic_name} is down",
            "bring it up, or use another network",
        )


class LoopNap:
    """Sleep of a task that may be woken from any thread."""

    def __init__(self) -> None:
        """On the event loop that the task runs on."""
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] | None = None

    async def sleep(self, duration_s: float) -> None:
        """Until so much time has passed, or until woken."""
        self._woken = self._loop.create_future()
        timer = self._loop.call_later(duration_s, self._end)
        try:
            await self._woken
        finally:
            timer.cancel()

    def wake(self) -> None:
        """From any thread. Whoever is not asleep yet looks before it falls asleep: both run on one loop."""
        with suppress(RuntimeError):  # the loop has ended, and the task with it
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
