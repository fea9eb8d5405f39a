"""Copying pages of a guest that may be running: which to send, which are zero, which marks to give back."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.compression import Batch, Compressor
from ferry_agent.migration.frames import NO_PAGES, FrameBuilder, zero_pages
from ferry_agent.migration.link import SourceLink
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
    """Sends pages of one attempt. The order of things that keeps every write: *clear the mark, then copy*.

    A page that is zero and was never sent needs no sending, because the target's memory is fresh; one that
    became zero after having been sent is named.
    """

    def __init__(self, memory: GuestMemory, link: SourceLink, compressor: Compressor | None = None) -> None:
        self._memory = memory
        self._link = link
        self._compressor = compressor
        self._builder = FrameBuilder(memory.pages)
        page_count = len(memory.pages)
        self._on_target = np.zeros(page_count, np.bool_)
        """Pages whose last copy at the target is not zero."""
        self._taken = np.zeros(page_count, np.bool_)
        """Marks that this attempt has taken."""
        self._found_late = 0
        """Pages of this pass that turned out zero once they were copied."""

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

    async def copy(self, indices: NDArray[np.int64], on_progress: Callable[[int], None]) -> Copied:
        """Send these pages in this order; ``on_progress`` is told how many are done. Raises FerryError."""
        if len(indices) == 0:
            return NOTHING_COPIED  # in the pause of an idle guest every turn of the event loop counts
        before = self._sent_so_far()
        self._found_late = 0
        done = zero_count = 0
        rest = became_zero = NO_PAGES
        async with aclosing(self._looked_at(indices)) as batches:
            async for batch, zero in batches:
                zero_batch = batch[zero]
                zero_count += len(zero_batch)
                became_zero = np.concatenate((became_zero, zero_batch[self._on_target[zero_batch]]))
                rest = np.concatenate((rest, batch[~zero]))
                done += len(batch)
                while len(rest) >= FRAME_PAGES_MAX:
                    await self._send(rest[:FRAME_PAGES_MAX], NO_PAGES)
                    rest = rest[FRAME_PAGES_MAX:]
                    on_progress(done - len(rest))
                while len(became_zero) > FRAME_ZERO_PAGES_MAX - FRAME_PAGES_MAX:
                    await self._send(NO_PAGES, became_zero[:FRAME_ZERO_PAGES_MAX])
                    became_zero = became_zero[FRAME_ZERO_PAGES_MAX:]
                on_progress(done)
        if len(rest) or len(became_zero):
            await self._send(rest, became_zero)
        if self._compressor is not None:
            await self._compressor.flush()
        zero_count += self._found_late
        sent = (after - earlier for after, earlier in zip(self._sent_so_far(), before, strict=True))
        return Copied(len(indices) - zero_count, zero_count, *sent)

    def _sent_so_far(self) -> tuple[int, int, int, int]:
        """Bytes of frames, and what ``Copied`` says of compression, of the whole attempt."""
        packed = self._compressor
        if packed is None:
            return self._link.bytes_sent, 0, 0, 0
        return self._link.bytes_sent, packed.compressed_pages, packed.compressed_bytes, packed.saved_bytes

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
        if not self._found_late and words[batch[::SCAN_PROBE_EVERY_PAGES], 0].all():
            return np.zeros(len(batch), np.bool_)
        half = len(batch) // 2
        parts = (asyncio.to_thread(zero_pages, words, part) for part in (batch[:half], batch[half:]))
        return np.concatenate(await asyncio.gather(*parts))

    async def settle(self) -> None:
        """Wait until the target has checked and written everything. Raises FerryError."""
        if self._link.last_was_full:
            await self._send(NO_PAGES, NO_PAGES)
        await self._link.all_acked()

    async def _send(self, page_indices: NDArray[np.int64], zero_indices: NDArray[np.int64]) -> None:
        if self._compressor is not None and await self._compressor.takes(len(page_indices)):
            rows, zero_rows = self._builder.gather(page_indices)
            if zero_rows.any():
                page_indices, zero_indices = self._found_zero(page_indices, zero_indices, zero_rows)
                rows = rows[~zero_rows]
            self._note(page_indices, zero_indices)
            self._compressor.submit(Batch(page_indices, zero_indices, rows))
            return
        frame = self._builder.build(self._link.frames_sent, page_indices, zero_indices)
        if frame.zero_rows.any():
            page_indices, zero_indices = self._found_zero(page_indices, zero_indices, frame.zero_rows)
            frame = self._builder.build(self._link.frames_sent, page_indices, zero_indices)
        self._note(page_indices, zero_indices)
        await self._link.send_frame(frame)

    def _found_zero(
        self, page_indices: NDArray[np.int64], zero_indices: NDArray[np.int64], zero_rows: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pages to carry and pages to name, now that some of the former turned out zero."""
        found = page_indices[zero_rows]
        self._found_late += len(found)
        named = np.concatenate((zero_indices, found[self._on_target[found]]))
        return page_indices[~zero_rows], named

    def _note(self, page_indices: NDArray[np.int64], zero_indices: NDArray[np.int64]) -> None:
        """What the target will have at the end of this pass, which names each page only once."""
        self._on_target[page_indices] = True
        self._on_target[zero_indices] = False
