"""Having the kernel back memory before it is written, without holding up the interpreter."""

import ctypes
import errno
import os

import numpy as np
from numpy.typing import NDArray

from ferry_types.limits import PAGE_SIZE

MADV_POPULATE_WRITE = 23
"""Linux 5.14 on (man 2 madvise); the mmap module does not name it, and holds the interpreter meanwhile."""

REGION_PAGES = 512
"""Pages of 4 KiB in a huge page of 2 MiB, which the kernel gives at the first touch."""

_madvise = ctypes.CDLL(None, use_errno=True).madvise
_madvise.argtypes, _madvise.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int


class Populated:
    """Which regions of a memory, (n, 4096) uint8, have been backed. Threads may share it.

    A page fault in the middle of a receiving call holds the connection's lock while the kernel clears a huge
    page; asked for before, that time is the sender's.
    """

    def __init__(self, pages: NDArray[np.uint8]) -> None:
        self._address = pages.ctypes.data
        self._backed = np.zeros(-(-len(pages) // REGION_PAGES), np.bool_)
        self._supported = True

    def ensure(self, first: int, count: int) -> None:
        """Back these pages, and whatever shares a huge page with them, unless their regions have been.

        Where the kernel cannot, pages are backed as they are written.
        """
        regions = slice(first // REGION_PAGES, (first + count - 1) // REGION_PAGES + 1)
        if not self._supported or self._backed[regions].all():
            return
        start = self._address + first * PAGE_SIZE
        if _madvise(start, count * PAGE_SIZE, MADV_POPULATE_WRITE):
            code = ctypes.get_errno()
            if code != errno.EINVAL:
                raise OSError(code, f"memory cannot be backed: {os.strerror(code)}")
            self._supported = False
        self._backed[regions] = True
