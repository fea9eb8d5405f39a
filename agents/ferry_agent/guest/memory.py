"""The memory of one guest."""

import mmap

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.dirty_log import DirtyLog, PageIndex
from ferry_types.errors import FerryError, failed
from ferry_types.limits import PAGE_SIZE
from ferry_types.units import format_size

_DISCARD_BYTES = 64 * 2**20
"""Takes a fraction of a millisecond to give back."""


class GuestMemory:
    """Anonymous memory in pages of 4096 bytes. Untouched pages cost nothing and are known to be zero.

    ``pages``: (n_pages, 4096) uint8, and ``words``, the same memory as (n_pages, 512) uint64.
    ``touched``: (n_pages,) bool, pages that were ever written; nobody has to read the others.
    ``last_used``: (n_pages,) uint32, the tick of the last read or write, 0 if there was none here.
    ``tick``: the guest's own coarse clock, which it sets.
    ``dirty``: the log of written pages.

    The guest's thread alone writes pages; others may read them at any time, and then see
    a page half-written, but also its mark in ``dirty``.
    """

    def __init__(self, memory_bytes: int) -> None:
        """Map memory of ``memory_bytes``, a positive multiple of 4096. Raises FerryError if there is none."""
        if memory_bytes <= 0 or memory_bytes % PAGE_SIZE:
            raise ValueError(f"memory of {memory_bytes} bytes is not a positive multiple of {PAGE_SIZE}")
        n_pages = memory_bytes // PAGE_SIZE
        try:
            # Private, because shared anonymous memory does not get huge pages.
            self._map = mmap.mmap(-1, memory_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.touched: NDArray[np.bool_] = np.zeros(n_pages, dtype=np.bool_)
            self.last_used: NDArray[np.uint32] = np.zeros(n_pages, dtype=np.uint32)
            self.dirty = DirtyLog(n_pages)
        except (OSError, MemoryError) as error:
            raise FerryError(
                failed(
                    f"cannot allocate {format_size(memory_bytes)} of guest memory: {error}",
                    "free memory on this machine or give the VM less",
                )
            ) from error
        # With pages of 4 KiB, the faults of a target that is being filled cost more than the network.
        self._map.madvise(mmap.MADV_HUGEPAGE)
        self.words: NDArray[np.uint64] = np.frombuffer(self._map, dtype=np.uint64).reshape(n_pages, -1)
        self.pages: NDArray[np.uint8] = self.words.view(np.uint8)
        self.tick = 0

    @property
    def n_pages(self) -> int:
        """Number of pages."""
        return len(self.touched)

    @property
    def memory_bytes(self) -> int:
        """Size in bytes."""
        return self.n_pages * PAGE_SIZE

    def write(self, index: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        """Write whole pages: ``rows`` is (len(index), 4096). Writes first, then marks."""
        self.pages[index] = rows
        self.mark_written(index)

    def mark_written(self, index: PageIndex) -> None:
        """Mark pages that the guest has written through ``pages`` or ``words``: touched, used and dirty."""
        self.touched[index] = True
        self.last_used[index] = self.tick
        self.dirty.mark(index)

    def mark_read(self, index: PageIndex) -> None:
        """Note that the guest has read these pages."""
        self.last_used[index] = self.tick

    def discard(self) -> None:
        """Give the contents back to the system; all pages read as zeros then. For a thread, before ``close``.

        The interpreter is kept meanwhile, 10 ms for 4 GiB; piece by piece, others get it between.
        """
        if self._map.closed:
            return
        for start in range(0, self.memory_bytes, _DISCARD_BYTES):
            length = min(_DISCARD_BYTES, self.memory_bytes - start)
            self._map.madvise(mmap.MADV_DONTNEED, start, length)

    def close(self) -> None:
        """Free the memory at once. The guest's thread must have ended; a second call does nothing.

        Views that somebody still holds stay mapped and read as zeros: no crash, and no memory kept.
        """
        self.discard()
        self.words = np.empty((0, self.words.shape[1]), dtype=np.uint64)
        self.pages = self.words.view(np.uint8)
        try:
            self._map.close()
        except BufferError:
            # Views are left: the empty mapping goes with the last of them.
            return
