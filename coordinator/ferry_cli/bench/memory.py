"""Memory as guests have it (anonymous, on huge pages), and a machine in the same state before every run."""

import asyncio
import mmap
from enum import Enum, auto
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ferry_types.limits import PAGE_SIZE

Pages = NDArray[np.uint8]
"""Shape (pages, 4096), dtype uint8."""

_REPORTS_FREE_PAGES = Path("/sys/module/page_reporting").exists()
SETTLE_S = 2.5
_SPARE_BYTES_MAX = 2**30


class FreeMemory(Enum):
    """What is done about free memory right before a move; see ``warm_free_memory``."""

    AS_IS = auto()
    """Nothing: the target touches none."""
    WARM = auto()
    WARM_AND_SETTLED = auto()


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


async def settle() -> None:
    """Wait until what was freed has been handed back to the hypervisor, which takes processor time."""
    if _REPORTS_FREE_PAGES:
        await asyncio.sleep(SETTLE_S)


async def warm_free_memory(memory_bytes: int, how: FreeMemory) -> None:
    """Return when so much memory has just been freed, for the target to use, unless it is left as it is.

    A virtual machine with free page reporting hands free memory back to its hypervisor, two seconds after
    something was freed, and the next first touch is then ten times as slow (2.5 s instead of 0.2 s for
    1 GiB). Without this a run measures how long the machine was idle before it. Settled, what was freed
    before has been handed back, so that this does not happen during the run: first what those freed who ran
    before and who prepared this run (it cost our own moves up to a third of their time, and no peer's), then
    what this call frees beside the spare memory.
    """
    if how is FreeMemory.AS_IS:
        return
    if how is FreeMemory.WARM_AND_SETTLED:
        await settle()
    spare_bytes = min(memory_bytes, _SPARE_BYTES_MAX)  # other free memory may be handed out first
    touched = await asyncio.to_thread(_touched, memory_bytes + spare_bytes)
    if how is FreeMemory.WARM_AND_SETTLED:
        await settle()
    touched.close()


def _touched(memory_bytes: int) -> mmap.mmap:
    mapping = _map_anonymous(memory_bytes)
    np.frombuffer(mapping, dtype=np.uint8)[::PAGE_SIZE] = 1
    return mapping


def _map_anonymous(memory_bytes: int) -> mmap.mmap:
    mapping = mmap.mmap(-1, memory_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping.madvise(mmap.MADV_HUGEPAGE)
    return mapping
