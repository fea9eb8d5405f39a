"""Era 2016: a silent node is isolated before it is lost, and one that comes and goes is kept out."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.cluster.core_bench import FAST, ObedientBench
from tests.unit.cluster.test_failover_rules import events
from tests.unit.cluster.test_placement import capacity, move, refused_rule

from ferry_cluster.cluster import Cluster
from ferry_cluster.inputs import DeathCertified, ResumeNode, SetPolicy
from ferry_cluster.records import Record
from ferry_cluster.roles import start_problem
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_types.eras import Era
from ferry_types.messages import DeathCertificate

RESILIENCY_S = 20.0
SILENT_S = 1.6
"""More than five beats."""


class Resilient(ObedientBench):
    """A cluster of era 2016 with a resiliency period of 20 s, and a VM a on h1."""

    def __init__(self) -> None:
        super().__init__(0, Era.WS2016)
        timing = replace(FAST, lease_s=RESILIENCY_S)
        self.settings = ClusterSettings("c", Era.WS2016, timing, forced=True)
        self.cluster = Cluster(self.settings, 1, [], self.now)
        self.wait(0.2)
        for number in (1, 2, 3):
            self.join(number)
        self.create("a", "h1")

    def leave(self, number: int, seconds: float) -> None:
        """Silent for so long, and then back."""
        self.silent = {number}
        self.wait(seconds)
        self.silent = set()
        self.wait(0.4)


def certify(bench: ObedientBench, number: int, *, ordered: bool = False) -> None:
    life = bench.cluster.state.nodes[f"h{number}"].incarnation
    bench.handle(DeathCertified(DeathCertificate(f"h{number}", life, "killed", ordered)))


def test_a_silent_node_is_isolated_and_its_vms_are_unmonitored() -> None:
    bench = Resilient()
    bench.silent = {1}
    told = events(bench, SILENT_S)
    assert [event for event, _ in told if event in {1673, 1681}] == [1673, 1681]
    assert bench.cluster.node_view("h1").state == "isolated"
    assert (bench.cluster.vm_view("a").state, bench.cluster.vm_view("a").node) == ("unmonitored", "h1")
    assert refused_rule(bench.create("b", "h1")) == "node up"


def test_it_comes_back_within_the_resiliency_period_and_nothing_has_happened() -> None:
    bench = Resilient()
    epoch = bench.cluster.state.owners["a"].epoch
    bench.leave(1, RESILIENCY_S - 5)
    assert bench.cluster.node_view("h1").state == "up"
    view = bench.cluster.vm_view("a")
    assert (view.state, view.node, view.epoch) == ("running", "h1", epoch)


def test_it_is_lost_when_the_period_ends() -> None:
    bench = Resilient()
    bench.silent = {1}
    bench.wait(RESILIENCY_S - 1)
    assert bench.place_of("a") == "h1"
    bench.wait(2.0)
    assert bench.place_of("a") in {"h2", "h3"}
    assert bench.cluster.node_view("h1").state == "down"


def test_a_certificate_does_not_wait() -> None:
    bench = Resilient()
    bench.silent = {1}
    certify(bench, 1)
    assert bench.place_of("a") in {"h2", "h3"}


def test_earlier_eras_know_no_isolation() -> None:
    bench = ObedientBench(2)
    bench.create("a", "h1")
    bench.silent = {1}
    bench.wait(SILENT_S)
    assert bench.cluster.node_view("h1").state == "up"
    assert bench.ask(SetPolicy(5, quarantine_threshold=1)).rule == "era"


def test_who_leaves_three_times_is_quarantined_and_gives_its_vms_away() -> None:
    bench = Resilient()
    for _ in range(2):
        bench.leave(1, SILENT_S)
        assert bench.cluster.node_view("h1").state == "up"
    bench.leave(1, SILENT_S)
    view = bench.cluster.node_view("h1")
    assert (view.state, view.vms) == ("quarantined", ())
    assert bench.place_of("a") in {"h2", "h3"}
    assert refused_rule(move(bench, "h1")) == "node paused"


def test_a_quarantined_node_that_was_lost_waits_two_hours() -> None:
    bench = Resilient()
    bench.ask(SetPolicy(5, quarantine_threshold=1))
    bench.silent = {1}
    certify(bench, 1)
    bench.silent = set()
    commands = bench.join(1, stream=9, life="life-9")
    assert commands
    assert bench.cluster.node_view("h1").state == "quarantined"
    bench.now += 7100
    bench.wait(1.0)
    assert bench.cluster.node_view("h1").state == "quarantined"
    bench.now += 100
    bench.wait(1.0)
    assert bench.cluster.node_view("h1").state == "up"


def test_resuming_ends_a_quarantine() -> None:
    bench = Resilient()
    bench.ask(SetPolicy(5, quarantine_threshold=1))
    certify(bench, 1)
    bench.join(1, stream=9, life="life-9")
    assert bench.ask(ResumeNode(5, "h1", False)) == "h1"
    bench.wait(0.4)
    assert bench.cluster.node_view("h1").state == "up"


def test_departures_of_long_ago_do_not_count() -> None:
    bench = Resilient()
    bench.ask(SetPolicy(5, quarantine_period_s=30.0))
    for _ in range(4):
        bench.leave(1, SILENT_S)
        bench.wait(16.0)
    assert bench.cluster.node_view("h1").state == "up"


@pytest.mark.parametrize(
    "change",
    [{"quarantine_threshold": -1}, {"quarantine_period_s": 0.0}, {"quarantine_s": -5.0}],
)
def test_a_policy_that_makes_no_sense_changes_nothing(change: dict[str, Any]) -> None:
    bench = Resilient()
    before = bench.cluster.state.fingerprint()
    assert bench.ask(SetPolicy(5, **change)).rule == "quarantine"
    assert bench.cluster.state.fingerprint() == before


# --- what a store's cluster can be led with -----------------------------------------------------


def of_2016() -> tuple[ClusterSettings, ClusterState]:
    bench = Resilient()
    bench.cluster.start(bench.now)
    return bench.settings, bench.cluster.state


def test_a_functional_level_never_goes_back() -> None:
    settings, state = of_2016()
    assert start_problem(settings, state) is None
    problem = start_problem(replace(settings, era=Era.WS2012R2), state)
    assert problem is not None
    assert problem.rule == "functional level"


def test_a_shorter_lease_needs_that_no_node_is_up() -> None:
    settings, state = of_2016()
    shorter = replace(settings, timing=FAST)
    problem = start_problem(shorter, state)
    assert problem is not None
    assert problem.rule == "lease"
    for name, node in state.nodes.items():
        state.nodes[name] = replace(node, up=False)
    assert start_problem(shorter, state) is None


def test_an_era_that_a_node_does_not_have_is_refused() -> None:
    bench = ObedientBench(0, Era.WS2012)
    bench.join(1, capacity=capacity(level="2012"))
    problem = start_problem(replace(bench.settings, era=Era.WS2012R2), bench.cluster.state)
    assert problem is not None
    assert (problem.rule, "h1" in problem.message) == ("functional level", True)


def test_a_drain_of_a_quarantined_node_is_forgotten_with_its_quarantine() -> None:
    bench = Resilient()
    for _ in range(3):
        bench.leave(1, SILENT_S)
    assert bench.cluster.drain_view("h1") is not None
    bench.now += 7200
    bench.wait(1.0)
    assert bench.cluster.drain_view("h1") is None


def test_of_three_nodes_one_is_quarantined_at_a_time() -> None:
    bench = Resilient()
    bench.ask(SetPolicy(5, quarantine_threshold=1))
    bench.leave(1, SILENT_S)
    bench.leave(2, SILENT_S)
    assert [view.state for view in bench.cluster.node_views()] == ["quarantined", "up", "up"]


def test_who_ends_as_told_has_not_left_unasked() -> None:
    bench = Resilient()
    bench.ask(SetPolicy(5, quarantine_threshold=1))
    certify(bench, 1, ordered=True)
    bench.join(1, stream=9, life="life-9")
    assert bench.cluster.node_view("h1").state == "up"


def test_one_departure_counts_once_whoever_reigns() -> None:
    bench = Resilient()
    bench.silent = {1}
    for term in (2, 3, 4):
        bench.wait(SILENT_S)
        state = bench.cluster.state
        kept = (state.nodes, state.vms, state.owners, state.raised)
        records: list[Record] = [record for one in kept for record in one.values()]
        bench.cluster = Cluster(bench.settings, term, records, bench.now)
    bench.wait(SILENT_S)
    node = bench.cluster.state.nodes["h1"]
    assert (len(node.losses_us), node.quarantined_until_us) == (1, 0)


def test_a_clock_that_is_set_back_brings_no_quarantine_back() -> None:
    bench = Resilient()
    bench.ask(SetPolicy(5, quarantine_threshold=1, quarantine_s=10.0))
    bench.leave(1, SILENT_S)
    bench.wait(11.0)
    assert bench.cluster.node_view("h1").state == "up"
    bench.cluster.state.wall_us -= 8_000_000
    assert bench.cluster.node_view("h1").state == "up"


@pytest.mark.parametrize("change", [{"quarantine_period_s": 5.0}, {"quarantine_s": 5.0}])
def test_earlier_eras_have_no_quarantine_to_set(change: dict[str, float]) -> None:
    assert ObedientBench(2).ask(SetPolicy(5, **change)).rule == "era"  # type: ignore[arg-type] # spans alone
