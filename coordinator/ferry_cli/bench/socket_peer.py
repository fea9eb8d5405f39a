"""The peers `socket` and `socket-N`: bare TCP connections, from the source's memory into the target's.

The same work as a migration's bulk stream and nothing else: frames of 512 pages, each with its pages' numbers
and an XXH3-64 of its bytes, bounds and checksum checked on receipt, one acknowledgement at the end. Several
connections have a thread each on either side, and take turns frame by frame.
"""

import socket
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

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


def send_pages(
    connection: socket.socket, pages: Pages, page_count: int, number: int = 0, of: int = 1
) -> None:
    """Move every ``of``-th frame of the first pages, from ``number`` on, and wait for the acknowledgement."""
    step = of * FRAME_PAGES_MAX
    firsts = range(number * FRAME_PAGES_MAX, page_count, step)
    share = sum(min(FRAME_PAGES_MAX, page_count - first) for first in firsts)
    connection.sendall(TRANSFER.pack(share))
    for first in firsts:
        count = min(FRAME_PAGES_MAX, page_count - first)
        payload = pages[first : first + count].data.cast("B")
        _send(connection, FRAME.pack(first, count, _checksum(payload, first, count)), payload)
    answer = bytearray(TRANSFER.size)
    _receive_into(connection, memoryview(answer))
    if TRANSFER.unpack(answer) != (share,):
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


def _send_all(lanes: ThreadPoolExecutor, connections: Sequence[socket.socket], pages: Pages) -> None:
    of = len(connections)
    sent = [
        lanes.submit(send_pages, connection, pages, len(pages), number, of)
        for number, connection in enumerate(connections)
    ]
    for each in sent:
        each.result()


def _receive_all(lanes: ThreadPoolExecutor, connections: Sequence[socket.socket], memory_bytes: int) -> int:
    """Take what every connection brings into new memory; how many pages that was."""
    pages = map_pages(memory_bytes)

    def receive(connection: socket.socket) -> int:
        announced = bytearray(TRANSFER.size)
        _receive_into(connection, memoryview(announced))
        page_count: int = TRANSFER.unpack(announced)[0]
        receive_pages(connection, pages, page_count)
        return page_count

    return sum(lanes.map(receive, connections))


def _source(arguments: SourceArguments) -> None:
    pages = load_pages(arguments.contents, arguments.memory_bytes)
    with ExitStack() as stack:
        lanes = stack.enter_context(ThreadPoolExecutor(arguments.streams))
        connections = [
            stack.enter_context(socket.create_connection(("127.0.0.1", arguments.port)))
            for _ in range(arguments.streams)
        ]
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _send_all(lanes, connections, pages[:WARM_UP_PAGES])
        say("ready")
        wait_for_go()
        _send_all(lanes, connections, pages)
        say("sent")
        wait_for_bench()


def _target(arguments: TargetArguments) -> None:
    with ExitStack() as stack:
        lanes = stack.enter_context(ThreadPoolExecutor(arguments.streams))
        with socket.create_server(("127.0.0.1", 0)) as server:
            say("listening", server.getsockname()[1])
            connections = [stack.enter_context(server.accept()[0]) for _ in range(arguments.streams)]
        for connection in connections:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in ("warm-up", "run"):
            say("received", _receive_all(lanes, connections, arguments.memory_bytes))
        wait_for_bench()


if __name__ == "__main__":
    match begin():
        case SourceArguments() as arguments:
            _source(arguments)
        case TargetArguments() as arguments:
            _target(arguments)
