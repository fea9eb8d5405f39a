"""Whether sending what has changed of a page pays, beside LZ4 of the page: for the guests that exist, no.

QEMU's xbzrle keeps a cache of pages as they were sent, and sends runs of words that differ. Here the second
and later passes of moves are put together from the guests' own steps, and encoded in three ways: LZ4 of the
pages, as option ``compression`` does it; runs of the words in which they differ from what was sent last; and
LZ4 of the difference. A page that was never sent, or fell out of the cache, can only be sent as it is.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lz4.block
import numpy as np
import pytest
from numpy.typing import NDArray

from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.workload import Pace
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE
from ferry_types.workloads import Fill, FillSpec, resolve

pytestmark = [pytest.mark.bench, pytest.mark.timeout(300)]

MEMORY_BYTES = 256 * 2**20
CACHE_PAGES = 64 * 2**20 // PAGE_SIZE
"""All that a move may hold beside the guest's memory, on each side."""

PASS_S, PASSES = 0.5, 4
"""What the guest does while a pass is sent; the first is compared with what memory was filled with."""

RUN_BYTES = 4
"""What a run of words costs besides them: how many are skipped, and how many follow."""

Pages = NDArray[np.uint8]


def passes(profile: str) -> Iterator[tuple[Pages, Pages]]:
    """Pages of each pass as they are, and as they were sent last: (n, 4096) both."""
    memory = GuestMemory(MEMORY_BYTES)
    spec = resolve(profile, MEMORY_BYTES)
    guest = Guest.boot("vm1", memory, spec, FillSpec(Fill.FILE, str(Path(os.__file__).parent)), 1)
    sent = memory.pages.copy()
    memory.dirty.take()
    for _ in range(PASSES):
        for _ in range(max(1, round(PASS_S / Pace.of(spec).period_s))):
            guest.step()
        dirty = memory.dirty.take()[:CACHE_PAGES]
        yield memory.pages[dirty], sent[dirty]
        sent[dirty] = memory.pages[dirty]
    memory.close()


def lz4_bytes(pages: Pages) -> int:
    batches = (pages[at : at + FRAME_PAGES_MAX] for at in range(0, len(pages), FRAME_PAGES_MAX))
    return sum(len(lz4.block.compress(batch.data, store_size=False)) for batch in batches)


def runs_bytes(difference: Pages) -> int:
    """Size of the words that are not zero, in runs; a page that gets no smaller so is sent as it is."""
    differs = difference.view(np.uint64) != 0
    begins = differs & ~np.pad(differs, ((0, 0), (1, 0)))[:, :-1]
    sizes = differs.sum(axis=1) * 8 + begins.sum(axis=1) * RUN_BYTES
    return int(np.minimum(sizes, PAGE_SIZE).sum())


def timed(encode: Callable[[Pages], int], pages: Pages) -> tuple[int, float]:
    began_s = time.thread_time()
    return encode(pages), time.thread_time() - began_s


def bytes_of(profile: str) -> dict[str, int]:
    """Bytes of all passes: as they are, and in each encoding."""
    found = {"plain": 0, "lz4": 0, "runs": 0, "lz4 of the difference": 0}
    spent_s = dict.fromkeys(found, 0.0)
    for pages, before in passes(profile):
        found["plain"] += pages.nbytes
        encodings: dict[str, Callable[[Pages], int]] = {
            "lz4": lz4_bytes,
            "runs": lambda now, before=before: runs_bytes(now ^ before),  # type: ignore[misc]
            "lz4 of the difference": lambda now, before=before: lz4_bytes(now ^ before),  # type: ignore[misc]
        }
        for name, encode in encodings.items():
            size_bytes, took_s = timed(encode, pages)
            found[name] += size_bytes
            spent_s[name] += took_s
    mib = found["plain"] / 2**20
    shares = {
        name: f"{size / found['plain']:.0%} in {spent_s[name] / mib * 1e3:.1f} ms/MiB"
        for name, size in found.items()
    }
    print(f"{profile}: {mib:.0f} MiB, {shares}")  # noqa: T201 - what the decision rests on
    return found


@pytest.mark.parametrize("profile", ["web", "file", "sql", "thrash"])
def test_a_difference_is_no_smaller_than_the_page_itself_compressed(profile: str) -> None:
    """A step writes whole pages. If this fails, guests have changed: think of delta encoding again."""
    found = bytes_of(profile)
    assert found["runs"] > 0.9 * found["lz4"], found
    assert found["lz4 of the difference"] > 0.9 * found["lz4"], found


def test_an_idle_guest_has_too_little_to_spare_anything() -> None:
    found = bytes_of("idle")
    assert found["plain"] / PASSES < 2**20, found
