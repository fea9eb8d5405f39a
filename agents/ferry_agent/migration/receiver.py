"""One arriving memory at the target: writing frames, and judging whether all of it is there.

::

    RECEIVING -> CHECKING -> READY
        \\___________\\______ OVER      the attempt failed, or the host dropped it

Nothing is written to memory but in RECEIVING, so that neither a late nor a surplus frame can touch a guest
that runs: what writes outside of the event loop passes a gate, which is shut when RECEIVING is left. READY
is left by nobody: what becomes of the image then is the host's business.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import TypeVar

import numpy as np

from ferry.v1 import migration_pb2
from ferry_agent.migration.frame_codec import FrameError, decode
from ferry_agent.migration.frames import CheckedFrame, check
from ferry_agent.migration.ports import IncomingSlot, TargetHost, Wire
from ferry_agent.migration.write_gate import WriteGate
from ferry_types.errors import FerryError, Refusal, failed, refused
from ferry_types.limits import DEVICE_STATE_BYTES_MAX
from ferry_types.migrations import TransportOption

_REGION_PAGES = 512
"""Pages of 4 KiB in a huge page of 2 MiB, which the kernel gives at the first touch."""

_Result = TypeVar("_Result")


class Phase(Enum):
    """See the module's diagram."""

    RECEIVING = auto()
    CHECKING = auto()
    READY = auto()
    OVER = auto()


class ArrivingLane:
    """One connection that Hello has offered, and what has arrived on it: written and checked."""

    def __init__(self, number: int, target_nic: str, wire: Wire) -> None:
        self.number = number
        self.target_nic = target_nic
        self.wire = wire
        """Of the NIC at which it arrives."""
        self.frames = 0
        self.pages = 0
        self.checksum_sum = 0
        self.joined = False
        """Whether it is taken: a lane is joined once."""
        self.close_wanted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        """Set once nothing of it will be written any more."""

    def count(self, pages: int, checksum: int) -> None:
        """Another frame is checked and written."""
        self.pages += pages
        self.checksum_sum = (self.checksum_sum + checksum) % 2**64
        self.frames += 1


class Receiver:
    """State of one attempt, shared by its streams. For the event loop, but where it says otherwise."""

    def __init__(
        self,
        migration_id: str,
        slot: IncomingSlot,
        host: TargetHost,
        *,
        verify: bool,
        option: TransportOption,
        lanes: Iterable[ArrivingLane],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.slot = slot
        self.verify = verify
        self.option = option
        self.lanes = {lane.number: lane for lane in lanes}
        self.phase = Phase.RECEIVING
        self.gate = WriteGate()
        """Whoever writes to the slot's memory in a thread passes it."""
        self.on_end: Callable[[], None] = lambda: None
        """Told when all streams have to end."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done once all streams have to end."""
        self.refusal: Refusal | None = None
        """Why the attempt is over, if it is."""
        self.heard_at_s = time.monotonic()
        """When the source last sent something whole."""
        self._migration_id = migration_id
        self._host = host
        self._loop = loop
        self._backed = np.zeros(-(-slot.memory.n_pages // _REGION_PAGES), np.bool_)
        self._final: migration_pb2.Final | None = None
        self._all_here = asyncio.Event()

    # --- lanes ----------------------------------------------------------------------------------------

    def lane_ended(self, lane: ArrivingLane, refusal: Refusal) -> None:
        """Nothing of it is written any more. Of option smb, the others go on."""
        lane.ended.set()
        living = any(not other.ended.is_set() for other in self.lanes.values())
        if self.option is not TransportOption.SMB or not living:
            self.fail(refusal)

    async def close_lane(self, number: int) -> int:
        """End a lane; returns how many of its frames were written. Raises FerryError."""
        lane = self.lanes.get(number)
        if lane is None or self.option is not TransportOption.SMB:
            raise FerryError(refused("lanes", f"there is no lane {number} that could be closed"))
        if not lane.joined:
            lane.joined = True  # nobody joins it any more
            self.lane_ended(lane, failed("the source has closed every lane"))
        if not lane.close_wanted.done():
            lane.close_wanted.set_result(None)
        await lane.ended.wait()
        return lane.frames

    # --- frames ---------------------------------------------------------------------------------------

    async def take(self, lane: ArrivingLane, wire: bytes) -> CheckedFrame:
        """Check the lane's next frame and write it; ``count`` is due. Raises FrameError, nothing written."""
        if self.phase is not Phase.RECEIVING:
            raise FrameError("a frame came after the last one")
        frame = self._checked(lane.frames, wire)
        await self._write(frame)
        return frame

    async def take_in_thread(self, sequence: int, wire: bytes) -> CheckedFrame:
        """The same in a thread, for frame ``sequence`` of a lane. Several may be taken at once: frames of one
        pass share no pages. Returns only once the thread is done with it, also if cancelled."""

        def take() -> CheckedFrame:
            frame = self._checked(sequence, wire)
            self._put_if_open(frame)
            return frame

        return await self._finished(self._loop.run_in_executor(None, take))

    def _checked(self, sequence: int, wire: bytes) -> CheckedFrame:
        return check(decode(wire), sequence=sequence, pages_in_memory=self.slot.memory.n_pages)

    def count(self, lane: ArrivingLane, frame: CheckedFrame) -> None:
        """The frame is written, and is about to be acknowledged."""
        lane.count(frame.pages, frame.checksum)
        self.heard_at_s = time.monotonic()
        self._check_if_all_here()

    def counted_in_thread(self) -> None:
        """A lane has counted a frame in its own thread. For that thread."""
        self.heard_at_s = time.monotonic()
        if self._final is not None:
            self._loop.call_soon_threadsafe(self._check_if_all_here)

    async def _write(self, frame: CheckedFrame) -> None:
        regions = frame.page_indices // _REGION_PAGES
        if isinstance(frame.place, slice) or self._backed[regions].all():
            self._put(frame)
        else:
            # Scattered pages may each cost the kernel a huge page, 256 of them a second on a machine that
            # has to fetch memory from its hypervisor. Leases are renewed on this event loop meanwhile.
            await self._finished(self._loop.run_in_executor(None, self._put_if_open, frame))
        self._backed[regions] = True

    def _put_if_open(self, frame: CheckedFrame) -> None:
        """For threads. Raises FrameError."""
        with self.gate.writing() as may:
            if not may:
                raise FrameError("a frame came after the last one")
            self._put(frame)

    def _put(self, frame: CheckedFrame) -> None:
        memory = self.slot.memory
        if len(frame.zero_indices):
            # Zeros for pages that were never touched would only cost memory.
            memory.pages[frame.zero_indices[memory.touched[frame.zero_indices]]] = 0
        # Touched before: these pages are not known to be zero any more, whatever becomes of the frame.
        memory.touched[frame.place] = True
        memory.pages[frame.place] = frame.rows

    @staticmethod
    async def _finished(work: asyncio.Future[_Result]) -> _Result:
        """What a thread returns; if cancelled, once it has: a lane has ended only once its last frame is
        written."""
        interruption = None
        while not work.done():
            try:
                await asyncio.wait({work})
            except asyncio.CancelledError as error:
                interruption = error
        if interruption is not None:
            raise interruption
        return work.result()

    async def take_final(self, final: migration_pb2.Final) -> None:
        """Wait for every frame that the source has sent. Raises FerryError if what came is not that."""
        if len(final.device_state) > DEVICE_STATE_BYTES_MAX:
            raise FerryError(
                failed(
                    f"the device state has {len(final.device_state)} bytes, "
                    f"more than {DEVICE_STATE_BYTES_MAX}"
                )
            )
        self._final = final
        self._check_if_all_here()
        await self._all_here.wait()
        lanes = self.lanes.values()
        frames, pages = sum(lane.frames for lane in lanes), sum(lane.pages for lane in lanes)
        checksum_sum = sum(lane.checksum_sum for lane in lanes) % 2**64
        if (frames, pages, checksum_sum) != (final.frames, final.pages, final.checksum):
            raise FerryError(
                failed(
                    f"{frames} frames with {pages} pages came, where the source sent "
                    f"{final.frames} with {final.pages}, or their checksums differ"
                )
            )

    def _check_if_all_here(self) -> None:
        if self.phase is not Phase.RECEIVING or self._final is None:
            return
        if sum(lane.frames for lane in self.lanes.values()) < self._final.frames:
            return
        if self.gate.shut_if_idle():
            self.phase = Phase.CHECKING
            self._all_here.set()
        else:
            self.fail(failed("the source sent pages beyond those that it announced as the last"))

    def become_ready(self, device_state: bytes) -> None:
        """READY, unless the attempt has ended meanwhile."""
        if self.phase is Phase.CHECKING:
            self.phase = Phase.READY
            self._host.ready(self._migration_id, device_state)

    def fail(self, refusal: Refusal) -> None:
        """End the attempt and tell the host, unless it is READY or over already."""
        if self.phase in (Phase.RECEIVING, Phase.CHECKING):
            self.end(refusal)
            self._host.failed(self._migration_id, refusal)

    def end(self, refusal: Refusal) -> None:
        """Have all streams end, and begin to write nothing any more.

        A thread may be at its last frame still: memory that is closed bears that.
        """
        self.phase = Phase.OVER
        if not self.ended.done():
            self.refusal = refusal
            self.ended.set_result(None)
            self.on_end()
            self.gate.shut()
