"""Copying pages of a guest that may be running: which to send, which are zero, which marks to give back."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ferry_agent.guest.dirty_log import as_run
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration import page_order
from ferry_agent.migration.frames import NO_PAGES
from ferry_agent.migration.page_order import PageOrder
from ferry_agent.migration.tally import Tally
from ferry_agent.migration.transports.transport import PassKind, SentPages, Transport
from ferry_agent.migration.zero_search import ZeroSearch
from ferry_types.limits import FRAME_PAGES_MAX, FRAME_ZERO_PAGES_MAX

LATE_ZEROS_SHARE = 1 / 16
"""If more of the pages turn out zero only when they are copied, it costs less to look at each before."""


@dataclass(frozen=True, slots=True)
class Copied:
    """One pass: pages whose contents were sent, pages that were found zero, bytes of all frames."""

    pages_sent: int
    zero_pages: int
    bytes_sent: int
    compressed_pages: int = 0
    compressed_bytes: int = 0
    saved_bytes: int = 0
    """What ``bytes_sent`` would be more without compression."""


NOTHING_COPIED = Copied(pages_sent=0, zero_pages=0, bytes_sent=0)


class PageCopier:
    """Sends pages of one attempt. The order of things that keeps every write: *clear the mark, then copy*."""

    def __init__(self, memory: GuestMemory, transport: Transport, sent_pages: SentPages) -> None:
        self._memory = memory
        self._transport = transport
        self._sent_pages = sent_pages
        self._taken = np.zeros(len(memory.pages), np.bool_)
        """Marks that this attempt has taken."""
        self._glances_hold = True
        """Whether those of the last pass have overlooked few zero pages."""

    def take_touched(self, *, least_recently_used_first: bool) -> PageOrder:
        """All pages that the guest ever touched, for the first pass; takes their marks. For a thread."""
        chosen = self._memory.touched.copy()
        # Whatever the guest touches between these two lines is marked by now, or will be taken later.
        taken = self._memory.dirty.take_all()
        self._taken |= taken
        chosen |= taken
        if least_recently_used_first:
            return page_order.least_recently_used_first(chosen, self._memory.last_used)
        return page_order.rising(chosen)

    def take_dirty(self) -> PageOrder:
        """Pages written since their marks were last taken; clears the marks, so copy them afterwards."""
        indices = self._memory.dirty.take()
        self._taken[as_run(indices)] = True
        return page_order.as_they_stand(indices)

    def give_back(self) -> None:
        """Mark again every page whose mark this attempt took."""
        self._memory.dirty.give_back(self._taken)

    def look_at(self, pages: PageOrder) -> ZeroSearch:
        """Begin to look for zero pages among these, whose marks are taken, for ``copy``."""
        self._sent_pages.found_late = 0
        return ZeroSearch(self._memory.words, pages, glance=self._glances_hold)

    async def copy(self, kind: PassKind, search: ZeroSearch, on_progress: Callable[[int], None]) -> Copied:
        """Send these pages in their order, and return once the target has checked and written them.

        ``on_progress`` is told how many are done, in the end that all are while the last still travel. Raises
        FerryError.
        """
        before = self._begin(kind)
        zero_count = await self._send_all(search, on_progress)
        await self._transport.settle()
        self._glances_hold = not self._many_are_late(search.page_count)
        return self._copied(search, zero_count, before)

    async def copy_last(self, search: ZeroSearch) -> Copied:
        """Send these pages in the pause; the target has them or will. Raises FerryError."""
        if search.page_count == 0:
            return NOTHING_COPIED  # in the pause of an idle guest every turn of the event loop counts
        before = self._begin(PassKind.LAST)
        zero_count = await self._send_all(search, lambda _pages_done: None)
        await self._transport.settle_last()
        return self._copied(search, zero_count, before)

    def _begin(self, kind: PassKind) -> Tally:
        self._transport.begin_pass(kind)
        return replace(self._transport.tally)

    def _copied(self, search: ZeroSearch, zero_count: int, before: Tally) -> Copied:
        tally = self._transport.tally
        zero_count += self._sent_pages.found_late
        return Copied(
            pages_sent=search.page_count - zero_count,
            zero_pages=zero_count,
            bytes_sent=tally.bytes_sent - before.bytes_sent,
            compressed_pages=tally.compressed_pages - before.compressed_pages,
            compressed_bytes=tally.compressed_bytes - before.compressed_bytes,
            saved_bytes=tally.saved_bytes - before.saved_bytes,
        )

    def _many_are_late(self, pages_sent: int) -> bool:
        return self._sent_pages.found_late > LATE_ZEROS_SHARE * pages_sent

    async def _send_all(self, search: ZeroSearch, on_progress: Callable[[int], None]) -> int:
        """Hand every page to the transport; how many were found zero before."""
        done = zero_count = 0
        rest = became_zero = NO_PAGES
        while (found := await search.next()) is not None:
            batch, zero = found
            done += len(batch)
            if zero.any():
                zero_batch, batch = batch[zero], batch[~zero]
                zero_count += len(zero_batch)
                named = zero_batch[self._sent_pages.on_target[zero_batch]]
                became_zero = np.concatenate((became_zero, named))
            rest = np.concatenate((rest, batch)) if len(rest) else batch
            while len(rest) >= (frame_pages := self._transport.frame_pages):
                await self._transport.send(rest[:frame_pages])
                rest = rest[frame_pages:]
                on_progress(done - len(rest))
            while len(became_zero) > FRAME_ZERO_PAGES_MAX - FRAME_PAGES_MAX:
                await self._transport.send(NO_PAGES, became_zero[:FRAME_ZERO_PAGES_MAX])
                became_zero = became_zero[FRAME_ZERO_PAGES_MAX:]
            if self._many_are_late(done):
                search.trust_no_glance()
            on_progress(done - len(rest))
        if len(rest) or len(became_zero):
            await self._transport.send(rest, became_zero)
        on_progress(done)
        return zero_count
