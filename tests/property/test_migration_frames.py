"""Page frames: what is built arrives, and nothing else does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferry.v1 import migration_pb2
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.frame_codec import FrameError, PageFrame, decode, encode
from ferry_agent.migration.frames import FrameBuilder, check, is_run, zero_pages
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE

PAGES = 600
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


@given(pages=page_lists.filter(bool), position=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(pages: list[int], position: float, bit: int) -> None:
    built = FrameBuilder(CONTENTS).build(1, np.array(pages, np.int64))
    damaged = bytearray(built.wire)
    damaged[int(position * (len(damaged) - 1))] ^= 1 << bit
    with pytest.raises(FrameError):
        check(decode(bytes(damaged)), sequence=1, pages_in_memory=PAGES)


@given(
    blank=st.sets(st.integers(0, 63)),
    inner=st.sets(st.integers(0, 63)),
    chosen=st.lists(st.integers(0, 63), unique=True) | st.just(list(range(64))),
)
def test_zero_pages_are_those_without_a_byte(blank: set[int], inner: set[int], chosen: list[int]) -> None:
    memory = GuestMemory(64 * PAGE_SIZE)
    memory.pages[:] = 1
    memory.pages[sorted(blank)] = 0
    memory.pages[sorted(inner), 2000] = 1
    zero = zero_pages(memory.words, np.array(chosen, np.int64))
    assert zero.tolist() == [page in blank - inner for page in chosen]


@given(indices=st.lists(st.integers(0, 10), max_size=6))
def test_a_run_rises_by_one(indices: list[int]) -> None:
    expected = bool(indices) and indices == list(range(indices[0], indices[0] + len(indices)))
    assert is_run(np.array(indices, np.int64)) == expected
