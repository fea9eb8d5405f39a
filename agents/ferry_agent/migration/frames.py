"""Page frames: gathering pages, and checking what arrives.

The guest may write while its pages are gathered, so a frame's checksum is taken over a copy, never over guest
memory itself. What arrives is hostile until proved otherwise: ``check`` looks at everything before a byte of
it may reach memory.
"""

from dataclasses import dataclass

import lz4.block
import numpy as np
import xxhash
from numpy.typing import NDArray

from ferry_agent.migration.frame_codec import Buffer, FrameError, FrameWriter, PageFrame, encode
from ferry_types.limits import FRAME_PAGES_MAX, FRAME_ZERO_PAGES_MAX, PAGE_SIZE

NO_PAGES: NDArray[np.int64] = np.empty(0, np.int64)

_NO_ROWS: NDArray[np.bool_] = np.empty(0, np.bool_)
_INDEX_BYTES = 4

_RUN_PAGES_MIN = 64
"""Pages that come in runs of so many on average are looked at run by run, without being copied first."""

_BLOCK_PAGES = 1024
_PROBE_EVERY_PAGES = 64
"""Pages are taken for zero together, until they are read, if none of these shows anything at its head."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A frame ready for the wire."""

    wire: bytes
    pages: int
    """Pages that it names, zero ones too."""
    checksum: int
    full: bool
    """Whether it carries as many pages as a frame can."""
    zero_rows: NDArray[np.bool_]
    """Which of the pages that it carries are zero all the same: (carried pages,)."""


@dataclass(frozen=True, slots=True)
class CheckedFrame:
    """A frame that passed every check: indices are below the page count, ``rows`` is (n, 4096) uint8."""

    page_indices: NDArray[np.uint32]
    place: slice | NDArray[np.uint32]
    """Where ``rows`` belong: the page indices, as a slice if they are a run."""
    rows: NDArray[np.uint8]
    zero_indices: NDArray[np.uint32]
    checksum: int

    @property
    def pages(self) -> int:
        """Pages that it names, zero ones too."""
        return len(self.page_indices) + len(self.zero_indices)

    @property
    def full(self) -> bool:
        """Whether it carries as many pages as a frame can."""
        return len(self.page_indices) == FRAME_PAGES_MAX


class FrameBuilder:
    """Gathers pages of one guest's memory, (n, 4096) uint8, into frames. For one thread at a time."""

    def __init__(self, pages: NDArray[np.uint8]) -> None:
        self._pages = pages

    def build(
        self, sequence: int, page_indices: NDArray[np.int64], zero_indices: NDArray[np.int64] = NO_PAGES
    ) -> EncodedFrame:
        """Copy these pages (at most 512) into a frame that names those (at most 65,536) as zero.

        Pages are looked at for zeros once copied: that costs nothing, where the first touch of a page that
        lies in no cache costs as much as copying a third of it.
        """
        head = _head(sequence, page_indices, zero_indices)
        writer = FrameWriter(head, len(page_indices) * PAGE_SIZE)
        rows = writer.payload.reshape(-1, PAGE_SIZE)
        self._gather(page_indices, rows)
        return _finished(writer, head, _zero_copies(rows))

    def gather(self, page_indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A copy of these pages (at most 512) that is no frame yet, (n, 4096), and which of them are zero."""
        rows = np.empty((len(page_indices), PAGE_SIZE), np.uint8)
        self._gather(page_indices, rows)
        return rows, _zero_copies(rows)

    def _gather(self, page_indices: NDArray[np.int64], rows: NDArray[np.uint8]) -> None:
        run = run_of(page_indices)
        if run is not None:
            np.copyto(rows, self._pages[run])
        else:
            # Any mode but "raise" lets NumPy write into `out` without a buffer between.
            np.take(self._pages, page_indices, axis=0, out=rows, mode="clip")


def plain_frame(
    sequence: int,
    page_indices: NDArray[np.int64],
    zero_indices: NDArray[np.int64],
    rows: NDArray[np.uint8],
) -> EncodedFrame:
    """A frame of pages that were gathered before and hold no zero page; ``rows`` is (n, 4096)."""
    head = _head(sequence, page_indices, zero_indices)
    writer = FrameWriter(head, rows.nbytes)
    writer.payload[:] = rows.reshape(-1)
    return _finished(writer, head, np.zeros(len(rows), np.bool_))


def compressed_frame(
    sequence: int,
    page_indices: NDArray[np.int64],
    zero_indices: NDArray[np.int64],
    rows: NDArray[np.uint8],
    payload: bytes,
) -> EncodedFrame:
    """As ``plain_frame``, with ``rows`` as an LZ4 block that is shorter than they are.

    Two checksums, because each catches what the other does not: the frame's own one, over the payload as it
    is sent, tells damage on the way before a decoder sees it; the other, over the pages, is taken on the copy
    itself, so that it also tells a block that is sound and holds something else.
    """
    head = _head(sequence, page_indices, zero_indices, xxhash.xxh3_64_intdigest(rows.data))
    writer = FrameWriter(head, len(payload))
    writer.payload[:] = np.frombuffer(payload, np.uint8)
    return _finished(writer, head, np.zeros(len(rows), np.bool_))


def _head(
    sequence: int,
    page_indices: NDArray[np.int64],
    zero_indices: NDArray[np.int64],
    lz4_checksum: int | None = None,
) -> PageFrame:
    assert len(page_indices) <= FRAME_PAGES_MAX, len(page_indices)
    assert len(zero_indices) <= FRAME_ZERO_PAGES_MAX, len(zero_indices)
    return PageFrame(
        sequence,
        page_indices=page_indices.astype("<u4").tobytes(),
        zero_indices=zero_indices.astype("<u4").tobytes(),
        lz4_checksum=lz4_checksum,
    )


def _finished(writer: FrameWriter, head: PageFrame, zero_rows: NDArray[np.bool_]) -> EncodedFrame:
    checksum = frame_checksum(head.page_indices, head.zero_indices, writer.payload.data)
    carried, zero = len(head.page_indices) // _INDEX_BYTES, len(head.zero_indices) // _INDEX_BYTES
    full = carried == FRAME_PAGES_MAX
    return EncodedFrame(writer.finish(checksum), carried + zero, checksum, full, zero_rows)


def _zero_copies(rows: NDArray[np.uint8]) -> NDArray[np.bool_]:
    # Heads as one number each: a maximum of eight bytes costs NumPy four times as much.
    zero_rows: NDArray[np.bool_] = rows.view(np.uint64)[:, 0] == 0
    if zero_rows.any():
        zero_rows[zero_rows] = rows[zero_rows].max(axis=1) == 0
    return zero_rows


def opening_frame(migration_id: str, token: str, lane: int = 0) -> EncodedFrame:
    """The first frame of a stream: it names the attempt and the lane, and carries no pages."""
    checksum = frame_checksum(b"", b"", b"")
    opening = PageFrame(
        checksum=checksum, migration_id=migration_id.encode(), token=token.encode(), lane=lane
    )
    return EncodedFrame(encode(opening), 0, checksum, full=False, zero_rows=_NO_ROWS)


def zero_pages(words: NDArray[np.uint64], page_indices: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these pages are zero, as a mask over ``page_indices``; ``words`` is memory as (n, 512) uint64.

    A guest that writes meanwhile does no harm: it marks the page afterwards, and so it is looked at again.
    """
    if len(page_indices) == 0:
        return np.zeros(0, np.bool_)
    run = run_of(page_indices)
    if run is not None:
        return _zero_rows(words[run])
    breaks = np.flatnonzero(np.diff(page_indices) != 1) + 1
    if len(breaks) <= len(page_indices) // _RUN_PAGES_MIN:
        runs = np.split(page_indices, breaks)
        return np.concatenate([_zero_rows(words[each[0] : each[0] + len(each)]) for each in runs])
    # A page in use mostly shows it at its head; the rest is read only of those that do not.
    zero: NDArray[np.bool_] = words[page_indices, 0] == 0
    zero[zero] = np.bitwise_or.reduce(words[page_indices[zero]], axis=1) == 0
    return zero


def _zero_rows(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which rows of (n, 512) are zero. Zero as a whole goes fastest, the longer the better: read in order."""
    if _is_zero(words):
        return np.ones(len(words), np.bool_)
    zero = np.empty(len(words), np.bool_)
    for start in range(0, len(words), _BLOCK_PAGES):
        block = words[start : start + _BLOCK_PAGES]
        found = zero[start : start + _BLOCK_PAGES]
        if _is_zero(block):
            found[:] = True
        else:
            np.equal(block[:, 0], 0, out=found)
            found[found] = np.bitwise_or.reduce(block[found], axis=1) == 0
    return zero


def _is_zero(rows: NDArray[np.uint64]) -> bool:
    # In 32 bits: without AVX-512, processors have no maximum of 64, and take a fifth longer to read memory.
    return not rows[::_PROBE_EVERY_PAGES, 0].any() and rows.view(np.uint32).max() == 0


def run_of(indices: NDArray[np.int64] | NDArray[np.uint32]) -> slice | None:
    """Indices that rise by one each as a slice, faster than picking them out; None of others, and of none."""
    if len(indices) == 0:
        return None
    first, stop = int(indices[0]), int(indices[-1]) + 1
    if stop - first != len(indices):
        return None
    if np.arange(first, stop, dtype=indices.dtype).tobytes() != indices.tobytes():
        return None
    return slice(first, stop)


def check(frame: PageFrame, *, sequence: int, pages_in_memory: int) -> CheckedFrame:
    """Prove a frame fit to be written: it must be number ``sequence`` of its stream.

    Raises FrameError for a gap in the sequence, a wrong length or count, an index out of range, a checksum
    that does not match and a payload that does not decode to the pages that it is for; decoding is bounded by
    what the page count says, 2 MiB at most. A page that is named twice is harmless: the last one counts, and
    zeros come first.
    """
    if frame.sequence != sequence:
        raise FrameError(f"frame {frame.sequence} came where frame {sequence} was due")
    page_indices = checked_indices(frame.page_indices, FRAME_PAGES_MAX, pages_in_memory, "pages")
    zero_indices = checked_indices(frame.zero_indices, FRAME_ZERO_PAGES_MAX, pages_in_memory, "zero pages")
    raw_bytes = len(page_indices) * PAGE_SIZE
    compressed = frame.lz4_checksum is not None
    if not (len(frame.payload) < raw_bytes if compressed else len(frame.payload) == raw_bytes):
        kind = "compressed payload" if compressed else "payload"
        raise FrameError(f"{len(frame.payload)} bytes of {kind} came for {len(page_indices)} pages")
    if frame_checksum(frame.page_indices, frame.zero_indices, frame.payload) != frame.checksum:
        raise FrameError(f"the checksum of frame {sequence} does not match its contents")
    contents = frame.payload if frame.lz4_checksum is None else _decompressed(frame, raw_bytes)
    rows = np.frombuffer(contents, np.uint8).reshape(-1, PAGE_SIZE)
    run = run_of(page_indices)
    place = page_indices if run is None else run
    return CheckedFrame(page_indices, place, rows, zero_indices, frame.checksum)


def _decompressed(frame: PageFrame, raw_bytes: int) -> bytes:
    try:
        contents: bytes = lz4.block.decompress(frame.payload, uncompressed_size=raw_bytes)
    except lz4.block.LZ4BlockError as error:
        raise FrameError(
            f"the payload of frame {frame.sequence} is no LZ4 block of {raw_bytes} bytes: {error}"
        ) from error
    if len(contents) != raw_bytes:
        raise FrameError(
            f"the payload of frame {frame.sequence} decodes to {len(contents)} bytes, not to {raw_bytes}"
        )
    if xxhash.xxh3_64_intdigest(contents) != frame.lz4_checksum:
        raise FrameError(f"what the payload of frame {frame.sequence} decodes to has another checksum")
    return contents


def frame_checksum(page_bytes: Buffer, zero_bytes: Buffer, payload: Buffer) -> int:
    """XXH3-64 of the payload, seeded with XXH3-64 of the indices, as ``migration.proto`` defines it."""
    seed = xxhash.xxh3_64_intdigest(b"".join((page_bytes, zero_bytes)))
    return xxhash.xxh3_64_intdigest(payload, seed=seed)


def checked_indices(packed: Buffer, count_max: int, pages_in_memory: int, what: str) -> NDArray[np.uint32]:
    """Page numbers as they are on the wire, all below ``pages_in_memory``. Raises FrameError."""
    count, rest = divmod(len(packed), 4)
    if rest:
        raise FrameError(f"{len(packed)} bytes of indices of {what} are not a multiple of 4")
    if count > count_max:
        raise FrameError(f"{count} {what} in one frame are more than {count_max}")
    indices = np.frombuffer(packed, "<u4").astype(np.uint32, copy=False)
    if count and int(indices.max()) >= pages_in_memory:
        raise FrameError(f"page {int(indices.max())} is out of range: memory has {pages_in_memory} pages")
    return indices
