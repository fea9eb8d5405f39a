"""Runs of pages are received whole, with what comes last not waiting for more."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ferry_agent.migration.direct_wire import WOKEN_EVERY_BYTES, receive_run

DEADLINE_S = 10.0
SIZES = [1, WOKEN_EVERY_BYTES - 1, WOKEN_EVERY_BYTES, WOKEN_EVERY_BYTES + 1, 2 * WOKEN_EVERY_BYTES, 2 * 2**20]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Of a TCP connection, the sender's and the receiver's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname(), timeout=DEADLINE_S)
        receiver, _ = server.accept()
    receiver.settimeout(None)
    with sender, receiver:
        yield sender, receiver


@pytest.mark.timeout(30)
@pytest.mark.parametrize("size", SIZES)
def test_a_run_is_whole_though_nothing_follows_it(
    ends: tuple[socket.socket, socket.socket], size: int
) -> None:
    sender, receiver = ends
    contents = bytes(range(256)) * (size // 256 + 1)
    view = memoryview(bytearray(size))
    with ThreadPoolExecutor(1) as thread:
        received = thread.submit(receive_run, receiver, view)
        sender.sendall(contents[: size // 2])
        sender.sendall(contents[size // 2 : size])
        assert received.result(DEADLINE_S)
    assert view == contents[:size]
    sender.sendall(b"next")
    assert receiver.recv(16) == b"next", "less than a run wakes the receiver again"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("size", SIZES)
def test_a_run_that_is_cut_off_is_not_whole(ends: tuple[socket.socket, socket.socket], size: int) -> None:
    sender, receiver = ends
    sender.sendall(bytes(size - 1))
    sender.close()
    assert not receive_run(receiver, memoryview(bytearray(size)))
