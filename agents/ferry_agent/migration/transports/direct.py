"""Option ``direct``, the emulated RDMA path: raw sockets from guest memory to guest memory.

Nothing of a page is copied in Python where pages come in runs: threads hash them where they lie and hand them
to ``sendmsg``. The guest may write to them meanwhile. Then the checksum does not match at the target, which
calls the frame torn; what it has in the frame's pages is garbage. That is no error exactly if the guest has
written one of these pages: then all of them are marked dirty, to be sent once more. If none was written,
something else has changed the bytes, and the attempt fails. In the pause nothing is forgiven.

Pages that were written just now (all passes but the first) are gathered into a buffer before they are hashed,
and cannot tear: else a busy guest could tear the same frames pass after pass.
"""

import asyncio
import contextlib
from collections.abc import Callable
from queue import Empty, SimpleQueue

import numpy as np

from ferry.v1 import migration_pb2
from ferry_agent.migration import protocol
from ferry_agent.migration.direct_wire import Verdict
from ferry_agent.migration.frames import NO_PAGES
from ferry_agent.migration.tally import Tally
from ferry_agent.migration.transports.direct_lane import (
    WINDOW_FRAMES_MAX,
    DirectLane,
    Frame,
    Frames,
    Shipment,
)
from ferry_agent.migration.transports.transport import AttemptParts, Indices, PassKind, frame_pages
from ferry_types.errors import FerryError, Refusal, failed

MARK_S_MAX = 0.1
"""How long after its write a guest may mark a page: a few of its quanta, on a machine that is busy."""


REASON_S_MAX = 0.25
"""How long the control stream gets to say why the target has hung up: raw sockets only end."""


class DirectTransport:
    """Implements ``Transport``. A lane that dies ends the attempt."""

    def __init__(self, parts: AttemptParts) -> None:
        self.lanes = parts.lanes
        self.tally = Tally()
        self._target_frame_bytes = 0
        self._order = parts.order
        self._memory = parts.memory
        self._sent_pages = parts.sent_pages
        self._breakage = parts.breakage
        self._kind = PassKind.FIRST
        self._suspects = 0
        """Torn frames whose pages bear no mark, as yet."""
        self._timers: set[asyncio.TimerHandle] = set()
        self._changed = asyncio.Event()
        self._frames: Frames = SimpleQueue()
        self._unanswered = 0
        """Frames that were given."""
        self._lanes = [
            DirectLane(
                plan,
                parts.order.target,
                parts.memory,
                parts.sent_pages,
                parts.wire_of(plan.source_nic, plan.mtu),
                self._frames,
                self._on_answer,
                self._on_nothing,
                self._on_death,
            )
            for plan in parts.lanes
        ]
        parts.breakage.reason.add_done_callback(lambda _reason: self._changed.set())

    @property
    def frame_pages(self) -> int:
        """By the slowest NIC at either end."""
        return frame_pages([lane.wire for lane in self._lanes], self._target_frame_bytes)

    @property
    def pages_in_flight(self) -> int:
        """As if all frames were full: how many pages a frame turns out to have, its lane knows alone."""
        return self._unanswered * self.frame_pages

    def connect(self) -> None:
        """Nothing: the ports come with Accept."""

    async def open(self, accept: migration_pb2.MigrationAccept) -> None:
        """Prove the secret of every lane. Raises FerryError."""
        self._target_frame_bytes = accept.frame_bytes
        offered = {lane.number: lane for lane in accept.direct_lanes}
        if offered.keys() != {lane.number for lane in self._lanes}:
            raise FerryError(failed(f"{self._order.target} does not offer the lanes that were asked for"))
        async with self._breakage.opening():
            for lane in self._lanes:
                try:
                    await lane.open(offered[lane.number].port, offered[lane.number].secret)
                except OSError as error:
                    what = f"lane {lane.number} to {self._order.target} cannot be opened: {error}"
                    raise FerryError(failed(what, "check the network between the hosts")) from error

    def begin_pass(self, kind: PassKind) -> None:
        """Pages that were just written are copied before they are sent; in the pause no time is made up."""
        self._kind = kind
        if kind is PassKind.LAST:
            for lane in self._lanes:
                lane.wire.rest()

    async def send(self, pages: Indices, zeros: Indices = NO_PAGES) -> None:
        """Have a frame sent as soon as the window allows. Raises FerryError."""
        self._breakage.raise_if_broken()
        while self._unanswered >= WINDOW_FRAMES_MAX:
            await self._change()
        self._unanswered += 1
        self._frames.put(Frame(pages, zeros, in_place=self._kind is not PassKind.CHASE))

    async def settle(self) -> None:
        """Wait until every frame was answered, and every torn one judged. Raises FerryError."""
        self._breakage.raise_if_broken()
        while self._unanswered or self._suspects or not all(lane.quiet for lane in self._lanes):
            await self._change()

    async def settle_last(self) -> None:
        """Wait for all answers: torn frames do not count, and in the pause there must be none."""
        await self.settle()

    def explanation(self) -> str:
        """Nothing is compressed."""
        return ""

    async def close(self) -> None:
        """End all lanes and their threads."""
        for timer in self._timers:
            timer.cancel()
        with contextlib.suppress(Empty):
            while True:
                self._frames.get_nowait()
        await asyncio.gather(*(lane.close() for lane in self._lanes))

    async def _change(self) -> None:
        """Wait for an answer, if only until there should have been one. Raises FerryError."""
        loop = asyncio.get_running_loop()
        self._changed.clear()
        while not self._changed.is_set():
            waits = [since_s for lane in self._lanes if (since_s := lane.waits_since_s) is not None]
            due_at_s = min(waits, default=loop.time()) + protocol.ANSWER_S_MAX
            if due_at_s <= loop.time():
                self._breakage.break_off(self._breakage.silent(protocol.ANSWER_S_MAX))
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due_at_s):
                    await self._changed.wait()
        self._breakage.raise_if_broken()

    # --- answers --------------------------------------------------------------------------------------

    def _on_nothing(self) -> None:
        self._unanswered -= 1
        self._changed.set()

    def _on_answer(self, shipment: Shipment, verdict: Verdict) -> None:
        if shipment.pages:
            self._unanswered -= 1
        self.tally.bytes_sent += shipment.size_bytes
        if verdict is Verdict.GOOD:
            self.tally.add(shipment.pages, shipment.checksum)
            self.tally.bytes_acked += shipment.size_bytes
        elif self._kind is PassKind.LAST:
            self._breakage.break_off(self._corrupted(shipment))
        elif self._was_written(shipment):
            self._forgive(shipment)
        else:
            self._suspects += 1
            self._judge_later(shipment)
        self._changed.set()

    def _judge_later(self, shipment: Shipment) -> None:
        """The guest writes first and marks after: look once more."""

        def judge() -> None:
            self._suspects -= 1
            if self._was_written(shipment):
                self._forgive(shipment)
            else:
                self._breakage.break_off(self._corrupted(shipment))
            self._changed.set()

        self._later(MARK_S_MAX, judge)

    def _on_death(self, reason: Refusal) -> None:
        self._later(REASON_S_MAX, lambda: self._breakage.break_off(reason))

    def _later(self, delay_s: float, act: Callable[[], None]) -> None:
        """Unless the transport is closed before."""

        def due() -> None:
            self._timers.discard(timer)
            act()

        timer = asyncio.get_running_loop().call_later(delay_s, due)
        self._timers.add(timer)

    def _was_written(self, shipment: Shipment) -> bool:
        """Since the marks of this pass were taken."""
        return self._memory.dirty.any_marked(shipment.page_indices)

    def _forgive(self, shipment: Shipment) -> None:
        """Have all of the frame sent once more: what the target has of it is worth nothing."""
        pages = np.concatenate((shipment.page_indices, shipment.zero_indices))
        self._sent_pages.on_target[pages] = True
        self._memory.dirty.give_back(pages)

    def _corrupted(self, shipment: Shipment) -> Refusal:
        return failed(
            f"{shipment.pages} pages did not arrive at {self._order.target} as they were sent, and the guest "
            "had not written them meanwhile",
            "check the memory and the network of both hosts; other options copy pages before they are sent",
        )
