"""A host's adapters: which NIC passes what, under which era, and what becomes of it when a NIC goes down."""

import asyncio
import statistics
import time
from types import SimpleNamespace
from typing import cast

import pytest

from ferry_agent.metrics import make_registry
from ferry_agent.migration.ports import UnshapedWire
from ferry_agent.network.adapters import Adapters
from ferry_agent.network.guest_way import DATAGRAMS_MAX, GuestWay
from ferry_agent.network.nics import Nics
from ferry_agent.runtime import HostRuntime
from ferry_host.shaping import lane
from ferry_types.eras import RULES, Era
from ferry_types.errors import ErrorCode, FerryError
from ferry_types.links import TrafficClass, goodput_bytes_per_s
from ferry_types.networks import Network, NetworkRole, Nic, Team, TeamMode
from ferry_types.qos import QosPolicy
from ferry_types.units import parse_rate

FAST, SLOW = parse_rate("10Gbit/s"), parse_rate("1Gbit/s")
UNIT_S = 0.002
"""What a frame takes on the wire here: short, so that its size shows the rate of fast links, too."""
LOST_S = 0.5
"""A datagram that takes longer is lost."""


@pytest.fixture(autouse=True)
def _frames_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "UNIT_S", UNIT_S)


def nic(name: str, rate: int, team: str = "") -> Nic:
    return Nic(name, "live", f"10.0.0.{name[-1]}", rate, team=team)


def team(mode: TeamMode, *rates: int) -> Nics:
    nics = [nic(f"nic{number}", rate, "team1") for number, rate in enumerate(rates, start=1)]
    return Nics(nics, [Team("team1", mode)])


def frame_bytes(rate: float) -> int:
    return int(goodput_bytes_per_s(rate, 1500) * UNIT_S)


def test_an_unknown_nic_is_not_found() -> None:
    adapters = Adapters(Nics([nic("nic1", SLOW)]))
    for wire_of in (adapters.sending, adapters.receiving):
        with pytest.raises(FerryError, match="this host has no NIC nic2") as caught:
            wire_of("nic2", 1500)
        assert caught.value.refusal.code is ErrorCode.NOT_FOUND


def test_without_a_name_nothing_is_shaped() -> None:
    adapters = Adapters(Nics([nic("nic1", SLOW)]))
    assert isinstance(adapters.sending("", 1500), UnshapedWire)
    assert isinstance(adapters.receiving("", 1500), UnshapedWire)


async def test_members_of_a_team_share_its_adapter() -> None:
    nics = team(TeamMode.DYNAMIC, SLOW, SLOW)
    wire = Adapters(nics).sending("nic1", 1500)
    assert wire.frame_bytes == pytest.approx(frame_bytes(2 * SLOW), abs=1)
    nics.turn("nic1", up=False)
    assert wire.frame_bytes == frame_bytes(SLOW)
    await wire.pass_bytes(1)


async def test_wires_follow_the_nics_down_and_up() -> None:
    nics = Nics([nic("nic1", SLOW), nic("nic2", SLOW)])
    nics.turn("nic1", up=False)
    adapters = Adapters(nics)
    one, other = adapters.sending("nic1", 1500), adapters.receiving("nic2", 1500)
    with pytest.raises(FerryError, match="NIC nic1 is down"):
        await one.pass_bytes(1)
    await other.pass_bytes(1)
    nics.turn("nic1", up=True)
    nics.turn("nic2", up=False)
    await one.pass_bytes(1)
    with pytest.raises(FerryError, match="NIC nic2 is down"):
        await other.pass_bytes(1)


async def test_a_wire_in_use_obeys_the_era_and_still_fails_with_its_nic() -> None:
    nics = Nics([nic("nic1", FAST)])
    adapters = Adapters(nics)
    wires = adapters.sending("nic1", 1500), adapters.receiving("nic1", 1500)
    adapters.obey(RULES[Era.WS2008R2])
    for wire in wires:
        assert wire.frame_bytes == pytest.approx(frame_bytes(0.7 * FAST), abs=1)
    began_s = time.monotonic()
    await wires[0].pass_bytes(round(0.2 * goodput_bytes_per_s(FAST, 1500)))
    assert time.monotonic() - began_s >= 0.2 / 0.7 - 0.001
    nics.turn("nic1", up=False)
    for wire in wires:
        with pytest.raises(FerryError, match="NIC nic1 is down"):
            await wire.pass_bytes(1)


def test_another_era_lifts_the_limit() -> None:
    adapters = Adapters(Nics([nic("nic1", FAST)]))
    wire = adapters.sending("nic1", 9000)
    before = wire.frame_bytes
    adapters.obey(RULES[Era.WS2008R2])
    assert wire.frame_bytes < before
    adapters.obey(RULES[Era.WS2012])
    assert wire.frame_bytes == before


@pytest.mark.parametrize(("own", "allowed"), [(0.5, 0.5), (0.8, 0.7), (2.0, 0.7)])
def test_of_the_eras_share_and_the_hosts_own_limit_the_smaller_one_holds(own: float, allowed: float) -> None:
    qos = [QosPolicy(TrafficClass.MIGRATION, round(own * FAST))]
    alone = frame_bytes(min(own, 1) * FAST)
    adapters = Adapters(Nics([nic("nic1", FAST)]), qos)
    wire = adapters.sending("nic1", 1500)
    assert wire.frame_bytes == pytest.approx(alone, abs=1)
    adapters.obey(RULES[Era.WS2008R2])
    assert wire.frame_bytes == pytest.approx(frame_bytes(allowed * FAST), abs=1)
    adapters.obey(RULES[Era.WS2012])
    assert wire.frame_bytes == pytest.approx(alone, abs=1)


def test_a_limit_shapes_a_nic_without_a_rate() -> None:
    adapters = Adapters(Nics([nic("nic1", 0)]), [QosPolicy(TrafficClass.MIGRATION, SLOW)])
    assert adapters.receiving("nic1", 1500).frame_bytes == frame_bytes(SLOW)


def test_links_below_10_gbit_are_used_whole_and_a_team_is_one_link() -> None:
    for rates, allowed in (((SLOW,), SLOW), ((FAST // 2, FAST // 2), 0.7 * FAST)):
        adapters = Adapters(team(TeamMode.DYNAMIC, *rates))
        adapters.obey(RULES[Era.WS2008R2])
        assert adapters.sending("nic1", 1500).frame_bytes == pytest.approx(frame_bytes(allowed), abs=1)


async def test_what_passes_is_told_by_nic_once() -> None:
    adapters = Adapters(team(TeamMode.STATIC, 0, 0))
    await adapters.sending("nic1", 1500).pass_bytes(7)
    await adapters.receiving("nic2", 1500).pass_bytes(5)
    told = list(adapters.passed())
    assert sorted(one.nic for one in told) == ["nic1", "nic2"]
    assert sum(one.sent_bytes for one in told) == 7
    assert sum(one.received_bytes for one in told) == 5


async def test_prometheus_is_told_what_passed() -> None:
    adapters = Adapters(Nics([nic("nic1", SLOW)]))
    await adapters.sending("nic1", 1500).pass_bytes(1000)
    host = SimpleNamespace(state=SimpleNamespace(connected=True, session=1))
    runtime = cast(HostRuntime, SimpleNamespace(host=host, rack=SimpleNamespace(all=list)))
    registry = make_registry(runtime, adapters)
    sent, received = ({"nic": "nic1", "direction": each} for each in ("sent", "received"))
    assert registry.get_sample_value("ferry_nic_bytes_total", sent) == 1000
    assert registry.get_sample_value("ferry_nic_bytes_total", received) == 0
    busy_s = registry.get_sample_value("ferry_nic_busy_seconds_total", sent)
    assert busy_s == pytest.approx(1000 / goodput_bytes_per_s(SLOW, 1500))


# --- guests' own datagrams ------------------------------------------------------------------------


def front(name: str, rate: int, latency_s: float = 0.0) -> Nic:
    return Nic(name, "clients", f"10.0.1.{name[-1]}", rate, latency_s)


def known(*nics: Nic) -> Nics:
    of_host = Nics(nics)
    of_host.learn([Network("clients", NetworkRole.CLIENT), Network("live", NetworkRole.MIGRATION)])
    return of_host


async def passes_in_s(way: GuestWay, size_bytes: int = 100) -> float:
    """How long a datagram takes out of the host. Raises TimeoutError: it is lost."""
    passed, began_s = asyncio.Event(), time.monotonic()
    way.leave(size_bytes, passed.set)
    await asyncio.wait_for(passed.wait(), LOST_S)
    return time.monotonic() - began_s


async def test_guests_are_reached_by_a_nic_of_a_network_for_clients_that_is_up() -> None:
    nics = known(nic("nic1", SLOW), front("nic2", SLOW), front("nic3", SLOW))
    adapters = Adapters(nics)
    first = adapters.guest_way()
    assert first is not None
    assert adapters.guest_way() is first
    nics.turn("nic2", up=False)
    other = adapters.guest_way()
    assert other is not None
    assert other is not first
    await passes_in_s(other)
    nics.turn("nic3", up=False)
    last = adapters.guest_way()
    assert last is not None
    with pytest.raises(TimeoutError):
        await passes_in_s(last)


async def test_without_a_nic_for_clients_nothing_holds_guests_up() -> None:
    assert Adapters(known(nic("nic1", SLOW))).guest_way() is None


async def test_a_guest_waits_for_no_more_than_a_piece_of_a_move_on_the_same_nic() -> None:
    adapters = Adapters(known(front("nic1", SLOW // 10)))
    way, wire = adapters.guest_way(), adapters.sending("nic1", 1500)
    assert way is not None
    moving = asyncio.create_task(wire.pass_bytes(SLOW // 10 // 2))  # half a second's
    await asyncio.sleep(0.05)
    waits_s = [await passes_in_s(way) for _ in range(10)]
    assert not moving.done()
    assert statistics.median(waits_s) < 0.02
    await moving


async def test_a_guest_waits_for_its_own_limit() -> None:
    limit = 100_000
    adapters = Adapters(known(front("nic1", SLOW)), [QosPolicy(TrafficClass.CLIENT, limit)])
    way = adapters.guest_way()
    assert way is not None
    await passes_in_s(way)
    took_s = await passes_in_s(way, limit // 5)
    assert took_s >= 0.2 - 0.05, "but for the burst that a lane makes up for"


async def test_what_arrives_is_as_late_as_the_nic_makes_it() -> None:
    way = Adapters(known(front("nic1", SLOW, latency_s=0.05))).guest_way()
    assert way is not None
    arrived, began_s = asyncio.Event(), time.monotonic()
    way.arrive(100, arrived.set)
    await asyncio.wait_for(arrived.wait(), LOST_S)
    assert time.monotonic() - began_s >= 0.05
    assert await passes_in_s(way) < 0.05


async def test_what_a_full_queue_does_not_take_is_lost() -> None:
    way = Adapters(known(front("nic1", 1_000))).guest_way()
    assert way is not None
    arrived: list[int] = []
    for _ in range(2 * DATAGRAMS_MAX):
        way.arrive(1, lambda: arrived.append(1))
    await asyncio.sleep(0.6)
    assert len(arrived) == DATAGRAMS_MAX
