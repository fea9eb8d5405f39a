"""The pages of a pass in their order, batch by batch.

The numbers of all pages at once would be megabytes that the process touches for the first time, which holds
the first page of a move up by ten milliseconds and more where free memory has to be had from a hypervisor. A
mask takes an eighth of that, and a batch lies in memory that was used before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

BATCH_PAGES = 32768
"""128 MiB, four milliseconds of a fast memory's bandwidth: after each, a thread waits for the event loop."""

Indices: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PageOrder:
    """``batches`` have ``page_count`` pages in all and ``BATCH_PAGES`` at most each, none of them empty."""

    page_count: int
    batches: Iterator[Indices]


def as_they_stand(indices: Indices) -> PageOrder:
    """These pages in this order."""
    return PageOrder(len(indices), parts(indices, BATCH_PAGES))


def rising(chosen: Mask) -> PageOrder:
    """Chosen pages by their numbers."""
    return PageOrder(int(np.count_nonzero(chosen)), _masked(chosen))


def least_recently_used_first(chosen: Mask, last_used: NDArray[np.uint32]) -> PageOrder:
    """Chosen pages in the order of eras from 2012 on: those in use come last, so that fewer are sent in vain.

    Most pages of most guests were last used at the same time, when the guest started; only the rest is
    sorted. Of a million pages in use that takes a tenth of a second: call it from a thread.
    """
    if not chosen.any():
        return rising(chosen)
    oldest = last_used.min(where=chosen, initial=np.iinfo(last_used.dtype).max)
    lying = last_used == oldest
    lying &= chosen
    used = np.flatnonzero(chosen & ~lying)
    used = used[np.argsort(last_used[used], kind="stable")]
    page_count = int(np.count_nonzero(lying)) + len(used)
    return PageOrder(page_count, chain(_masked(lying), parts(used, BATCH_PAGES)))


def _masked(chosen: Mask) -> Iterator[Indices]:
    # The first is a half one: nothing is sent before it was looked at.
    for start, stop in pairwise((0, *range(BATCH_PAGES // 2, len(chosen), BATCH_PAGES), len(chosen))):
        found = np.flatnonzero(chosen[start:stop])
        if len(found):
            found += start
            yield found


def parts(indices: Indices, pages_max: int) -> Iterator[Indices]:
    """These pages in this order, so many at a time."""
    for start in range(0, len(indices), pages_max):
        yield indices[start : start + pages_max]
