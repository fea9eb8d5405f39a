"""``PageFrame`` on the wire, encoded and decoded by hand.

A payload of 2 MiB must not be copied for nothing. ``SerializeToString`` copies it three times into fresh
memory, where gathering pages at their place copies once, in a tenth of the time; ``FromString`` copies it
twice, where this decoder only points into what arrived. The encoding is protobuf's all the same, so that
any other implementation of ``migration.proto`` understands it.
"""

import ctypes
import struct
from dataclasses import dataclass

import numpy as np

# Keys of PageFrame's fields: number << 3 | wire type (0 varint, 1 fixed64, 2 length-delimited).
_MIGRATION_ID, _TOKEN, _SEQUENCE, _PAGE_INDICES = 0x0A, 0x12, 0x18, 0x22
_PAYLOAD, _ZERO_INDICES, _CHECKSUM, _LZ4_CHECKSUM, _LANE = 0x2A, 0x32, 0x39, 0x41, 0x48
_LENGTH_DELIMITED = frozenset({_MIGRATION_ID, _TOKEN, _PAGE_INDICES, _PAYLOAD, _ZERO_INDICES})

_FIXED64 = struct.Struct("<Q")
_TAIL_BYTES = 1 + _FIXED64.size
_VARINT_BITS_MAX = 64

_new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
_new_bytes.argtypes, _new_bytes.restype = (ctypes.c_char_p, ctypes.c_ssize_t), ctypes.py_object
_address_of = ctypes.pythonapi.PyBytes_AsString
_address_of.argtypes, _address_of.restype = (ctypes.py_object,), ctypes.c_void_p

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
    lz4_checksum: int | None = None
    """XXH3-64 of what the payload decodes to; None if it is the pages themselves."""
    lane: int = 0


class FrameWriter:
    """A frame whose payload is gathered at its place on the wire: of 2 MiB, every copy counts.

    ``payload`` is the place, (payload_bytes,) uint8, to be filled before ``finish``; it points into the frame
    and does not keep it alive, so it must not outlive the writer. ``frame`` has all other
    fields; its checksum can be given at the end, because what is hashed has to be there first.
    """

    def __init__(self, frame: PageFrame, payload_bytes: int) -> None:
        parts: list[Buffer] = []
        for key, value in (
            (_MIGRATION_ID, frame.migration_id),
            (_TOKEN, frame.token),
            (_PAGE_INDICES, frame.page_indices),
            (_ZERO_INDICES, frame.zero_indices),
        ):
            if len(value):
                parts += (_varint(key, len(value)), value)
        parts.append(_varint(_SEQUENCE, frame.sequence))
        if frame.lz4_checksum is not None:
            parts += (bytes((_LZ4_CHECKSUM,)), _FIXED64.pack(frame.lz4_checksum))
        if frame.lane:
            parts.append(_varint(_LANE, frame.lane))
        if payload_bytes:
            parts.append(_varint(_PAYLOAD, payload_bytes))
        head = b"".join(parts)
        # Python's own way to make bytes: allocate, fill while nobody else has seen them, then never again.
        self._wire: bytes = _new_bytes(None, len(head) + payload_bytes + _TAIL_BYTES)
        place = (ctypes.c_ubyte * len(self._wire)).from_address(_address_of(self._wire))
        self._place = np.frombuffer(memoryview(place), np.uint8)
        self._place[: len(head)] = np.frombuffer(head, np.uint8)
        self.payload = self._place[len(head) : len(head) + payload_bytes]

    def finish(self, checksum: int) -> bytes:
        """The whole frame, in protobuf's encoding. Nothing may be written to ``payload`` any more."""
        tail = bytes((_CHECKSUM,)) + _FIXED64.pack(checksum)
        self._place[-_TAIL_BYTES:] = np.frombuffer(tail, np.uint8)
        return self._wire


def encode(frame: PageFrame) -> bytes:
    """The frame in protobuf's encoding."""
    writer = FrameWriter(frame, len(frame.payload))
    writer.payload[:] = np.frombuffer(frame.payload, np.uint8)
    return writer.finish(frame.checksum)


def decode(wire: bytes) -> PageFrame:
    """Take a message apart; byte fields point into ``wire``. Raises FrameError.

    Stricter than protobuf: a field that is not known is refused, since its meaning is not either.
    """
    view = memoryview(wire)
    fields: dict[int, Buffer] = {}
    checksums: dict[int, int] = {}
    sequence = lane = position = 0
    while position < len(view):
        key = view[position]
        position += 1
        if key in _LENGTH_DELIMITED:
            length, position = _read_varint(view, position)
            fields[key] = _slice(view, position, length)
            position += length
        elif key == _SEQUENCE:
            sequence, position = _read_varint(view, position)
        elif key in (_CHECKSUM, _LZ4_CHECKSUM):
            (checksums[key],) = _FIXED64.unpack(_slice(view, position, _FIXED64.size))
            position += _FIXED64.size
        elif key == _LANE:
            lane, position = _read_varint(view, position)
        else:
            raise FrameError(f"key {key:#x} at byte {position - 1} is none of a page frame's")
    return PageFrame(
        sequence=sequence,
        page_indices=fields.get(_PAGE_INDICES, b""),
        payload=fields.get(_PAYLOAD, b""),
        zero_indices=fields.get(_ZERO_INDICES, b""),
        checksum=checksums.get(_CHECKSUM, 0),
        migration_id=fields.get(_MIGRATION_ID, b""),
        token=fields.get(_TOKEN, b""),
        lz4_checksum=checksums.get(_LZ4_CHECKSUM),
        lane=lane,
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
