"""NICs of a host: up and down, who is told, when it is cut off; a NIC that is down answers nobody."""

import asyncio
import socket
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from tests.unit.wire.test_servers import ScriptedHost

from ferry.v1 import host_pb2, host_pb2_grpc
from ferry_agent.failpoints import Failpoints
from ferry_agent.network.listeners import NicListeners, nic_address
from ferry_agent.network.nics import TAKEN_DOWN, Nics
from ferry_agent.outgoing import OutgoingMoves
from ferry_agent.rack import Rack
from ferry_host import inputs
from ferry_types.errors import FerryError
from ferry_types.messages import BeginOutgoing, Route
from ferry_types.migrations import MigrationOptions
from ferry_types.networks import Network, NetworkRole, Nic, NicFault
from ferry_wire.channels import open_channel
from ferry_wire.servers import BoundServer, create_server

LIVE = Nic("live", "migration", "127.77.0.1")
FRONT = Nic("front", "clients", "127.77.0.2")
SAN = Nic("san", "storage", "127.77.0.3")
NETWORKS = (
    Network("migration", NetworkRole.MIGRATION),
    Network("clients", NetworkRole.CLIENT),
    Network("storage", NetworkRole.STORAGE),
)


def test_a_nic_goes_down_and_up_and_listeners_hear_of_each_change_once() -> None:
    nics = Nics((LIVE, FRONT))
    heard: list[tuple[str, bool]] = []
    nics.on_change(lambda nic, up: heard.append((nic.name, up)))
    assert nics.is_up("live")
    assert nics.turn("live", up=False)
    assert not nics.turn("live", up=False)
    assert not nics.is_up("live")
    assert list(nics.faults) == [NicFault("live", TAKEN_DOWN)]
    assert nics.reason("live") == TAKEN_DOWN
    assert nics.turn("live", up=True)
    assert not nics.faults
    assert heard == [("live", False), ("live", True)]
    with pytest.raises(FerryError, match="this host has no NIC beat"):
        nics.is_up("beat")


def cut_off(nics: Nics) -> bool:
    return nics.is_cut_off


def test_a_host_is_cut_off_once_all_that_may_carry_the_clusters_traffic_is_down() -> None:
    nics = Nics((LIVE, FRONT, SAN))
    nics.turn("live", up=False)
    nics.turn("front", up=False)
    assert not cut_off(nics), "nobody has said yet that storage carries none"
    nics.learn(NETWORKS)
    assert cut_off(nics)
    nics.turn("front", up=True)
    assert not cut_off(nics)
    assert not cut_off(Nics(()))
    storage_only = Nics((SAN,))
    storage_only.learn(NETWORKS)
    storage_only.turn("san", up=False)
    assert not cut_off(storage_only)


@pytest.fixture
async def listeners() -> AsyncIterator[tuple[Nics, NicListeners, str]]:
    own = create_server("127.0.0.1:0", (host_pb2.DESCRIPTOR,))
    nics = Nics((LIVE, FRONT))

    def offer(server: BoundServer) -> None:
        host_pb2_grpc.add_HostServicer_to_server(ScriptedHost(), server.grpc)

    opened = NicListeners(nics, own.address, (host_pb2.DESCRIPTOR,), offer)
    await opened.open()
    yield nics, opened, own.address
    await opened.close()
    await own.stop(grace_s=0)


async def test_each_nic_answers_at_its_address_until_it_is_down_and_again_once_it_is_up(
    listeners: tuple[Nics, NicListeners, str],
) -> None:
    nics, opened, own = listeners
    live, front = nic_address(LIVE, own), nic_address(FRONT, own)
    assert live.startswith("127.77.0.1:")
    assert live.rpartition(":")[2] == front.rpartition(":")[2]
    async with open_channel(live) as channel, asyncio.timeout(20):
        call = host_pb2_grpc.HostStub(channel).RoundTrip()
        await call.write(host_pb2.Probe(sequence=1))
        assert await call.read() == host_pb2.Probe(sequence=1)
        await opened.turn("live", up=False)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE, "what passed the NIC is cut"
    assert not nics.is_up("live")
    assert not _is_listened_on(live)
    assert _is_listened_on(front)
    await opened.turn("live", up=True)
    assert nics.is_up("live")
    assert _is_listened_on(live)


async def test_a_nic_whose_address_somebody_took_meanwhile_stays_down(
    listeners: tuple[Nics, NicListeners, str],
) -> None:
    nics, opened, own = listeners
    host, _, port = nic_address(LIVE, own).rpartition(":")
    await opened.turn("live", up=False)
    with socket.socket() as thief:
        thief.bind((host, int(port)))
        thief.listen()
        with pytest.raises(FerryError, match="is in use"):
            await opened.turn("live", up=True)
    assert not nics.is_up("live")
    with pytest.raises(FerryError, match="no NIC beat"):
        await opened.turn("beat", up=False)


async def test_an_address_that_is_not_to_be_had_is_told_at_the_start() -> None:
    opened = NicListeners(Nics((Nic("x", "n", "203.0.113.7"),)), "127.0.0.1:7000", (), lambda _server: None)
    with pytest.raises(FerryError, match=r"203\.0\.113\.7 is not an address of this machine"):
        await opened.open()


def _is_listened_on(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_move_is_over_once_no_nic_is_left_that_it_sends_by() -> None:
    said: list[inputs.Event] = []
    moves = OutgoingMoves(cast("Rack", None), Failpoints(enabled=False), said.append)
    routes = tuple(Route(name, "x", "127.0.0.1:1") for name in ("live", "front"))
    for id_, ways in (("m1", routes), ("m2", ()), ("m3", routes[:1])):
        order = BeginOutgoing(id_, "t", "a", 1, "h2", "127.0.0.1:1", MigrationOptions(), ways)
        moves._attempts[id_] = cast("Any", SimpleNamespace(order=order))
    down: set[str] = set()
    moves.follow_nics(lambda name: name not in down)
    assert said == []
    down.add("live")
    moves.follow_nics(lambda name: name not in down)
    (ended,) = said
    assert isinstance(ended, inputs.OutgoingFailed)
    assert (ended.migration_id, ended.reason.message) == ("m3", "NIC live, by which it sends, went down")
    down.add("front")
    moves.follow_nics(lambda name: name not in down)
    assert {event.migration_id for event in said if isinstance(event, inputs.OutgoingFailed)} == {"m1", "m3"}
