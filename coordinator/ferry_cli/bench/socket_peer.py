"""The peer `socket`: a bare TCP connection, straight from the source's memory into the target's.

The same work as a migration's bulk stream and nothing else: frames of 512 pages, each with its pages' numbers
and an XXH3-64 of its bytes, bounds and checksum checked on receipt, one acknowledgement at the end.
"""

import socket
import struct

from xxhash import xxh3_64_intdigest

from ferry_cli.bench.memory import Pages, load_pages, map_pages
from ferry_cli.bench.pair import (
    WARM_UP_PAGES,
    SourceArguments,
    TargetArguments,
    begin,
    say,
    wait_for_bench,
    wait_for_go,
)
from ferry_types.limits import FRAME_PAGES_MAX

TRANSFER = struct.Struct("<Q")
"""Pages to come; as an answer, pages checked and written."""
FRAME = struct.Struct("<IIQ")
"""First page, page count, XXH3-64 of the pages seeded with both."""


def _checksum(payload: memoryview, first: int, count: int) -> int:
    return xxh3_64_intdigest(payload, seed=first << 32 | count)


def _receive_into(connection: socket.socket, buffer: memoryview) -> None:
    """Fill the buffer. Raises EOFError if the stream ends before."""
    while buffer:
        received = connection.recv_into(buffer, 0, socket.MSG_WAITALL)
        if not received:
            raise EOFError
        buffer = buffer[received:]


def _send(connection: socket.socket, header: bytes, payload: memoryview) -> None:
    sent = connection.sendmsg((header, payload))
    if sent < len(header):
        connection.sendall(header[sent:])
    connection.sendall(payload[max(0, sent - len(header)) :])


def send_pages(connection: socket.socket, pages: Pages, page_count: int) -> None:
    """Move the first pages and wait for the acknowledgement."""
    connection.sendall(TRANSFER.pack(page_count))
    for first in range(0, page_count, FRAME_PAGES_MAX):
        count = min(FRAME_PAGES_MAX, page_count - first)
        payload = pages[first : first + count].data.cast("B")
        _send(connection, FRAME.pack(first, count, _checksum(payload, first, count)), payload)
    answer = bytearray(TRANSFER.size)
    _receive_into(connection, memoryview(answer))
    if TRANSFER.unpack(answer) != (page_count,):
        raise ValueError("the target has not got every page")


def receive_pages(connection: socket.socket, pages: Pages, page_count: int) -> None:
    """Take that many pages and acknowledge them. Raises ValueError for a bad frame, EOFError."""
    header = bytearray(FRAME.size)
    missing = page_count
    while missing:
        _receive_into(connection, memoryview(header))
        first, count, checksum = FRAME.unpack(header)
        if not 0 < count <= min(FRAME_PAGES_MAX, missing) or first + count > len(pages):
            raise ValueError(f"{count} pages from {first} on are out of bounds")
        payload = pages[first : first + count].data.cast("B")
        _receive_into(connection, payload)
        if _checksum(payload, first, count) != checksum:
            raise ValueError(f"the checksum of {count} pages from {first} on is wrong")
        missing -= count
    connection.sendall(TRANSFER.pack(page_count))


def _source(arguments: SourceArguments) -> None:
    pages = load_pages(arguments.contents, arguments.memory_bytes)
    with socket.create_connection(("127.0.0.1", arguments.port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        send_pages(connection, pages, min(WARM_UP_PAGES, len(pages)))
        say("ready")
        wait_for_go()
        send_pages(connection, pages, len(pages))
        say("sent")
        wait_for_bench()


def _target(arguments: TargetArguments) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        say("listening", server.getsockname()[1])
        connection, _ = server.accept()
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in ("warm-up", "run"):
            announced = bytearray(TRANSFER.size)
            _receive_into(connection, memoryview(announced))
            (page_count,) = TRANSFER.unpack(announced)
            pages = map_pages(arguments.memory_bytes)
            receive_pages(connection, pages, page_count)
            say("received", page_count)
        wait_for_bench()


if __name__ == "__main__":
    match begin():
        case SourceArguments() as arguments:
            _source(arguments)
        case TargetArguments() as arguments:
            _target(arguments)
