"""Streams over loopback TCP between two shaped NICs get the link's goodput: within 2 % over 5 s."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest
from tests.unit.network.traffic import member

from ferry_agent.network.adapter import Adapter
from ferry_agent.network.wire import Wire
from ferry_host.shaping.policies import ClassPolicy
from ferry_types.links import TrafficClass, goodput_bytes_per_s
from ferry_types.networks import TeamMode

RUN_S = 5.0
STREAMS_MAX = 8
FRAME_BYTES = 2 * 2**20
MTU = 9000
CLASS = TrafficClass.MIGRATION
GBIT = 125e6

Send = Callable[[socket.socket, Wire, float], Awaitable[None]]


async def send_on_the_loop(connection: socket.socket, wire: Wire, until_s: float) -> None:
    size_bytes = min(wire.frame_bytes, FRAME_BYTES)
    loop, frame = asyncio.get_running_loop(), memoryview(bytes(size_bytes))
    while time.monotonic() < until_s:
        await wire.pass_bytes(size_bytes)
        await loop.sock_sendall(connection, frame)
    connection.shutdown(socket.SHUT_WR)


async def send_in_a_thread(connection: socket.socket, wire: Wire, until_s: float) -> None:
    size_bytes = min(wire.frame_bytes, FRAME_BYTES)

    def send() -> None:
        frame = bytes(size_bytes)
        while time.monotonic() < until_s:
            wire.pass_bytes_blocking(size_bytes)
            connection.sendall(frame)
        connection.shutdown(socket.SHUT_WR)

    connection.setblocking(True)
    await asyncio.to_thread(send)


def receive(connection: socket.socket, wire: Wire) -> int:
    frame, total_bytes = memoryview(bytearray(FRAME_BYTES)), 0
    part_bytes = min(wire.frame_bytes, FRAME_BYTES)
    while size_bytes := connection.recv_into(frame, part_bytes, socket.MSG_WAITALL):
        wire.pass_bytes_blocking(size_bytes)
        total_bytes += size_bytes
    return total_bytes


@asynccontextmanager
async def connections(count: int) -> AsyncIterator[list[tuple[socket.socket, socket.socket]]]:
    """Pairs of ends, the first of each for the event loop."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        pairs = []
        for _ in range(count):
            out = socket.create_connection(server.getsockname())
            into, _ = server.accept()
            out.setblocking(False)
            pairs.append((out, into))
    yield pairs
    for out, into in pairs:
        out.close()
        into.close()


async def rate_bytes_per_s(
    source: Adapter, target: Adapter, streams: int, send: Send, run_s: float = RUN_S
) -> float:
    """Payload that the target has taken up, over the time that it took."""
    rates = await rates_by_stream(source, target, [CLASS] * streams, send, run_s)
    return sum(rates)


async def rates_by_stream(
    source: Adapter, target: Adapter, classes: list[TrafficClass], send: Send, run_s: float = RUN_S
) -> list[float]:
    """The same of each of several streams at once, each of a class."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(2 * STREAMS_MAX))
    async with connections(len(classes)) as pairs:
        began_s = time.monotonic()
        sending, receiving = [], []
        for number, ((out, into), kind) in enumerate(zip(pairs, classes, strict=True)):
            name = f"stream {number}"
            sending.append(send(out, source.sending(name, kind), began_s + run_s))
            receiving.append(asyncio.to_thread(receive, into, target.receiving(name, kind)))
        _, received = await asyncio.gather(asyncio.gather(*sending), asyncio.gather(*receiving))
        took_s = time.monotonic() - began_s
        return [size_bytes / took_s for size_bytes in received]


def nic(rate: float) -> Adapter:
    return Adapter("nic1", [member("nic1", rate, mtu=MTU)], {})


@pytest.fixture(scope="module")
def unshaped_bytes_per_s() -> float:
    """The slower way of sending, unshaped, one stream."""
    ways = (send_on_the_loop, send_in_a_thread)
    return min(asyncio.run(rate_bytes_per_s(nic(0), nic(0), 1, send, 1.0)) for send in ways)


@pytest.mark.parametrize("send", [send_on_the_loop, send_in_a_thread])
@pytest.mark.parametrize("streams", [1, STREAMS_MAX])
@pytest.mark.parametrize("part", [1 / 32, 1 / 8, 1 / 4, 1 / 2])
async def test_streams_get_the_rate_up_to_half_of_what_passes_unshaped(
    send: Send, streams: int, part: float, unshaped_bytes_per_s: float
) -> None:
    rate = part * unshaped_bytes_per_s
    measured = await rate_bytes_per_s(nic(rate), nic(rate), streams, send)
    ratio = measured / goodput_bytes_per_s(rate, MTU)
    print(f"{send.__name__} {streams} streams: {rate / 1e6:.0f} MB/s, {ratio:.4f} of the goodput")  # noqa: T201
    assert ratio == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("source", "target"), [(GBIT, 0), (0, GBIT), (GBIT, 2 * GBIT), (2 * GBIT, GBIT)])
async def test_the_slower_end_sets_the_pace(source: float, target: float) -> None:
    measured = await rate_bytes_per_s(nic(source), nic(target), 1, send_on_the_loop)
    assert measured == pytest.approx(goodput_bytes_per_s(GBIT, MTU), rel=0.02)


@pytest.mark.parametrize(("mode", "nics"), [(TeamMode.STATIC, 1), (TeamMode.DYNAMIC, 2)])
async def test_one_stream_over_a_team_of_two(mode: TeamMode, nics: int) -> None:
    members = tuple(member(name, GBIT, mtu=MTU) for name in ("nic1", "nic2"))
    source, target = (Adapter("team1", members, {}, mode) for _ in range(2))
    measured = await rate_bytes_per_s(source, target, 1, send_on_the_loop)
    assert measured == pytest.approx(nics * goodput_bytes_per_s(GBIT, MTU), rel=0.02)


@pytest.mark.parametrize("send", [send_on_the_loop, send_in_a_thread])
@pytest.mark.parametrize(("streams", "weights"), [((1, 1), (70, 30)), ((1, 4), (50, 50)), ((4, 1), (25, 75))])
async def test_two_classes_at_once_share_by_weight(
    send: Send, streams: tuple[int, int], weights: tuple[int, int]
) -> None:
    classes = (TrafficClass.MIGRATION, TrafficClass.CLIENT)
    policies = {kind: ClassPolicy(weight=weight) for kind, weight in zip(classes, weights, strict=True)}
    source, target = (Adapter("nic1", [member("nic1", GBIT, mtu=MTU)], policies) for _ in range(2))
    of = [kind for kind, count in zip(classes, streams, strict=True) for _ in range(count)]
    rates = await rates_by_stream(source, target, of, send)
    whole = goodput_bytes_per_s(GBIT, MTU)
    assert sum(rates) == pytest.approx(whole, rel=0.02)
    for kind, weight in zip(classes, weights, strict=True):
        share = sum(rate for rate, its in zip(rates, of, strict=True) if its is kind) / whole
        print(f"{send.__name__} {kind}: {share:.4f} for a weight of {weight}")  # noqa: T201
        assert share == pytest.approx(weight / 100, rel=0.02)


async def test_a_limited_class_leaves_the_rest_to_the_other() -> None:
    classes = [TrafficClass.MIGRATION, TrafficClass.CLIENT]
    policies = {TrafficClass.MIGRATION: ClassPolicy(limit_bytes_per_s=0.4 * GBIT, weight=90)}
    source, target = (Adapter("nic1", [member("nic1", GBIT, mtu=MTU)], policies) for _ in range(2))
    limited, other = await rates_by_stream(source, target, classes, send_on_the_loop)
    whole = goodput_bytes_per_s(GBIT, MTU)
    assert limited == pytest.approx(0.4 * whole, rel=0.02)
    assert other == pytest.approx(0.6 * whole, rel=0.02)
