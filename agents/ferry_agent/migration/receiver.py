"""One arriving memory at the target: writing frames, and judging whether all of it is there.

::

    RECEIVING -> CHECKING -> READY
        \\___________\\______ OVER      the attempt failed, or the host dropped it

Nothing is written to memory but in RECEIVING, so that neither a late nor a surplus frame can touch a guest
that runs. READY is left by nobody: what becomes of the image then is the host's business.
"""

import asyncio
from enum import Enum, auto
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ferry.v1 import migration_pb2
from ferry_agent.migration.frame_codec import FrameError, PageFrame, decode
from ferry_agent.migration.frames import CheckedFrame, check, is_run
from ferry_agent.migration.ports import IncomingSlot, TargetHost
from ferry_types.errors import FerryError, Refusal, failed
from ferry_types.limits import DEVICE_STATE_BYTES_MAX

_REGION_PAGES = 512
"""Pages of 4 KiB in a huge page of 2 MiB, which the kernel gives at the first touch."""

_Written = slice | NDArray[np.uint32]


class Phase(Enum):
    """See the module's diagram."""

    RECEIVING = auto()
    CHECKING = auto()
    READY = auto()
    OVER = auto()


class Receiver:
    """State of one attempt, shared by its two streams."""

    def __init__(self, migration_id: str, slot: IncomingSlot, host: TargetHost, *, verify: bool) -> None:
        loop = asyncio.get_running_loop()
        self.slot = slot
        self.verify = verify
        self.phase = Phase.RECEIVING
        self.frames = 0
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done once both streams have to end."""
        self.refusal: Refusal | None = None
        """Why the attempt is over, if it is."""
        self.bulk_joined = False
        self.heard_at_s = loop.time()
        """When the source last sent something, by the event loop's clock."""
        self._migration_id = migration_id
        self._host = host
        self._loop = loop
        self._backed = np.zeros(-(-slot.memory.n_pages // _REGION_PAGES), np.bool_)
        self._pages = 0
        self._checksum_sum = 0
        self._final: migration_pb2.Final | None = None
        self._all_here = asyncio.Event()

    async def take(self, wire: bytes) -> CheckedFrame:
        """Check the next frame and write it to memory. Raises FrameError, with nothing written."""
        if self.phase is not Phase.RECEIVING:
            raise FrameError("a frame came after the last one")
        frame = await self._checked(decode(wire))
        await self._write(frame)
        self.frames += 1
        self._pages += frame.pages
        self._checksum_sum = (self._checksum_sum + frame.checksum) % 2**64
        self.heard_at_s = self._loop.time()
        self._check_if_all_here()
        return frame

    async def _checked(self, frame: PageFrame) -> CheckedFrame:
        checking = partial(check, frame, sequence=self.frames, pages_in_memory=self.slot.memory.n_pages)
        if frame.lz4_checksum is None:
            return checking()
        # Decoding takes a few milliseconds and lets go of the interpreter.
        return await asyncio.to_thread(checking)

    async def _write(self, frame: CheckedFrame) -> None:
        memory = self.slot.memory
        if len(frame.zero_indices):
            # Zeros for pages that were never touched would only cost memory.
            memory.pages[frame.zero_indices[memory.touched[frame.zero_indices]]] = 0
        written: _Written = frame.page_indices
        if is_run(frame.page_indices):
            first = int(frame.page_indices[0])
            stop = first + len(frame.page_indices)
            written = slice(first, stop)
            memory.pages[written] = frame.rows
            self._backed[first // _REGION_PAGES : (stop - 1) // _REGION_PAGES + 1] = True
        elif len(frame.page_indices):
            regions = frame.page_indices // _REGION_PAGES
            if self._backed[regions].all():
                memory.pages[written] = frame.rows
            else:
                # Scattered pages may each cost the kernel a huge page, 256 of them a second on a machine that
                # has to fetch memory from its hypervisor. Leases are renewed on this event loop meanwhile.
                await asyncio.to_thread(memory.pages.__setitem__, written, frame.rows)
                self._backed[regions] = True
        memory.touched[written] = True

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
        came = (self.frames, self._pages, self._checksum_sum)
        sent = (final.frames, final.pages, final.checksum)
        if came != sent:
            raise FerryError(
                failed(
                    f"{self.frames} frames with {self._pages} pages came, where the source sent "
                    f"{final.frames} with {final.pages}, or their checksums differ"
                )
            )

    def _check_if_all_here(self) -> None:
        if self.phase is Phase.RECEIVING and self._final is not None and self.frames >= self._final.frames:
            self.phase = Phase.CHECKING
            self._all_here.set()

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
        """Have both streams end, and write nothing any more."""
        if not self.ended.done():
            self.refusal = refusal
            self.ended.set_result(None)
        self.phase = Phase.OVER
