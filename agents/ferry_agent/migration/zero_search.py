"""Which pages of a pass are zero: looked for in threads, ahead of the sending."""

import asyncio
from collections import deque
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ferry_agent.migration.frames import zero_pages
from ferry_agent.migration.page_order import Indices, Mask, PageOrder

LOOKS_AHEAD = 4
"""Batches looked at beside each other, each in a thread: one thread alone does not use all of the bandwidth
of memory on many machines, and waits between its batches on all. With three, two processors still stood idle
for a twelfth of the time."""

LOOK_INLINE_PAGES_MAX = 512
"""Up to so many pages it takes longer to ask a thread than to look."""

GLANCE_PAGES = 8
"""So many pages of a batch are glanced at. If none is zero at its head, few pages of it are: they show once
they are copied. Each may be the first in its huge page that is touched since long ago, which took 5 to 100 us
on a machine with a hypervisor, and holds up the event loop."""


class ZeroSearch:
    """One pass's pages in batches, in the order of the pass. The first are looked at from the start.

    Marks are taken before: a page that the guest writes after it was found zero bears a new one. For the
    event loop; NumPy lets go of the interpreter, so that leases are renewed meanwhile.
    """

    def __init__(self, words: NDArray[np.uint64], pages: PageOrder, *, glance: bool) -> None:
        """``words`` is memory as (n, 512) uint64; ``glance``: one may show that pages are not zero."""
        self.page_count = pages.page_count
        self._words = words
        self._rest = pages.batches
        self._glance = glance
        self._ahead: deque[tuple[Indices, asyncio.Future[Mask]]] = deque()
        self._look_ahead()

    async def next(self) -> tuple[Indices, Mask] | None:
        """The next batch with the mask of its zero pages; None after the last."""
        if not self._ahead:
            return None
        batch, looking = self._ahead.popleft()
        zero = await looking
        self._look_ahead()
        return batch, zero

    def trust_no_glance(self) -> None:
        """Many zero pages have turned up where a glance showed none: look at every page from here on."""
        self._glance = False

    def _look_ahead(self) -> None:
        for batch in islice(self._rest, LOOKS_AHEAD - len(self._ahead)):
            looking = self._look_at(batch)
            self._ahead.append((batch, looking))
            if looking.done():  # no thread is at it, and it will keep the sender busy
                break

    def _look_at(self, batch: Indices) -> asyncio.Future[Mask]:
        loop = asyncio.get_running_loop()
        if len(batch) > LOOK_INLINE_PAGES_MAX and not self._shows_contents(batch):
            return loop.run_in_executor(None, zero_pages, self._words, batch)
        known: asyncio.Future[Mask] = loop.create_future()
        inline = len(batch) <= LOOK_INLINE_PAGES_MAX
        known.set_result(zero_pages(self._words, batch) if inline else np.zeros(len(batch), np.bool_))
        return known

    def _shows_contents(self, batch: Indices) -> bool:
        heads, stride = self._words[:, 0], len(batch) // GLANCE_PAGES
        # Not the very first: guests keep books there, whose heads are often zero.
        return self._glance and all(heads[page] for page in batch[stride // 2 :: stride])
