"""The echo port hands well-formed requests to guests, and sends what they answer."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from ferry.v1 import host_pb2
from ferry_agent.echo_port import EchoPort
from ferry_agent.guest.vcpu import EchoReply
from ferry_agent.network.adapters import Adapters
from ferry_agent.network.nics import Nics
from ferry_agent.redirects import Redirect
from ferry_types.errors import ErrorCode, FerryError
from ferry_types.limits import ECHO_DATAGRAM_BYTES_MAX
from ferry_types.networks import Network, NetworkRole, Nic

ANY_PORT = "127.0.0.1:0"
Request = tuple[str, int, Callable[[EchoReply], None]]


@asynccontextmanager
async def asking(port: EchoPort) -> AsyncIterator[socket.socket]:
    """A client's socket, connected to the port."""
    host, _, number = port.address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((host, int(number)))
        yield client


async def answer_to(client: socket.socket) -> host_pb2.EchoReply:
    data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 4096), 5)
    return host_pb2.EchoReply.FromString(data)


def request(vm: str = "vm1", sequence: int = 1) -> bytes:
    return host_pb2.EchoRequest(vm=vm, sequence=sequence).SerializeToString()


def nowhere(_vm: str) -> Redirect | None:
    """No guest has moved away."""
    return None


async def test_a_guest_answers_from_a_thread_of_its_own() -> None:
    def guest(_vm: str, sequence: int, reply: Callable[[EchoReply], None]) -> None:
        threading.Thread(target=reply, args=(EchoReply(sequence, 5, 3, 1234),)).start()

    async with EchoPort.open(ANY_PORT) as port, asking(port) as client:
        port.serve(guest, nowhere)
        client.send(request("vm1", 2**64 - 1))
        assert await answer_to(client) == host_pb2.EchoReply(
            vm="vm1", sequence=2**64 - 1, epoch=5, boot_epoch=3, step=1234
        )


async def test_the_port_says_where_a_guest_went_and_asks_none() -> None:
    asked: list[str] = []
    away = {"vm1": Redirect("10.0.0.2:7002", 6)}
    async with EchoPort.open(ANY_PORT) as port, asking(port) as client:
        port.serve(lambda vm, _sequence, _reply: asked.append(vm), away.get)
        client.send(request("vm2", 1))
        client.send(request("vm1", 2))
        expected = host_pb2.EchoReply(vm="vm1", sequence=2, epoch=6, moved_to="10.0.0.2:7002")
        assert await answer_to(client) == expected
    assert asked == ["vm2"]


async def test_what_is_no_request_is_dropped_and_the_next_one_answered() -> None:
    taken: list[str] = []
    well_formed = asyncio.Event()

    def note(vm: str, _sequence: int, _reply: Callable[[EchoReply], None]) -> None:
        taken.append(vm)
        if vm == "good":
            well_formed.set()

    oversized = request() + b"\x1a" + bytes([127]) + b"x" * 127
    oversized += (b"\x1a" + bytes([127]) + b"x" * 127) * 4  # an unknown field, well formed, but too long
    assert len(oversized) > ECHO_DATAGRAM_BYTES_MAX
    async with EchoPort.open(ANY_PORT) as port, asking(port) as client:
        port.serve(note, nowhere)
        for bad in (
            b"",
            b"\xff" * 40,
            oversized,
            b"x" * 60_000,
            request(""),
            request("a/b"),
            request("a" * 65),
        ):
            client.send(bad)
        client.send(request("good"))
        await asyncio.wait_for(well_formed.wait(), 5)
    assert taken == ["good"]


async def test_requests_before_serve_are_dropped() -> None:
    taken: list[int] = []
    async with EchoPort.open(ANY_PORT) as port:
        port.datagram_received(request(sequence=1), ("127.0.0.1", 9))
        port.serve(lambda _vm, sequence, _reply: taken.append(sequence), nowhere)
        port.datagram_received(request(sequence=2), ("127.0.0.1", 9))
    assert taken == [2]


async def test_a_port_in_use_is_named() -> None:
    async with EchoPort.open(ANY_PORT) as port:
        with pytest.raises(FerryError) as raised:
            async with EchoPort.open(port.address):
                pass
    assert raised.value.refusal.code is ErrorCode.FAILED
    assert (
        f"port {port.address.rpartition(':')[2]} on 127.0.0.1 is in use (UDP)" in raised.value.refusal.message
    )


async def test_a_closed_port_is_free_again() -> None:
    async with EchoPort.open(ANY_PORT) as port:
        address = port.address
    async with EchoPort.open(address) as port:
        assert port.address == address


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(FerryError, match="not an address of this machine"):
        async with EchoPort.open("192.0.2.1:0"):
            pass


async def test_requests_and_answers_pass_the_nic_for_clients_in_both_directions() -> None:
    nics = Nics([Nic("nic1", "clients", "10.0.0.1", rate_bytes_per_s=125_000_000)])
    nics.learn([Network("clients", NetworkRole.CLIENT)])
    adapters = Adapters(nics)
    away = {"vm2": Redirect("10.0.0.2:7002", 6)}

    def guest(_vm: str, sequence: int, reply: Callable[[EchoReply], None]) -> None:
        threading.Thread(target=reply, args=(EchoReply(sequence, 5, 3, 1234),)).start()

    async with EchoPort.open(ANY_PORT) as port, asking(port) as client:
        port.serve(guest, away.get, adapters.guest_way)
        client.send(request("vm1", 1))
        one = await answer_to(client)
        client.send(request("vm2", 2))
        other = await answer_to(client)
        assert (one.step, other.moved_to) == (1234, "10.0.0.2:7002")
        (told,) = adapters.passed()
        assert told.received_bytes == len(request("vm1", 1)) + len(request("vm2", 2))
        assert told.sent_bytes == len(one.SerializeToString()) + len(other.SerializeToString())
        nics.turn("nic1", up=False)
        port.datagram_received(request("vm1", 3), client.getsockname())
        await asyncio.sleep(0.05)
        nics.turn("nic1", up=True)
        client.send(request("vm1", 4))
        assert (await answer_to(client)).sequence == 4, "the cable was out for 3"
