"""What the `socket` peer's target takes and refuses."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ferry_cli.bench import socket_peer
from ferry_cli.bench.memory import map_pages
from ferry_types.limits import FRAME_PAGES_MAX

PAGE_COUNT = FRAME_PAGES_MAX + 44


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    source, target = socket.socketpair()
    with source, target:
        source.settimeout(10)
        target.settimeout(10)
        yield source, target


def test_every_page_arrives(ends: tuple[socket.socket, socket.socket]) -> None:
    source, target = ends
    sent, received = map_pages(PAGE_COUNT * 4096), map_pages(PAGE_COUNT * 4096)
    sent[:] = np.random.default_rng(1).integers(0, 256, sent.shape, dtype=np.uint8)
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(socket_peer.send_pages, source, sent, PAGE_COUNT)
        announced = target.recv(socket_peer.TRANSFER.size, socket.MSG_WAITALL)
        assert socket_peer.TRANSFER.unpack(announced) == (PAGE_COUNT,)
        socket_peer.receive_pages(target, received, PAGE_COUNT)
        sending.result(10)
    assert np.array_equal(sent, received)


def test_several_connections_share_the_frames() -> None:
    sent, received = map_pages(PAGE_COUNT * 4096), map_pages(PAGE_COUNT * 4096)
    sent[:] = np.random.default_rng(2).integers(0, 256, sent.shape, dtype=np.uint8)
    shares = []
    for number in range(2):
        source, target = socket.socketpair()
        with source, target, ThreadPoolExecutor(1) as pool:
            sending = pool.submit(socket_peer.send_pages, source, sent, PAGE_COUNT, number, 2)
            (share,) = socket_peer.TRANSFER.unpack(target.recv(socket_peer.TRANSFER.size, socket.MSG_WAITALL))
            socket_peer.receive_pages(target, received, share)
            sending.result(10)
            shares.append(share)
    assert shares == [FRAME_PAGES_MAX, 44]
    assert np.array_equal(sent, received)


@pytest.mark.parametrize(
    ("first", "count", "checksum", "reason"),
    [
        (PAGE_COUNT, 1, 0, "out of bounds"),
        (PAGE_COUNT - 1, 2, 0, "out of bounds"),
        (0, 0, 0, "out of bounds"),
        (0, FRAME_PAGES_MAX + 1, 0, "out of bounds"),
        (0, 1, 0, "checksum"),
    ],
)
def test_a_frame_that_breaks_a_rule_is_refused(
    ends: tuple[socket.socket, socket.socket], first: int, count: int, checksum: int, reason: str
) -> None:
    source, target = ends
    source.sendall(socket_peer.FRAME.pack(first, count, checksum) + bytes(4096))
    with pytest.raises(ValueError, match=reason):
        socket_peer.receive_pages(target, map_pages(PAGE_COUNT * 4096), PAGE_COUNT)


def test_a_cut_stream_is_noticed(ends: tuple[socket.socket, socket.socket]) -> None:
    source, target = ends
    source.sendall(socket_peer.FRAME.pack(0, 1, 0) + bytes(100))
    source.close()
    with pytest.raises(EOFError):
        socket_peer.receive_pages(target, map_pages(PAGE_COUNT * 4096), PAGE_COUNT)
