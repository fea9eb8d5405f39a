"""The hand-made half of a page frame, and what the `grpc` peer's target refuses."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferry.v1.migration_pb2 import PageFrame
from ferry_cli.bench.frames import BadFrame, decode_frame, encode_frame, frame_checksum
from ferry_cli.bench.grpc_peer import read_frame, write_frame
from ferry_cli.bench.memory import map_pages
from ferry_types.limits import FRAME_PAGES_MAX

PAGE_COUNT = FRAME_PAGES_MAX + 44


def frame_of(indices: list[int], payload: bytes, sequence: int = 0, **changes: object) -> bytes:
    page_indices = np.array(indices, dtype="<u4").tobytes()
    checksum = frame_checksum(page_indices, memoryview(payload))
    head = PageFrame(sequence=sequence, page_indices=page_indices, checksum=checksum)
    return encode_frame(PageFrame(**{**_fields(head), **changes}), memoryview(payload))  # type: ignore[arg-type]


def _fields(frame: PageFrame) -> dict[str, object]:
    return {field.name: value for field, value in frame.ListFields()}


@given(st.binary(max_size=70_000), st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_generated_code_reads_what_was_encoded_by_hand(payload: bytes, indices: bytes, number: int) -> None:
    head = PageFrame(sequence=number, page_indices=indices, checksum=number, token="t")
    frame = PageFrame.FromString(encode_frame(head, memoryview(payload)))
    assert frame.payload == payload
    frame.ClearField("payload")
    assert frame == head


@given(st.binary(max_size=70_000), st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_what_generated_code_wrote_is_decoded_by_hand(payload: bytes, indices: bytes, number: int) -> None:
    head = PageFrame(sequence=number, page_indices=indices, zero_indices=indices, checksum=number)
    whole = PageFrame.FromString(head.SerializeToString())
    whole.payload = payload
    decoded, cut_out = decode_frame(whole.SerializeToString())
    assert decoded == head
    assert cut_out == payload


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_bad_frame(message: bytes) -> None:
    with suppress(BadFrame):
        decode_frame(message)


@given(st.data())
def test_a_damaged_frame_is_a_frame_or_a_bad_frame(data: st.DataObject) -> None:
    message = bytearray(frame_of([0, 1], bytes(8192), zero_indices=b"1234", token="t"))
    head_bytes = len(message) - 8192
    message[data.draw(st.integers(0, head_bytes - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadFrame):
        decode_frame(bytes(message))


def test_a_cut_frame_is_bad() -> None:
    whole = frame_of([0], bytes(4096))
    with pytest.raises(BadFrame):
        decode_frame(whole[:-1])


def test_frames_carry_memory_from_source_to_target() -> None:
    source, target = map_pages(PAGE_COUNT * 4096), map_pages(PAGE_COUNT * 4096)
    source[:] = np.random.default_rng(1).integers(0, 256, source.shape, dtype=np.uint8)
    written = [
        write_frame(target, read_frame(source, sequence, sequence, PAGE_COUNT), sequence)
        for sequence in (0, 1)
    ]
    assert written == [FRAME_PAGES_MAX, 44]
    assert np.array_equal(source, target)


def test_pages_in_any_order_land_where_they_belong() -> None:
    target = map_pages(4 * 4096)
    write_frame(target, frame_of([3, 1], b"3" * 4096 + b"1" * 4096), 0)
    assert [bytes(page[:1]) for page in target] == [b"\0", b"1", b"\0", b"3"]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(frame_of([PAGE_COUNT], bytes(4096)), id="page index out of range"),
        pytest.param(frame_of([0], bytes(4095)), id="payload too short"),
        pytest.param(frame_of([0, 1], bytes(4096)), id="payload of fewer pages"),
        pytest.param(frame_of([], b""), id="no pages"),
        pytest.param(
            frame_of([0] * (FRAME_PAGES_MAX + 1), bytes((FRAME_PAGES_MAX + 1) * 4096)), id="too many pages"
        ),
        pytest.param(frame_of([0], bytes(4096), page_indices=b"\0\0\0"), id="half a page index"),
        pytest.param(frame_of([0], bytes(4096), checksum=1), id="wrong checksum"),
        pytest.param(frame_of([0], bytes(4096), sequence=1), id="frame missing before it"),
        pytest.param(frame_of([0], bytes(4096), zero_indices=b"\1\0\0\0"), id="zero pages"),
    ],
)
def test_a_frame_that_breaks_a_rule_is_refused_and_nothing_written(message: bytes) -> None:
    target = map_pages(PAGE_COUNT * 4096)
    target[:] = 7
    with pytest.raises(BadFrame):
        write_frame(target, message, 0)
    assert np.all(target == 7)
