"""Which network live migration and others take, what happens while a NIC is down, and who may join."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.cluster.core_bench import LOST_AFTER_S, MIB, ObedientBench, orders

from ferry_cluster import networks, roles
from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import CloseStream, Command, Commit, Send
from ferry_cluster.inputs import CancelMove, DrainNode, MigrateVm
from ferry_cluster.records import MigrationRecord
from ferry_types.drains import Stuck
from ferry_types.errors import Refusal
from ferry_types.links import TrafficClass
from ferry_types.messages import BeginOutgoing, IncomingPrepared, NicsChanged, Route, Welcome
from ferry_types.migrations import MigrationOptions, MigrationState
from ferry_types.networks import (
    Network,
    NetworkRole,
    NetworkState,
    Nic,
    NicFault,
    NicState,
    Team,
    TeamMode,
)
from ferry_types.units import parse_rate
from ferry_types.vms import Capacity

CLIENTS = Network("clients", NetworkRole.CLIENT)
BEAT = Network("beat", NetworkRole.CLUSTER)
LIVE = Network("live", NetworkRole.MIGRATION)
CSV = Network("csv", NetworkRole.CSV)
SAN = Network("san", NetworkRole.STORAGE, 1)


def nic(host: int, network: Network, index: int = 0, **changes: Any) -> Nic:
    address = f"10.{sum(map(ord, network.name)) % 250}.{host}.{index + 1}"
    name = network.name if index == 0 else f"{network.name}{index}"
    return replace(Nic(name, network.name, address), **changes)


class Wired(ObedientBench):
    """A cluster with networks; hosts have a NIC of each, unless a test says otherwise."""

    def __init__(self, *known: Network, hosts: int = 2) -> None:
        self.begun: list[BeginOutgoing] = []
        self.logged: list[tuple[int, str]] = []
        self.closed: dict[int, Refusal] = {}
        super().__init__(0)
        self.settings = replace(self.settings, networks=known)
        self.cluster = Cluster(self.settings, 1, [], self.now)
        for number in range(1, hosts + 1):
            self.wire(number, *(nic(number, network) for network in known))

    def wire(self, number: int, *nics: Nic, **changes: Any) -> list[Command]:
        teams, qos = changes.pop("teams", ()), changes.pop("qos", ())
        capacity = Capacity(256 * MIB, 2, 2, nics=nics, teams=teams, qos=qos)
        return self.join(number, capacity=capacity, address=f"10.0.0.{number}:7000", **changes)

    def handle(self, event: Any) -> list[Command]:
        commands = super().handle(event)
        for command in commands:
            if isinstance(command, Send) and isinstance(command.order.body, BeginOutgoing):
                self.begun.append(command.order.body)
            elif isinstance(command, Commit):
                self.logged += [(row.kind.event_id, row.message) for row in command.events]
            elif isinstance(command, CloseStream):
                self.closed[command.stream] = command.reason
        return commands

    def turn(self, number: int, *down: str) -> None:
        """These NICs of a host are down now, and no others."""
        self.report(f"h{number}", NicsChanged(tuple(NicFault(name, "pulled") for name in down)))

    def move(self, to: str, vm: str = "a") -> Any:
        return self.ask(MigrateVm(9, vm, to, MigrationOptions(), False, "token", 1))

    def last_route(self) -> Route:
        """The first route of the last move."""
        return self.begun[-1].routes[0]

    def order_of(self, traffic: TrafficClass) -> list[str]:
        return [each.name for each in networks.choice(self.settings, self.cluster.state, traffic)]


# --- metrics ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "nics", "expected"),
    [
        (BEAT, [{}], 40_000),
        (CLIENTS, [{}], 80_000),
        (BEAT, [{"rate_bytes_per_s": parse_rate("1Gbit/s")}], 39_984),
        (BEAT, [{"rate_bytes_per_s": parse_rate("10Gbit/s"), "rdma": True}], 20_640),
        (BEAT, [{"rdma": True}, {}], 40_000),
        (BEAT, [{"rate_bytes_per_s": parse_rate("10Gbit/s")}, {"rate_bytes_per_s": 10**6}], 40_000),
        (replace(BEAT, metric=7), [{"rdma": True}], 7),
        (replace(SAN, metric=0), [{"rdma": True}], 120_000),
        (BEAT, [], 40_000),
    ],
)
def test_a_metric_is_what_an_admin_says_or_follows_from_role_and_nics(
    network: Network, nics: list[dict[str, Any]], expected: int
) -> None:
    assert networks.metric(network, [nic(1, network, i, **each) for i, each in enumerate(nics)]) == expected


def test_csv_takes_the_lowest_metric_and_live_migration_the_second_lowest() -> None:
    known = [replace(CLIENTS, name=name, metric=metric) for name, metric in (("c", 3), ("a", 1), ("b", 2))]
    bench = Wired(*known, SAN)
    assert bench.order_of(TrafficClass.CSV) == ["a", "b", "c"]
    assert bench.order_of(TrafficClass.CLUSTER) == ["a", "b", "c"]
    assert bench.order_of(TrafficClass.MIGRATION) == ["b", "c", "a"]


def test_a_network_of_its_own_role_comes_first_and_storage_never() -> None:
    bench = Wired(CLIENTS, BEAT, LIVE, CSV, SAN)
    assert bench.order_of(TrafficClass.MIGRATION) == ["live", "beat", "clients", "csv"]
    assert bench.order_of(TrafficClass.CSV) == ["csv", "beat", "live", "clients"]
    assert bench.order_of(TrafficClass.CLUSTER) == ["beat", "csv", "live", "clients"]
    assert Wired(LIVE).order_of(TrafficClass.MIGRATION) == ["live"]
    assert Wired(SAN).order_of(TrafficClass.MIGRATION) == []


def test_a_metric_follows_the_nics_of_hosts_that_join() -> None:
    bench = Wired(BEAT, hosts=0)
    bench.wire(1, nic(1, BEAT, rdma=True))
    assert bench.cluster.network_view("beat").metric == 20_800
    bench.wire(2, nic(2, BEAT))
    assert bench.cluster.network_view("beat").metric == 40_000


def test_hosts_are_told_the_networks() -> None:
    bench = Wired(LIVE, hosts=0)
    (welcome,) = [body for body in orders(bench.wire(1), 1) if isinstance(body, Welcome)]
    assert welcome.networks == (LIVE,)


# --- routes -------------------------------------------------------------------------------------


def test_a_move_takes_the_best_network_and_the_next_while_that_is_cut() -> None:
    bench = Wired(CLIENTS, LIVE)
    assert bench.create("a", "h1") == "a"
    bench.move("h2")
    assert bench.last_route() == Route("live", "live", f"{nic(2, LIVE).address}:7000")
    assert bench.place_of("a") == "h2"
    bench.turn(2, "live")  # the source's
    bench.move("h1")
    assert bench.last_route() == Route("clients", "clients", f"{nic(1, CLIENTS).address}:7000")
    bench.turn(2)
    bench.turn(1, "live")  # the source's, the other way round
    bench.move("h2")
    assert bench.last_route().source_nic == "clients"
    bench.turn(1)
    bench.move("h1")
    assert bench.last_route().source_nic == "live"
    moves = bench.cluster.migration_views()
    assert [view.record.network for view in moves] == ["live", "clients", "clients", "live"]


def test_every_nic_of_the_best_network_is_a_route_the_best_first_and_none_of_another() -> None:
    bench = Wired(CLIENTS, LIVE, hosts=0)
    fast = parse_rate("10Gbit/s")
    slow, quick = nic(1, LIVE, 1, rate_bytes_per_s=10**8), nic(1, LIVE, 2, rate_bytes_per_s=fast)
    rdma = nic(1, LIVE, 3, rate_bytes_per_s=fast, rdma=True)
    bench.wire(1, nic(1, CLIENTS), slow, quick, rdma)
    bench.wire(2, nic(2, CLIENTS), nic(2, LIVE), nic(2, LIVE, 1, mtu=9000))
    bench.create("a", "h1")
    bench.move("h2")
    assert [(route.source_nic, route.target_nic) for route in bench.begun[-1].routes] == [
        ("live3", "live1"),
        ("live2", "live"),
        ("live1", "live1"),
    ]


def test_ipv6_addresses_are_bracketed() -> None:
    bench = Wired(LIVE, hosts=0)
    bench.wire(1, nic(1, LIVE, address="fd00::1"))
    bench.wire(2, nic(2, LIVE, address="fd00::2"))
    bench.create("a", "h1")
    bench.move("h2")
    assert bench.last_route().address == "[fd00::2]:7000"


def test_a_host_without_nics_is_reached_at_its_own_address() -> None:
    bench = Wired(LIVE)
    bench.wire(3)
    bench.create("a", "h1")
    bench.turn(1, "live")
    bench.move("h3")
    assert bench.begun[-1].routes == ()
    assert bench.begun[-1].target_address == "10.0.0.3:7000"


# --- no way -------------------------------------------------------------------------------------


def test_a_move_without_a_way_is_refused_and_the_best_host_is_one_that_can_be_reached() -> None:
    bench = Wired(LIVE, CLIENTS, hosts=3)
    bench.create("a", "h1")
    bench.turn(2, "live", "clients")
    answer = bench.move("h2")
    assert answer.rule == "network path"
    assert "down are live of h2, clients of h2" in answer.message
    assert "ferry nic up h2 live" in answer.hint
    assert isinstance(bench.move("best"), MigrationRecord)
    assert bench.place_of("a") == "h3"


def test_hosts_that_share_no_network_but_storage_have_no_way() -> None:
    bench = Wired(LIVE, CLIENTS, SAN, hosts=0)
    bench.wire(1, nic(1, LIVE), nic(1, SAN))
    bench.wire(2, nic(2, CLIENTS), nic(2, SAN))
    bench.create("a", "h1")
    answer = bench.move("h2")
    assert answer.rule == "network path"
    assert "have NICs of no network in common" in answer.message


def test_a_queued_move_waits_for_its_network_and_stands_in_nobodys_way() -> None:
    bench = Wired(LIVE, hosts=3)
    bench.slow = True
    for vm in ("a", "b", "c", "d"):
        bench.create(vm, "h1")
    for vm in ("a", "b"):  # both slots of h1
        bench.move("h3", vm)
    waiting, later = bench.move("h2", "c"), bench.move("h3", "d")
    bench.turn(2, "live")
    assert (
        "waits for a network: no network leads from h1 to h2"
        in bench.cluster.migration_view(waiting.id).record.reason
    )
    bench.slow = False
    bench.ask(CancelMove(5, "m1"))
    assert bench.place_of("d") == "h3"
    assert bench.cluster.state.migrations[later.id].state is MigrationState.COMPLETED
    bench.ask(CancelMove(5, "m2"))
    assert bench.cluster.state.migrations[waiting.id].state is MigrationState.QUEUED
    bench.turn(2)
    assert bench.place_of("c") == "h2"


def test_a_drain_looks_for_another_host_when_a_network_is_cut() -> None:
    bench = Wired(LIVE, hosts=3)
    bench.slow = True
    for vm in ("a", "b", "c"):
        bench.create(vm, "h1")
    bench.ask(DrainNode(4, "h1", "", None, Stuck.STAY))
    queued = [m for m in bench.cluster.state.active_migrations() if m.state is MigrationState.QUEUED]
    assert len(queued) == 1
    bench.turn(int(queued[0].target[1]), "live")
    bench.slow = False
    bench.wait(0.5)
    moved = [m for m in bench.cluster.state.migrations.values() if m.vm == queued[0].vm]
    assert [m.state for m in moved if m.target == queued[0].target] == [MigrationState.FAILED]
    assert {m.target for m in moved} == {"h2", "h3"}


def test_a_move_whose_way_is_cut_before_it_begins_fails_and_its_vm_stays() -> None:
    bench = Wired(LIVE)
    bench.create("a", "h1")
    bench.silent = {2}  # does not prepare yet
    move = bench.move("h2")
    bench.turn(1, "live")
    bench.silent = set()
    bench.report("h2", IncomingPrepared(move.id))
    ended = bench.cluster.state.migrations[move.id]
    assert ended.state is MigrationState.FAILED
    assert "no network leads from h1 to h2" in ended.reason
    assert bench.begun == []
    assert bench.place_of("a") == "h1"


def test_a_path_without_jumbo_frames_at_one_end_is_taken_with_a_warning() -> None:
    bench = Wired(LIVE, hosts=0)
    bench.wire(1, nic(1, LIVE, mtu=9000))
    bench.wire(2, nic(2, LIVE))
    bench.create("a", "h1")
    bench.move("h2")
    assert bench.place_of("a") == "h2"
    (warning,) = [text for _, text in bench.logged if "frames do not agree" in text]
    assert "live of h1 has an MTU of 9000, live of h2 of 1500; between them it is 1500" in warning
    (view,) = bench.cluster.network_views()
    assert view.mtu == 0
    assert "frames do not agree" in view.reason


def test_frames_that_do_not_agree_are_told_of_once_for_each_network_of_a_move() -> None:
    bench = Wired(CLIENTS, LIVE, hosts=0)
    big, small = {"mtu": 9000}, {"mtu": 1500}
    bench.wire(1, nic(1, CLIENTS, **big), nic(1, LIVE, **big))
    bench.wire(2, nic(2, CLIENTS, **small), nic(2, LIVE, **small))
    bench.create("a", "h1")
    bench.slow = True  # the move copies on

    def told() -> list[str]:
        return [text.split(" on network ")[1].split(":")[0] for _, text in bench.logged if "agree" in text]

    def join_again(session: int) -> None:
        bench.wire(1, nic(1, CLIENTS, **big), nic(1, LIVE, **big), session=session)

    bench.move("h2")
    assert told() == ["live"]
    join_again(2)
    assert len(bench.begun) == 2, "the order is repeated"
    assert told() == ["live"]
    bench.turn(2, "live")
    join_again(3)
    assert bench.last_route().source_nic == "clients"
    assert told() == ["live", "clients"]


# --- NICs that come and go ----------------------------------------------------------------------


def test_what_becomes_of_nics_and_networks_is_logged_once() -> None:
    bench = Wired(LIVE)
    bench.logged.clear()
    bench.turn(1, "live", "nobody has this one")
    bench.turn(1, "live")
    assert bench.logged == [(1127, "NIC live of node h1 on network live is down: pulled")]
    bench.turn(2, "live")
    assert bench.logged[-1] == (1130, "network live is down: no NIC of it is up on any node that is up")
    bench.turn(1)
    assert [text for _, text in bench.logged[-2:]] == [
        "NIC live of node h1 on network live is up",
        "network live is up again",
    ]
    assert len(bench.logged) == 5


def test_networks_are_shown_with_their_nics() -> None:
    bench = Wired(CLIENTS, LIVE)
    live, clients = bench.cluster.network_views()
    assert [live.name, clients.name] == ["live", "clients"]
    assert (live.state, live.metric, live.auto_metric, live.mtu) == (NetworkState.UP, 40_000, True, 1500)
    assert live.carries == (TrafficClass.CLUSTER, TrafficClass.CSV, TrafficClass.MIGRATION)
    bench.turn(1, "live")
    live = bench.cluster.network_view("live")
    assert live.state is NetworkState.PARTITIONED
    assert [(view.node, view.state, view.reason) for view in live.nics] == [
        ("h1", NicState.DOWN, "pulled"),
        ("h2", NicState.UP, ""),
    ]
    bench.turn(2, "live")
    assert bench.cluster.network_view("live").state is NetworkState.DOWN
    bench.silent = {1, 2}
    bench.wait(LOST_AFTER_S + 1)
    assert bench.cluster.network_view("live").state is NetworkState.UNAVAILABLE


def test_a_node_that_joins_says_which_nics_are_down() -> None:
    bench = Wired(LIVE)
    bench.wire(1, nic(1, LIVE), nics_down=(NicFault("live", "pulled"),), stream=7)
    assert bench.cluster.network_view("live").nics[0].state is NicState.DOWN
    assert (1127, "NIC live of node h1 on network live is down: pulled") in bench.logged
    bench.wire(1, nic(1, LIVE), life="second", session=1, stream=8)  # waits: the first may still run
    bench.silent = {7}
    bench.wait(LOST_AFTER_S + 1)
    assert bench.cluster.network_view("live").nics[0].state is NicState.UP


# --- who may join -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nics", "teams", "rule"),
    [
        ((Nic("a", "nowhere", "10.9.0.1"),), (), "known network"),
        ((Nic("a", "live", "10.9.0.1"),), (), "subnet"),
        ((Nic("a", "live", "10.1.0.1"),), (), "nic addresses"),
        ((Nic("a", "live", "10.1.0.7"), Nic("a", "live", "10.1.0.8")), (), "nic names"),
        (
            (Nic("a", "live", "10.1.0.7", rdma=True, team="t"),),
            (Team("t", TeamMode.STATIC),),
            "rdma in a team",
        ),
    ],
)
def test_a_host_with_unsound_nics_is_turned_away_by_rule(
    nics: tuple[Nic, ...], teams: tuple[Team, ...], rule: str
) -> None:
    bench = Wired(replace(LIVE, subnet="10.1.0.0/24"), hosts=0)
    bench.wire(1, Nic("a", "live", "10.1.0.1"))
    bench.wire(2, *nics, teams=teams)
    assert bench.closed[2].rule == rule
    assert "h2" not in bench.cluster.state.nodes


def test_a_coordinator_that_does_not_know_a_network_of_a_node_that_is_up_is_refused() -> None:
    bench = Wired(LIVE)
    problem = roles.start_problem(replace(bench.settings, networks=(BEAT,)), bench.cluster.state)
    assert problem is not None
    assert problem.rule == "known network"
    assert roles.start_problem(bench.settings, bench.cluster.state) is None
    bench.silent = {1, 2}
    bench.wait(LOST_AFTER_S + 1)
    assert roles.start_problem(replace(bench.settings, networks=()), bench.cluster.state) is None
