"""Which hosts a VM may go to, and which of them it goes to: each rule, and what lifts it."""

from typing import Any

import pytest
from tests.unit.cluster.core_bench import MIB, ObedientBench, make_spec

from ferry_cluster.inputs import (
    CreateVm,
    EvictNode,
    MigrateVm,
    PauseNode,
    SetPolicy,
    SetVm,
    TurnOffVm,
    TurnOnVm,
)
from ferry_cluster.records import MigrationRecord
from ferry_types.eras import Era
from ferry_types.errors import FerryError, Refusal
from ferry_types.migrations import MigrationOptions
from ferry_types.roles import Priority, RoleChanges, RoleRules
from ferry_types.vms import Capacity, Processor


def capacity(memory_bytes: int = 64 * MIB, **changes: Any) -> Capacity:
    return Capacity(memory_bytes, 2, 2, **changes)


def two_hosts(first: Capacity, second: Capacity, era: Era = Era.WS2012R2) -> ObedientBench:
    """h1 and h2, with a VM a on h1."""
    bench = ObedientBench(0, era)
    bench.join(1, capacity=first)
    bench.join(2, capacity=second)
    assert bench.create("a", "h1") == "a"
    return bench


def move(bench: ObedientBench, to: str, vm: str = "a") -> Any:
    return bench.ask(MigrateVm(9, vm, to, MigrationOptions(), False, "token", 1))


def set_rules(bench: ObedientBench, vm: str, **rules: Any) -> Any:
    return bench.ask(SetVm(8, vm, RoleChanges(tuple(rules), Priority.MEDIUM, RoleRules(**rules))))


def refused_rule(answer: Any) -> str:
    assert isinstance(answer, Refusal)
    assert answer.message
    return answer.rule or ""


# --- rules --------------------------------------------------------------------------------------


def test_a_possible_owner_gets_it_and_nobody_else() -> None:
    bench = ObedientBench(3)
    assert bench.create("a", rules=RoleRules(possible_owners=("h2", "h3"))) == "a"
    assert bench.place_of("a") == "h2"
    assert refused_rule(move(bench, "h1")) == "possible owners"
    assert isinstance(move(bench, "best"), MigrationRecord)
    assert bench.place_of("a") == "h3"


def test_a_vm_fails_over_to_a_possible_owner_or_not_at_all() -> None:
    bench = ObedientBench(3)
    bench.create("a", rules=RoleRules(possible_owners=("h1", "h3")))
    bench.silent = {1}
    bench.wait(4.0)
    assert bench.place_of("a") == "h3"
    bench.silent = {1, 3}
    bench.wait(4.0)
    view = bench.cluster.vm_view("a")
    assert (view.state, view.node) == ("failed", "")
    assert "h2 is not a possible owner of a: h1, h3" in view.reason


def test_preferred_owners_come_first_in_their_order() -> None:
    bench = ObedientBench(4)
    assert bench.create("a", rules=RoleRules(preferred_owners=("h3", "h2"))) == "a"
    assert bench.place_of("a") == "h3"
    bench.silent = {3}
    bench.wait(4.0)
    assert bench.place_of("a") == "h2"
    bench.silent = {3, 2}
    bench.wait(4.0)
    assert bench.place_of("a") == "h1"


def test_vms_of_one_class_are_kept_apart_as_long_as_there_are_hosts() -> None:
    bench = ObedientBench(2)
    apart = RoleRules(anti_affinity=("web",))
    for name in ("a", "b"):
        bench.create(name, rules=apart)
    assert {bench.place_of("a"), bench.place_of("b")} == {"h1", "h2"}
    bench.create("c", memory_bytes=32 * MIB)  # h1 has less memory now, and still is the better one
    bench.silent = {2}
    bench.wait(4.0)
    assert bench.place_of("a") == bench.place_of("b") == "h1", "soft: together rather than off"


def test_enforced_anti_affinity_keeps_a_vm_off() -> None:
    bench = ObedientBench(2)
    apart = RoleRules(anti_affinity=("web",))
    bench.create("a", "h1", rules=apart)
    bench.create("b", "h2", rules=apart)
    assert bench.ask(SetPolicy(5, enforced_anti_affinity=True)) == "c"
    assert refused_rule(move(bench, "h2")) == "anti-affinity"
    bench.silent = {2}
    bench.wait(4.0)
    view = bench.cluster.vm_view("b")
    assert (view.state, view.node) == ("failed", "")
    assert "anti-affinity class web" in view.reason
    bench.ask(SetPolicy(5, enforced_anti_affinity=False))
    bench.wait(0.5)
    bench.join(2, session=2)
    assert bench.place_of("b") in {"h1", "h2"}


def test_a_paused_node_gets_no_vm_and_keeps_its_own() -> None:
    bench = ObedientBench(2)
    bench.create("a", "h1")
    assert bench.ask(PauseNode(5, "h2")) == "h2"
    assert refused_rule(move(bench, "h2")) == "node paused"
    assert refused_rule(move(bench, "best")) == "node paused"
    assert refused_rule(bench.create("b", "h2")) == "node paused"
    assert refused_rule(bench.ask(PauseNode(5, "h2"))) == "node paused"
    assert bench.cluster.node_view("h2").state == "paused"
    assert bench.create("b") == "b"
    assert bench.place_of("b") == "h1"


def test_a_host_without_the_switch_is_refused() -> None:
    bench = two_hosts(capacity(switches=("external", "backup")), capacity())
    assert isinstance(move(bench, "h2"), MigrationRecord)
    assert refused_rule(bench.create("b", "h2", rules=RoleRules(switch="backup"))) == "virtual switch"
    assert bench.create("b", rules=RoleRules(switch="backup")) == "b"
    assert bench.place_of("b") == "h1"


def test_a_vm_never_leaves_its_domain_live() -> None:
    bench = two_hosts(capacity(), capacity(domain="other.local"))
    assert refused_rule(move(bench, "h2")) == "domain"
    bench.silent = {1}
    bench.wait(4.0)
    assert bench.place_of("a") == "h2", "it may boot there"


def test_a_vm_never_changes_the_vendor_live() -> None:
    bench = two_hosts(capacity(), capacity(processor=Processor("amd", 1)))
    assert refused_rule(move(bench, "h2")) == "processor vendor"
    set_off(bench)
    set_rules(bench, "a", processor_compatibility=True)
    bench.ask(TurnOnVm(4, "a"))
    assert refused_rule(move(bench, "h2" if bench.place_of("a") == "h1" else "h1")) == "processor vendor"


def set_off(bench: ObedientBench, vm: str = "a") -> None:
    assert bench.ask(TurnOffVm(4, vm)) == vm


def test_older_to_newer_moves_and_back_only_in_compatibility_mode() -> None:
    bench = two_hosts(capacity(), capacity(processor=Processor("intel", 4)))
    assert isinstance(move(bench, "h2"), MigrationRecord)
    assert refused_rule(move(bench, "h1")) == "processor compatibility"
    assert refused_rule(set_rules(bench, "a", processor_compatibility=True)) == "vm off"
    set_off(bench)
    assert set_rules(bench, "a", processor_compatibility=True) == "a"
    bench.ask(TurnOnVm(4, "a"))
    there = bench.place_of("a")
    assert isinstance(move(bench, "h1" if there == "h2" else "h2"), MigrationRecord)
    assert isinstance(move(bench, there), MigrationRecord)


def test_a_vm_moves_to_a_later_release_and_never_back() -> None:
    bench = two_hosts(capacity(level="2012"), capacity(level="2012r2"), Era.WS2012)
    assert isinstance(move(bench, "h2"), MigrationRecord)
    assert refused_rule(move(bench, "h1")) == "functional level"


def test_a_node_below_the_clusters_level_may_not_join() -> None:
    bench = ObedientBench(0, Era.WS2012R2)
    bench.join(1, capacity=capacity(level="2012"))
    assert "h1" not in bench.cluster.state.nodes


def test_a_host_runs_as_many_vms_as_its_era_allows() -> None:
    bench = ObedientBench(0, Era.WS2008R2)
    roomy = capacity(1000 * 16 * MIB)
    bench.join(1, capacity=roomy)
    bench.join(2, capacity=roomy)
    for number in range(384):
        assert bench.create(f"v{number}", "h1") == f"v{number}"
    assert refused_rule(bench.create("more")) == "vms per cluster"  # two nodes: 384 in all
    bench.join(3, capacity=roomy)
    assert refused_rule(bench.create("more", "h1")) == "vms per node"
    assert bench.create("more", "h2") == "more"


def test_memory_decides_among_equals_and_excludes_who_has_too_little() -> None:
    bench = ObedientBench(0)
    bench.join(1, capacity=capacity(64 * MIB))
    bench.join(2, capacity=capacity(128 * MIB))
    bench.create("a")
    assert bench.place_of("a") == "h2"
    assert refused_rule(bench.create("b", "h1", memory_bytes=80 * MIB)) == "memory"
    assert refused_rule(bench.create("b", memory_bytes=120 * MIB)) == "memory"


# --- ratings ------------------------------------------------------------------------------------


def test_the_best_rated_host_is_the_one_that_is_chosen() -> None:
    bench = ObedientBench(4)
    bench.create("x", "h4", memory_bytes=32 * MIB, rules=RoleRules(anti_affinity=("web",)))
    rules = RoleRules(preferred_owners=("h3",), possible_owners=("h1", "h3", "h4"), anti_affinity=("web",))
    bench.create("a", "h1", rules=rules)
    ratings = bench.cluster.host_ratings("a")
    assert [rating.node for rating in ratings] == ["h3", "h1", "h4", "h2"]
    assert [rating.stars for rating in ratings] == sorted((r.stars for r in ratings), reverse=True)
    assert ratings[0].stars == 5
    assert "preferred owner 1 of 1" in ratings[0].reason
    assert "shares anti-affinity class web" in ratings[2].reason
    assert (ratings[3].stars, ratings[3].rule) == (0, "possible owners")
    planned = bench.ask(MigrateVm(9, "a", "best", MigrationOptions(), True, "token", 1))
    assert planned.target == "h3"


def test_hosts_are_rated_for_a_vm_that_is_off_too() -> None:
    bench = ObedientBench(2)
    bench.create("a", "h1")
    set_off(bench)
    assert [rating.stars for rating in bench.cluster.host_ratings("a")] == [5, 5]
    with pytest.raises(FerryError):
        bench.cluster.host_ratings("b")


# --- rules that make no sense -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "rule"),
    [
        ({"possible_owners": ("h9",)}, "possible owners"),
        ({"preferred_owners": ("h9",)}, "preferred owners"),
        ({"possible_owners": ("h1",), "preferred_owners": ("h2",)}, "preferred owners"),
        ({"failback": "now"}, "failback"),
        ({"switch": "nosuch"}, "virtual switch"),
    ],
)
def test_contradictory_rules_change_nothing(rules: dict[str, Any], rule: str) -> None:
    bench = ObedientBench(2)
    bench.create("a", "h1")
    before = bench.cluster.state.fingerprint()
    assert refused_rule(set_rules(bench, "a", **rules)) == rule
    assert refused_rule(bench.create("b", rules=RoleRules(**rules))) == rule
    assert bench.cluster.state.fingerprint() == before


def test_more_vms_of_an_enforced_class_than_nodes_are_refused() -> None:
    bench = ObedientBench(2)
    apart = RoleRules(anti_affinity=("web",))
    for name in ("a", "b", "c"):
        bench.create(name, rules=apart)
    assert refused_rule(bench.ask(SetPolicy(5, enforced_anti_affinity=True))) == "anti-affinity"
    bench.ask(TurnOffVm(4, "c"))
    set_rules(bench, "c", anti_affinity=())
    assert bench.ask(SetPolicy(5, enforced_anti_affinity=True)) == "c"
    assert refused_rule(set_rules(bench, "c", anti_affinity=("web",))) == "anti-affinity"
    assert refused_rule(bench.create("d", rules=apart)) == "anti-affinity"


def test_rules_of_a_vm_that_is_not_there_are_not_found() -> None:
    answer = set_rules(ObedientBench(1), "a", failover_threshold=2)
    assert isinstance(answer, Refusal)
    assert answer.code == "not_found"


def test_a_node_that_leaves_is_taken_out_of_every_rule() -> None:
    bench = ObedientBench(3)
    bench.create("a", "h1", rules=RoleRules(("h1", "h3"), ("h3", "h1")))
    assert bench.ask(EvictNode(3, "h3")) == "h3"
    rules = bench.cluster.state.vms["a"].rules
    assert (rules.possible_owners, rules.preferred_owners) == (("h1",), ("h1",))
    assert refused_rule(bench.ask(EvictNode(3, "h1"))) == "possible owners"


def test_created_rules_are_kept() -> None:
    bench = ObedientBench(2)
    rules = RoleRules(preferred_owners=("h2",), failover_threshold=3)
    bench.ask(CreateVm(3, make_spec("a"), "", False, rules))
    assert bench.cluster.vm_view("a").rules == rules
