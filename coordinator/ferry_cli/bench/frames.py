"""Page frames as bytes, without the copies that generated code makes of a payload.

What goes over the wire is a `ferry.v1.PageFrame` like any other. Only its payload, nearly all of its bytes,
is put in and cut out by hand; the rest is left to the generated code. That saves two copies on either side.
"""

from google.protobuf.message import DecodeError
from xxhash import xxh3_64_intdigest

from ferry.v1.migration_pb2 import PageFrame

_PAYLOAD_TAG = PageFrame.PAYLOAD_FIELD_NUMBER << 3 | 2
_VARINT, _LENGTH_DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}


class BadFrame(Exception):
    """A frame that does not hold what it must."""


def encode_frame(head: PageFrame, payload: memoryview) -> bytes:
    """The frame with everything in `head` and this payload, which protobuf allows to come last."""
    length = bytearray()
    rest = len(payload)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return b"".join((head.SerializeToString(), bytes((_PAYLOAD_TAG,)), length, payload))


def decode_frame(message: bytes) -> tuple[PageFrame, memoryview]:
    """The frame without its payload, and the payload as a view of the message. Raises BadFrame."""
    view = memoryview(message)
    payload, rest, position = view[:0], bytearray(), 0
    try:
        while position < len(view):
            start = position
            tag, position = _varint(view, position)
            position, end = _extent(view, position, tag & 7)
            if tag == _PAYLOAD_TAG:
                payload = view[position:end]
            else:
                rest += view[start:end]
            position = end
        return PageFrame.FromString(bytes(rest)), payload
    except (IndexError, DecodeError) as error:
        raise BadFrame("a frame is not well formed") from error


def frame_checksum(page_indices: bytes, payload: memoryview) -> int:
    """What `PageFrame.checksum` must be for a frame that names no zero pages."""
    return xxh3_64_intdigest(payload, xxh3_64_intdigest(page_indices))


def _extent(view: memoryview, position: int, wire_type: int) -> tuple[int, int]:
    """Where a field's value begins and ends. Raises IndexError, BadFrame for an unknown type."""
    if wire_type == _VARINT:
        end = _varint(view, position)[1]
    elif wire_type == _LENGTH_DELIMITED:
        length, position = _varint(view, position)
        end = position + length
    elif wire_type in _FIXED_BYTES:
        end = position + _FIXED_BYTES[wire_type]
    else:
        raise BadFrame(f"a frame has a field of unknown type {wire_type}")
    if end > len(view):
        raise IndexError(end)
    return position, end


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    """A number of at most 64 bits, and the position after it. Raises IndexError, BadFrame if longer."""
    value = 0
    for shift in range(0, 70, 7):
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise BadFrame("a frame has a number of more than 64 bits")
