"""What the options over gRPC share: one window over all lanes; frames go to the one with the least to do."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque

from ferry.v1 import migration_pb2
from ferry_agent.migration import protocol
from ferry_agent.migration.frames import NO_PAGES, FrameBuilder
from ferry_agent.migration.tally import Tally
from ferry_agent.migration.transports.grpc_lane import GrpcLane
from ferry_agent.migration.transports.transport import AttemptParts, Indices, PassKind, frame_pages
from ferry_types.errors import Refusal


class GrpcTransport(ABC):
    """Implements ``Transport``, but for what becomes of dead lanes."""

    def __init__(self, parts: AttemptParts) -> None:
        self.lanes = parts.lanes
        self.tally = Tally()
        self._target_frame_bytes = 0
        self._sent_pages = parts.sent_pages
        self._breakage = parts.breakage
        self._builder = FrameBuilder(parts.memory.pages)
        self._due: deque[tuple[Indices, Indices]] = deque()
        """Pages and zero pages of frames that no living lane has yet."""
        self._changed = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        """Wakes whoever waits for a change, no later than when a lane has been silent for too long."""
        order, wires = parts.order, [parts.wire_of(plan.source_nic, plan.mtu) for plan in parts.lanes]
        self._lanes = [
            GrpcLane(plan, order, wire, self.tally, parts.channels, self._changed.set, self._on_death)
            for plan, wire in zip(parts.lanes, wires, strict=True)
        ]
        parts.breakage.reason.add_done_callback(lambda _reason: self._changed.set())

    @property
    def _living(self) -> list[GrpcLane]:
        return [lane for lane in self._lanes if lane.dead is None]

    @abstractmethod
    def _on_death(self, reason: Refusal) -> None:
        """A lane has died: break the attempt off at once if it cannot go on."""

    @abstractmethod
    async def _replace_dead(self) -> None:
        """Put what dead lanes leave unwritten among what is due. Raises FerryError."""

    @property
    def frame_pages(self) -> int:
        """By the slowest NIC at either end."""
        return frame_pages([lane.wire for lane in self._lanes], self._target_frame_bytes)

    @property
    def pages_in_flight(self) -> int:
        """Zero ones too."""
        return sum(shipment.pages for lane in self._lanes for shipment in lane.in_flight)

    @property
    def window_frames(self) -> int:
        """Frames that may be unacknowledged on all lanes."""
        return protocol.IN_FLIGHT_FRAMES_MAX

    def connect(self) -> None:
        """Begin to connect, on every lane."""
        for lane in self._lanes:
            lane.connect()

    async def open(self, accept: migration_pb2.MigrationAccept) -> None:
        """Have every lane prove its token, ahead of its first pages, which wait for nothing."""
        self._target_frame_bytes = accept.frame_bytes
        for lane in self._lanes:
            lane.open()

    def begin_pass(self, kind: PassKind) -> None:
        """All passes are alike: pages are gathered before they are hashed. The pause makes up for nothing."""
        if kind is PassKind.LAST:
            for lane in self._lanes:
                lane.wire.rest()

    async def send(self, pages: Indices, zeros: Indices = NO_PAGES) -> None:
        """Send a frame as soon as the window allows. Raises FerryError."""
        self._due.append((pages, zeros))
        while self._due:
            lane = await self._free_lane()
            self._post(lane, *self._due.popleft())

    def _post(self, lane: GrpcLane, pages: Indices, zeros: Indices) -> None:
        frame = self._builder.build(lane.frames_posted, pages, zeros)
        if frame.zero_rows.any():
            pages, zeros = self._sent_pages.sift(pages, zeros, frame.zero_rows)
            frame = self._builder.build(lane.frames_posted, pages, zeros)
        self._sent_pages.note(pages, zeros)
        lane.post(frame, pages, zeros)

    async def _free_lane(self) -> GrpcLane:
        """The living lane with the least in flight, once it and the window have room. Raises FerryError."""
        while True:
            self._breakage.raise_if_broken()
            await self._replace_dead()
            in_flight = [len(lane.in_flight) for lane in self._lanes]
            lane = self._lanes[in_flight.index(min(in_flight))]
            if sum(in_flight) < self.window_frames and lane.has_room:
                return lane
            await self._change()

    async def settle(self) -> None:
        """Wait until everything was checked and written. Raises FerryError."""
        while True:
            self._breakage.raise_if_broken()
            await self._replace_dead()
            while self._due:
                lane = await self._free_lane()
                self._post(lane, *self._due.popleft())
            busy = [lane for lane in self._living if lane.in_flight]
            if not busy:
                self._cancel_alarm()
                return
            for lane in busy:
                if lane.last_was_full:
                    lane.post(self._builder.build(lane.frames_posted, NO_PAGES), NO_PAGES, NO_PAGES)
            await self._change()

    def explanation(self) -> str:
        """Nothing is compressed."""
        return ""

    async def close(self) -> None:
        """End all lanes."""
        self._cancel_alarm()
        await asyncio.gather(*(lane.close() for lane in self._lanes))

    async def _change(self) -> None:
        """Wait until a lane makes progress or dies, if only of silence. Raises FerryError."""
        self._changed.clear()
        if self._alarm is None:  # one for many waits: setting a timer takes longer than most of them
            self._set_alarm()
        await self._changed.wait()
        if self._alarm is None:
            now_s = asyncio.get_running_loop().time()
            for lane in self._living:
                if lane.in_flight and lane.overdue_at_s <= now_s:
                    lane.die(self._breakage.silent(lane.patience_s))
        self._breakage.raise_if_broken()

    def _set_alarm(self) -> None:
        overdue_at_s = min((lane.overdue_at_s for lane in self._living if lane.in_flight), default=None)
        if overdue_at_s is not None:
            self._alarm = asyncio.get_running_loop().call_at(overdue_at_s, self._ring)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        self._changed.set()
