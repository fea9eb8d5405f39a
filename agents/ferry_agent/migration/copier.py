"""Copying pages of a guest that may be running: which to send, which are zero, which marks to give back."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.frames import NO_PAGES, zero_pages
from ferry_agent.migration.transports.transport import PassKind, SentPages, Transport
from ferry_types.limits import FRAME_PAGES_MAX, FRAME_ZERO_PAGES_MAX

SCAN_PAGES_MIN, SCAN_PAGES_MAX = 8192, 65536
"""Pages looked at in one go, in two threads: 32 MiB, twice as many after each batch that was all zero."""

SCAN_INLINE_PAGES_MAX = 512
"""Up to so many pages it takes longer to ask a thread than to look."""

SCAN_PROBE_EVERY_PAGES = 64
"""If none of these pages is zero at its head, hardly any page is: those few show once they are copied."""


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

    def take_touched(self) -> NDArray[np.int64]:
        """All pages that the guest ever touched, for the first pass, in rising order; takes their marks."""
        chosen = self._memory.touched.copy()
        # Whatever the guest touches between these two lines is marked by now, or will be taken later.
        chosen[self.take_dirty()] = True
        return np.flatnonzero(chosen)

    def least_recently_used_first(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The order of eras from 2012 on: pages in use come last, so that fewer are sent for nothing.

        Sorting a million pages takes a tenth of a second: call it from a thread.
        """
        return indices[np.argsort(self._memory.last_used[indices], kind="stable")]

    def take_dirty(self) -> NDArray[np.int64]:
        """Pages written since their marks were last taken; clears the marks, so copy them afterwards."""
        indices = self._memory.dirty.take()
        self._taken[indices] = True
        return indices

    def give_back(self) -> None:
        """Mark again every page whose mark this attempt took."""
        self._memory.dirty.give_back(np.flatnonzero(self._taken))

    async def copy(
        self, kind: PassKind, indices: NDArray[np.int64], on_progress: Callable[[int], None]
    ) -> Copied:
        """Send these pages in this order; ``on_progress`` is told how many are done. Raises FerryError.

        Returns once the target has checked and written them; of the last copy, once it has or will.
        """
        if len(indices) == 0:
            return NOTHING_COPIED  # in the pause of an idle guest every turn of the event loop counts
        tally, before = self._transport.tally, replace(self._transport.tally)
        on_target = self._sent_pages.on_target
        self._sent_pages.found_late = 0
        self._transport.begin_pass(kind)
        done = zero_count = 0
        rest = became_zero = NO_PAGES
        async with aclosing(self._looked_at(indices)) as batches:
            async for batch, zero in batches:
                zero_batch = batch[zero]
                zero_count += len(zero_batch)
                became_zero = np.concatenate((became_zero, zero_batch[on_target[zero_batch]]))
                rest = np.concatenate((rest, batch[~zero]))
                done += len(batch)
                while len(rest) >= (frame_pages := self._transport.frame_pages):
                    await self._transport.send(rest[:frame_pages])
                    rest = rest[frame_pages:]
                    on_progress(done - len(rest))
                while len(became_zero) > FRAME_ZERO_PAGES_MAX - FRAME_PAGES_MAX:
                    await self._transport.send(NO_PAGES, became_zero[:FRAME_ZERO_PAGES_MAX])
                    became_zero = became_zero[FRAME_ZERO_PAGES_MAX:]
                on_progress(done)
        if len(rest) or len(became_zero):
            await self._transport.send(rest, became_zero)
        await (self._transport.settle_last() if kind is PassKind.LAST else self._transport.settle())
        zero_count += self._sent_pages.found_late
        return Copied(
            pages_sent=len(indices) - zero_count,
            zero_pages=zero_count,
            bytes_sent=tally.bytes_sent - before.bytes_sent,
            compressed_pages=tally.compressed_pages - before.compressed_pages,
            compressed_bytes=tally.compressed_bytes - before.compressed_bytes,
            saved_bytes=tally.saved_bytes - before.saved_bytes,
        )

    async def _looked_at(
        self, indices: NDArray[np.int64]
    ) -> AsyncGenerator[tuple[NDArray[np.int64], NDArray[np.bool_]], None]:
        """Batches with the mask of their zero pages; the next is looked at while one is being sent."""
        scan_pages = SCAN_PAGES_MIN
        batch, rest = indices[:scan_pages], indices[scan_pages:]
        looking = asyncio.create_task(self._which_are_zero(batch))
        try:
            while len(batch):
                zero = await looking
                scan_pages = min(scan_pages * 2, SCAN_PAGES_MAX) if zero.all() else SCAN_PAGES_MIN
                following, rest = rest[:scan_pages], rest[scan_pages:]
                looking = asyncio.create_task(self._which_are_zero(following))
                yield batch, zero
                batch = following
        finally:
            looking.cancel()

    async def _which_are_zero(self, batch: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Mask of zero pages. NumPy lets go of the interpreter, so that leases are renewed meanwhile."""
        words = self._memory.words
        if len(batch) <= SCAN_INLINE_PAGES_MAX:
            return zero_pages(words, batch)
        if not self._sent_pages.found_late and words[batch[::SCAN_PROBE_EVERY_PAGES], 0].all():
            return np.zeros(len(batch), np.bool_)
        half = len(batch) // 2
        parts = (asyncio.to_thread(zero_pages, words, part) for part in (batch[:half], batch[half:]))
        return np.concatenate(await asyncio.gather(*parts))
