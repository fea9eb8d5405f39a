"""Memory as guests have it (anonymous, on huge pages), and a machine in the same state before every run."""

import mmap
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ferry_types.limits import PAGE_SIZE

Pages = NDArray[np.uint8]
"""Shape (pages, 4096), dtype uint8."""


def map_pages(memory_bytes: int) -> Pages:
    """Untouched anonymous memory that asks for huge pages; unmapped with the last reference."""
    return np.frombuffer(_map_anonymous(memory_bytes), dtype=np.uint8).reshape(-1, PAGE_SIZE)


def load_pages(contents: Path, memory_bytes: int) -> Pages:
    """Anonymous memory with the file's first `memory_bytes`. Raises OSError, EOFError if it is shorter."""
    pages = map_pages(memory_bytes)
    rest = pages.data.cast("B")
    with contents.open("rb", buffering=0) as file:
        while rest:
            read_bytes = file.readinto(rest)
            if not read_bytes:
                raise EOFError(f"{contents} ends {len(rest)} bytes early")
            rest = rest[read_bytes:]
    return pages


class WarmReserve:
    """Touched memory, held until a run begins and given back at that moment for the target to use.

    A virtual machine with free page reporting hands free memory back to its hypervisor after two seconds, and
    the next first touch is then ten times as slow (2.5 s instead of 0.2 s for 1 GiB). Without a reserve a run
    measures how long the machine was idle before it.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._mapping = _map_anonymous(memory_bytes)
        np.frombuffer(self._mapping, dtype=np.uint8)[::PAGE_SIZE] = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give the memory back. May be repeated."""
        self._mapping.close()


def _map_anonymous(memory_bytes: int) -> mmap.mmap:
    mapping = mmap.mmap(-1, memory_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping
