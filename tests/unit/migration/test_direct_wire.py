"""Runs of pages are received whole and hashed, with what comes last not waiting for more."""

import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from xxhash import xxh3_64, xxh3_64_intdigest

from ferry_agent.migration.direct_wire import PIECE_BYTES, receive_run

DEADLINE_S = 10.0
SIZES = [
    1,
    *(near for pieces in (1, 2, 4) for near in range(pieces * PIECE_BYTES - 1, pieces * PIECE_BYTES + 2)),
    PIECE_BYTES * 3 // 2,
]
SEED = 7
EARLY_BYTES = PIECE_BYTES // 4
REST_S = 0.05
WARM_UP_BYTES = 32 * 2**20


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Of a TCP connection, the sender's and the receiver's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname(), timeout=DEADLINE_S)
        receiver, _ = server.accept()
    receiver.settimeout(None)
    with sender, receiver, ThreadPoolExecutor(1) as thread:
        # As in a move that is under way: a window that has not grown yet wakes the receiver for any data.
        warmed_up = thread.submit(receive_run, receiver, memoryview(bytearray(WARM_UP_BYTES)), xxh3_64())
        sender.sendall(bytes(WARM_UP_BYTES))
        assert warmed_up.result(DEADLINE_S)
        yield sender, receiver


@pytest.mark.timeout(30)
@pytest.mark.parametrize("size", SIZES)
def test_a_run_is_whole_though_nothing_follows_it(
    ends: tuple[socket.socket, socket.socket], size: int
) -> None:
    sender, receiver = ends
    contents = random.Random(size).randbytes(size)
    view = memoryview(bytearray(size))
    checksum = xxh3_64(seed=SEED)
    with ThreadPoolExecutor(1) as thread:
        sender.sendall(contents[:EARLY_BYTES])
        received = thread.submit(receive_run, receiver, view, checksum)
        time.sleep(REST_S)  # it has taken what came early, and waits
        sender.sendall(contents[EARLY_BYTES:])
        assert received.result(DEADLINE_S)
    assert view == contents
    assert checksum.intdigest() == xxh3_64_intdigest(contents, seed=SEED)
    sender.sendall(b"next")
    assert receiver.recv(16) == b"next", "less than a run wakes the receiver again"


@pytest.mark.timeout(30)
@pytest.mark.parametrize("size", SIZES)
def test_a_run_that_is_cut_off_is_not_whole(ends: tuple[socket.socket, socket.socket], size: int) -> None:
    sender, receiver = ends
    with ThreadPoolExecutor(1) as thread:
        received = thread.submit(receive_run, receiver, memoryview(bytearray(size)), xxh3_64())
        sender.sendall(bytes(size - 1))
        sender.close()
        assert not received.result(DEADLINE_S)
