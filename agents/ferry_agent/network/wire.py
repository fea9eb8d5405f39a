"""What the ends of a transfer hand their bytes through, so that they take the time of the emulated link."""

import threading
from collections.abc import Callable

from ferry_agent.network.side import LoopNap, Side
from ferry_host.shaping.lane import Flow, Request
from ferry_types.limits import MESSAGE_BYTES_MAX, PAGE_SIZE


class Wire:
    """One flow through a NIC, in one direction.

    The sender passes a frame's bytes through its wire and then writes the frame to the real connection; the
    receiver reads the frame and passes its bytes before it takes them up. The time counts once: a receiving
    NIC that is no slower than the sending one took the bytes as they came. Bytes are payload; the NIC shapes
    to the goodput of its rate, see ``ferry_types.links.goodput_bytes_per_s``. Calls of one wire at the same
    time pass one after the other.
    """

    __slots__ = ("_flow", "_side", "latency_s")

    def __init__(self, side: Side, flow: Flow, latency_s: float) -> None:
        self.latency_s = latency_s
        """How late what has passed takes effect, for a ``DelayLine``; 0 when sending."""
        self._side = side
        self._flow = flow

    @property
    def frame_bytes(self) -> int:
        """How large frames should be, at most: a few milliseconds on the wire, between a page and 4 MiB.

        With larger ones all is as fast, but begins and ends later: a frame is sent when it has passed the
        sender's NIC, and those of several streams pass at the same time.
        """
        return int(min(max(self._side.unit_bytes(self._flow), PAGE_SIZE), MESSAGE_BYTES_MAX))

    def pass_at_once(self, size_bytes: int) -> bool:
        """Whether the bytes have passed: nothing is shaped, and the NIC is up. From any thread."""
        if not self._side.free:
            return False
        self._side.count(self._flow, size_bytes)
        return True

    async def pass_bytes(self, size_bytes: int) -> None:
        """Return once the NIC has passed so many bytes of this flow. If cancelled, the rest does not pass.

        Raises FerryError (unreachable) if the NIC is down, or goes down before that.
        """
        if self.pass_at_once(size_bytes):
            return
        nap = LoopNap()
        request = self._begin(size_bytes, nap.wake)
        try:
            while wait_s := self._side.wait_s(request):
                await nap.sleep(wait_s)
        finally:
            self._side.end(request)

    def pass_bytes_blocking(self, size_bytes: int) -> None:
        """The same from any thread but an event loop's. Raises FerryError as ``pass_bytes`` does."""
        if self.pass_at_once(size_bytes):
            return
        woken = threading.Event()
        request = self._begin(size_bytes, woken.set)
        try:
            while wait_s := self._side.wait_s(request):
                if woken.wait(wait_s):
                    woken.clear()
        finally:
            self._side.end(request)

    def _begin(self, size_bytes: int, wake: Callable[[], None]) -> Request:
        if size_bytes < 0:
            raise ValueError(f"{size_bytes} bytes cannot pass")
        return self._side.begin(self._flow, size_bytes, wake)

    def rest(self) -> None:
        """The flow pauses on purpose: its next bytes do not make up for the time until then, however short.

        For the last pages of a move, which are timed. One attribute is written: call it from anywhere.
        """
        self._flow.rested = True
