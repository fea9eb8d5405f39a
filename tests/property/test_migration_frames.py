"""Page frames: what is built arrives, and nothing else does."""

import lz4.block
import numpy as np
import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from ferry.v1 import migration_pb2
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.frame_codec import FrameError, PageFrame, decode, encode
from ferry_agent.migration.frames import (
    EncodedFrame,
    FrameBuilder,
    check,
    compressed_frame,
    frame_checksum,
    plain_frame,
    run_of,
    zero_pages,
)
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE

PAGES = 600
TEXT = np.frombuffer(b"".join(b"page %07d " % number * 293 for number in range(PAGES * 2)), np.uint8)
COMPRESSIBLE = TEXT[: PAGES * PAGE_SIZE].reshape(PAGES, PAGE_SIZE)
CONTENTS = np.random.default_rng(3).integers(0, 256, (PAGES, PAGE_SIZE), np.uint8)

page_lists = st.lists(st.integers(0, PAGES - 1), max_size=FRAME_PAGES_MAX, unique=True)
runs = st.tuples(st.integers(0, PAGES - 1), st.integers(0, FRAME_PAGES_MAX)).map(
    lambda run: list(range(run[0], min(run[0] + run[1], PAGES)))
)
small_bytes = st.binary(max_size=200)
wire_frames = st.builds(
    PageFrame,
    sequence=st.integers(0, 2**64 - 1),
    page_indices=small_bytes,
    payload=small_bytes,
    zero_indices=small_bytes,
    checksum=st.integers(0, 2**64 - 1),
    migration_id=st.text(max_size=20).map(str.encode),
    token=st.text(max_size=20).map(str.encode),
    lz4_checksum=st.none() | st.integers(0, 2**64 - 1),
    lane=st.integers(0, 2**32 - 1),
)


@given(sequence=st.integers(0, 2**64 - 1), pages=page_lists | runs, zeros=page_lists)
def test_what_is_built_arrives(sequence: int, pages: list[int], zeros: list[int]) -> None:
    built = FrameBuilder(CONTENTS).build(sequence, np.array(pages, np.int64), np.array(zeros, np.int64))
    frame = check(decode(built.wire), sequence=sequence, pages_in_memory=PAGES)
    assert frame.page_indices.tolist() == pages
    assert frame.zero_indices.tolist() == zeros
    assert (frame.rows == CONTENTS[pages]).all()
    assert (frame.checksum, frame.pages, frame.full) == (built.checksum, built.pages, built.full)


def compressed(sequence: int, pages: list[int], zeros: list[int] | None = None) -> EncodedFrame:
    indices = np.array(pages, np.int64)
    rows, _ = FrameBuilder(COMPRESSIBLE).gather(indices)
    payload = lz4.block.compress(rows.data, store_size=False)
    return compressed_frame(sequence, indices, np.array(zeros or [], np.int64), rows, payload)


@given(sequence=st.integers(0, 2**64 - 1), pages=(page_lists | runs).filter(bool), zeros=page_lists)
def test_what_is_compressed_arrives(sequence: int, pages: list[int], zeros: list[int]) -> None:
    built = compressed(sequence, pages, zeros)
    frame = check(decode(built.wire), sequence=sequence, pages_in_memory=PAGES)
    assert frame.page_indices.tolist() == pages
    assert frame.zero_indices.tolist() == zeros
    assert (frame.rows == COMPRESSIBLE[pages]).all()
    assert (frame.checksum, frame.pages, frame.full) == (built.checksum, built.pages, built.full)
    assert len(built.wire) < len(pages) * PAGE_SIZE / 4 + 4 * (len(pages) + len(zeros)) + 100


@given(pages=page_lists | runs, zeros=page_lists)
def test_a_batch_that_did_not_shrink_makes_the_frame_that_was_built_at_once(
    pages: list[int], zeros: list[int]
) -> None:
    indices, zero_indices = np.array(pages, np.int64), np.array(zeros, np.int64)
    builder = FrameBuilder(CONTENTS)
    rows, zero_rows = builder.gather(indices)
    assert not zero_rows.any()
    assert plain_frame(5, indices, zero_indices, rows).wire == builder.build(5, indices, zero_indices).wire


@given(frame=wire_frames)
def test_the_encoding_is_protobufs_both_ways(frame: PageFrame) -> None:
    message = migration_pb2.PageFrame(
        migration_id=bytes(frame.migration_id).decode(),
        token=bytes(frame.token).decode(),
        lane=frame.lane,
        sequence=frame.sequence,
        page_indices=bytes(frame.page_indices),
        payload=bytes(frame.payload),
        zero_indices=bytes(frame.zero_indices),
        checksum=frame.checksum,
        lz4_checksum=frame.lz4_checksum,
    )
    assert migration_pb2.PageFrame.FromString(encode(frame)) == message
    assert decode(message.SerializeToString()) == frame


@given(wire=st.binary(max_size=300))
def test_garbage_is_refused_and_nothing_worse(wire: bytes) -> None:
    try:
        check(decode(wire), sequence=0, pages_in_memory=PAGES)
    except FrameError:
        return
    # The only frame that says nothing and is right all the same has the checksum of nothing.
    assert migration_pb2.PageFrame.FromString(wire).checksum != 0


@given(pages=page_lists.filter(bool), position=st.floats(0, 1), bit=st.integers(0, 7), squeezed=st.booleans())
def test_a_flipped_bit_is_noticed(pages: list[int], position: float, bit: int, squeezed: bool) -> None:
    plain = FrameBuilder(CONTENTS).build(1, np.array(pages, np.int64))
    damaged = bytearray(compressed(1, pages).wire if squeezed else plain.wire)
    damaged[int(position * (len(damaged) - 1))] ^= 1 << bit
    with pytest.raises(FrameError):
        check(decode(bytes(damaged)), sequence=1, pages_in_memory=PAGES)


# --- blocks that a hostile source might send: every checksum but that of the pages is right ---------------

PAGES_SENT = COMPRESSIBLE[:4].tobytes()
BLOCK = lz4.block.compress(PAGES_SENT, store_size=False)
BOMB = lz4.block.compress(bytes(2**26), store_size=False)[: 4 * PAGE_SIZE - 1]


def hostile(
    payload: bytes, lz4_checksum: int = xxhash.xxh3_64_intdigest(PAGES_SENT), pages: int = 4
) -> bytes:
    indices = np.arange(pages).astype("<u4").tobytes()
    checksum = frame_checksum(indices, b"", payload)
    return encode(PageFrame(2, indices, payload, checksum=checksum, lz4_checksum=lz4_checksum))


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (hostile(BOMB), "is no LZ4 block of 16384 bytes"),
        (hostile(BLOCK[:-1]), "LZ4 block|decodes to"),
        (hostile(BLOCK + b"\0"), "LZ4 block|decodes to|another checksum"),
        (
            hostile(lz4.block.compress(PAGES_SENT[:-1], store_size=False)),
            "decodes to 16383 bytes, not to 16384",
        ),
        (hostile(lz4.block.compress(PAGES_SENT + b"x", store_size=False)), "is no LZ4 block"),
        (hostile(lz4.block.compress(bytes(4 * PAGE_SIZE), store_size=False)), "another checksum"),
        (hostile(lz4.block.compress(PAGES_SENT)), "LZ4 block|decodes to|another checksum"),
        (hostile(PAGES_SENT), "16384 bytes of compressed payload came for 4 pages"),
        (hostile(BLOCK, pages=0), "bytes of compressed payload came for 0 pages"),
        (hostile(b"", pages=0), "0 bytes of compressed payload came for 0 pages"),
        (hostile(b""), "LZ4 block|decodes to"),
        (hostile(BLOCK, pages=3), "is no LZ4 block of 12288 bytes"),
        (hostile(BLOCK, pages=5), "decodes to 16384 bytes, not to 20480"),
        (hostile(BLOCK, lz4_checksum=1), "another checksum"),
    ],
)
def test_a_block_that_is_not_these_pages_is_refused(wire: bytes, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        check(decode(wire), sequence=2, pages_in_memory=PAGES)


def test_a_block_that_is_these_pages_is_taken() -> None:
    frame = check(decode(hostile(BLOCK)), sequence=2, pages_in_memory=PAGES)
    assert frame.rows.tobytes() == PAGES_SENT


@given(payload=st.binary(max_size=4 * PAGE_SIZE - 1))
def test_no_rubbish_decodes_to_pages(payload: bytes) -> None:
    with pytest.raises(FrameError):
        check(decode(hostile(payload)), sequence=2, pages_in_memory=PAGES)


@given(
    blank=st.sets(st.integers(0, 63)),
    inner=st.dictionaries(st.integers(0, 63), st.integers(0, PAGE_SIZE - 1)),
    chosen=st.lists(st.integers(0, 63), unique=True) | st.just(list(range(64))),
)
@example(set(range(64)), {5: 2000}, list(range(64)))
@example(set(range(64)), {5: 2007}, list(range(64)))
def test_zero_pages_are_those_without_a_byte(
    blank: set[int], inner: dict[int, int], chosen: list[int]
) -> None:
    memory = GuestMemory(64 * PAGE_SIZE)
    memory.pages[:] = 1
    memory.pages[sorted(blank)] = 0
    for page, byte in inner.items():
        memory.pages[page, byte] = 1
    zero = zero_pages(memory.words, np.array(chosen, np.int64))
    assert zero.tolist() == [page in blank - inner.keys() for page in chosen]


@given(indices=st.lists(st.integers(0, 10), max_size=6))
def test_a_run_rises_by_one(indices: list[int]) -> None:
    rises = bool(indices) and indices == list(range(indices[0], indices[0] + len(indices)))
    expected = slice(indices[0], indices[0] + len(indices)) if rises else None
    assert run_of(np.array(indices, np.int64)) == expected
