"""Draining a node: what is planned is what is done, whatever fails meanwhile."""

from typing import Any

import pytest
from tests.unit.cluster.core_bench import MIB, ObedientBench
from tests.unit.cluster.test_placement import move, refused_rule, set_rules

from ferry_cluster.cluster import Cluster
from ferry_cluster.inputs import CancelMove, DrainNode, EvictNode, PauseNode, ResumeNode, TurnOffVm
from ferry_cluster.records import Record
from ferry_types.drains import Stuck
from ferry_types.eras import Era
from ferry_types.errors import FerryError
from ferry_types.messages import ArmHandOff, ImageReport, VmRunning, VotesRecorded
from ferry_types.migrations import MigrationState
from ferry_types.roles import Priority, RoleRules
from ferry_types.vms import Capacity, ImagePhase


def drain(bench: ObedientBench, node: str = "h1", to: str = "", **how: Any) -> Any:
    return bench.ask(DrainNode(5, node, to, how.get("within_s"), how.get("stuck", Stuck.STAY)))


def filled(hosts: int = 3, vms: int = 4) -> ObedientBench:
    """VMs v0, v1, ... on h1."""
    bench = ObedientBench(hosts)
    for number in range(vms):
        bench.create(f"v{number}", "h1", memory_bytes=8 * MIB)
    return bench


def places(bench: ObedientBench) -> dict[str, str]:
    return {vm: bench.place_of(vm) for vm in bench.cluster.state.vms}


def drain_state(bench: ObedientBench, node: str = "h1") -> str:
    view = bench.cluster.drain_view(node)
    return view.state if view is not None else ""


def test_a_drained_node_is_empty_and_paused() -> None:
    bench = filled()
    assert drain(bench) == "h1"
    assert drain_state(bench) == "completed"
    assert bench.cluster.node_view("h1").vms == ()
    assert bench.cluster.node_view("h1").state == "paused"
    assert sorted(places(bench).values()) == ["h2", "h2", "h3", "h3"]
    assert refused_rule(move(bench, "h1", "v0")) == "node paused"


def test_what_is_planned_is_what_is_done() -> None:
    bench = filled(hosts=4, vms=7)
    bench.create("big", "h1", memory_bytes=8 * MIB, priority=Priority.HIGH, rules=RoleRules(("h1", "h3")))
    plan = bench.cluster.drain_plan("h1", "")
    assert plan.moves[0].vm == "big", "in start order"
    before = bench.cluster.state.fingerprint()
    bench.cluster.drain_plan("h1", "")
    assert bench.cluster.state.fingerprint() == before
    drain(bench)
    done = sorted(bench.cluster.state.migrations.values(), key=lambda one: one.number)
    assert [(one.vm, one.target) for one in done] == [(one.vm, one.target) for one in plan.moves]


def test_slots_are_full_until_the_queue_is_empty() -> None:
    bench = filled(vms=6)
    bench.slow = True
    drain(bench, to="h2")
    for left in range(6, 0, -1):
        active = bench.cluster.state.active_migrations()
        assert len(active) == left
        copying = [one for one in active if one.state is MigrationState.COPYING]
        assert len(copying) == min(2, left)
        bench.say(1, ArmHandOff(copying[0].id))
    assert drain_state(bench) == "completed"
    assert set(places(bench).values()) == {"h2"}


def test_era_2008r2_moves_one_at_a_time() -> None:
    bench = ObedientBench(3, Era.WS2008R2)
    for number in range(3):
        bench.create(f"v{number}", "h1", memory_bytes=8 * MIB)
    bench.slow = True
    drain(bench)
    assert [one.state for one in bench.cluster.state.active_migrations()] == ["copying", "queued", "queued"]


def test_a_vm_that_cannot_move_stays_and_is_named() -> None:
    bench = filled()
    set_rules(bench, "v1", possible_owners=("h1",))
    plan = bench.cluster.drain_plan("h1", "")
    assert [(one.vm, one.refusal.rule) for one in plan.stuck] == [("v1", "possible owners")]
    drain(bench)
    assert drain_state(bench) == "failed"
    assert bench.place_of("v1") == "h1"
    assert "v1 (possible owners)" in bench.cluster.node_view("h1").reason


def test_why_no_host_takes_a_vm_is_told_host_by_host_and_the_rule_apart() -> None:
    bench = ObedientBench(0)
    bench.join(1, capacity=Capacity(64 * MIB, 2, 2, switches=("storage",)))
    bench.join(2)
    bench.join(3)
    bench.create("a", "h1", rules=RoleRules(switch="storage"))
    (stuck,) = bench.cluster.drain_plan("h1", "").stuck
    assert stuck.refusal.rule == "virtual switch"
    without = ", to which a is connected: external"
    assert stuck.refusal.message == (
        f"no host can take a: h2 has no virtual switch storage{without}; "
        f"h3 has no virtual switch storage{without}"
    )


def test_or_it_is_turned_off() -> None:
    bench = filled()
    set_rules(bench, "v1", possible_owners=("h1",))
    drain(bench, stuck=Stuck.STOP)
    assert bench.cluster.vm_view("v1").state == "off"
    assert drain_state(bench) == "completed"


def test_a_move_that_fails_is_tried_again_and_at_last_let_be() -> None:
    bench = filled()
    bench.failing = {"v1"}
    drain(bench)
    assert drain_state(bench) == "failed"
    tried = [one for one in bench.cluster.state.migrations.values() if one.vm == "v1"]
    assert [one.state for one in tried] == ["failed"] * 3
    assert bench.place_of("v1") == "h1"
    assert [bench.place_of(vm) for vm in ("v0", "v2", "v3")] != ["h1"] * 3


def test_a_cancelled_move_is_not_asked_for_again() -> None:
    bench = filled()
    bench.slow = True
    drain(bench)
    first = bench.cluster.state.active_migrations()[0]
    bench.ask(CancelMove(6, first.id))
    again = [one for one in bench.cluster.state.active_migrations() if one.vm == first.vm]
    assert again == []


def test_another_host_takes_over_from_a_lost_target() -> None:
    bench = filled()
    bench.slow = True
    drain(bench, to="h2")
    bench.slow = False
    bench.silent = {2}
    bench.wait(4.0)
    assert drain_state(bench) == "completed"
    assert set(places(bench).values()) == {"h3"}


def test_vms_of_a_drained_node_that_is_lost_fail_over() -> None:
    bench = filled()
    bench.slow = True
    drain(bench)
    bench.silent = {1}
    bench.wait(4.0)
    assert drain_state(bench) == "completed"
    assert "was lost" in bench.cluster.state.drains["h1"].reason
    assert set(places(bench).values()) <= {"h2", "h3"}
    bench.silent = set()
    bench.join(1, stream=9, session=2)
    assert bench.cluster.node_view("h1").state == "paused"


def test_the_next_reign_goes_on() -> None:
    bench = filled()
    bench.slow = True
    drain(bench)
    state = bench.cluster.state
    records: list[Record] = [
        *state.nodes.values(),
        *state.vms.values(),
        *state.owners.values(),
        *state.raised.values(),
        *state.migrations.values(),
        *state.drains.values(),
    ]
    bench.cluster = Cluster(bench.settings, 2, records, bench.now)
    assert drain_state(bench) == "active"
    assert bench.cluster.node_view("h1").state == "draining"
    bench.slow = False
    begun = {one.vm: one.id for one in state.active_migrations() if one.state is MigrationState.COPYING}
    assert begun == {"v0": "m1", "v1": "m2"}
    there = [(vm, owner.epoch) for vm, owner in state.owners.items()]
    images = [ImageReport(vm, epoch, ImagePhase.RUNNING, begun.get(vm, "")) for vm, epoch in there]
    bench.join(1, session=2, images=tuple(images))
    bench.join(2, session=2, images=(ImageReport("v0", 1, ImagePhase.RECEIVING, "m1"),))
    bench.join(3, session=2)  # it has lost what it had of v1
    for vm, epoch in there:
        bench.report("h1", VmRunning(vm, epoch, "", 0.0))
    assert drain_state(bench) == "active"
    bench.report("h1", ArmHandOff("m1"))
    assert drain_state(bench) == "completed"
    assert sorted(places(bench).values()) == ["h2", "h2", "h3", "h3"]
    done = [one for one in bench.cluster.state.migrations.values() if one.state is MigrationState.COMPLETED]
    assert sorted(one.id for one in done) == ["m1", "m3", "m4", "m5"], "v1 was asked for again"


def test_a_deadline_ends_it_and_what_is_queued() -> None:
    bench = filled()
    bench.slow = True
    drain(bench, within_s=5.0)
    bench.wait(6.0)
    assert drain_state(bench) == "failed"
    assert len(bench.cluster.state.active_migrations()) == 2, "those under way go on"
    assert "deadline" in bench.cluster.node_view("h1").reason


@pytest.mark.parametrize("failback", [False, True])
def test_what_was_drained_comes_home_if_that_is_asked_for(failback: bool) -> None:
    bench = filled()
    drain(bench)
    bench.handle(TurnOffVm(6, "v0"))
    assert bench.ask(ResumeNode(5, "h1", failback)) == "h1"
    there = {vm for vm, node in places(bench).items() if node == "h1"}
    assert there == ({"v1", "v2", "v3"} if failback else set())
    assert bench.cluster.node_view("h1").state == "up"
    assert bench.cluster.drain_view("h1") is None


def test_resuming_ends_a_drain() -> None:
    bench = filled()
    bench.slow = True
    drain(bench)
    assert bench.ask(ResumeNode(5, "h1", False)) == "h1"
    assert [one.state for one in bench.cluster.state.active_migrations()] == ["copying", "copying"]
    assert refused_rule(bench.ask(ResumeNode(5, "h1", False))) == "node paused"


def test_pausing_a_node_sends_nothing_more_to_it() -> None:
    bench = filled()
    bench.slow = True
    for number in range(4):
        move(bench, "h2", f"v{number}")
    bench.ask(PauseNode(5, "h2"))
    assert [one.state for one in bench.cluster.state.active_migrations()] == ["copying", "copying"]


@pytest.mark.parametrize(
    ("node", "to", "rule"),
    [("h1", "h1", "same node"), ("h1", "h2", "node paused"), ("h2", "", "last node"), ("h3", "", "node up")],
)
def test_a_drain_that_makes_no_sense_changes_nothing(node: str, to: str, rule: str) -> None:
    bench = ObedientBench(3)
    bench.create("a", "h1")
    if rule == "last node":
        bench.ask(PauseNode(5, "h1"))
    else:
        bench.ask(PauseNode(5, "h2"))
    if rule in {"last node", "node up"}:
        bench.silent = {3}
        bench.wait(4.0)
    before = bench.cluster.state.fingerprint()
    assert refused_rule(drain(bench, node, to)) == rule
    with pytest.raises(FerryError):
        bench.cluster.drain_plan(node, to)
    assert bench.cluster.state.fingerprint() == before


@pytest.mark.parametrize(("node", "to"), [("h9", ""), ("h1", "h9")])
def test_unknown_nodes_are_not_found(node: str, to: str) -> None:
    assert drain(filled(), node, to).code == "not_found"


def test_a_node_is_not_drained_twice_at_a_time() -> None:
    bench = filled()
    bench.slow = True
    drain(bench)
    assert refused_rule(drain(bench)) == "node draining"


def test_a_node_with_vms_is_evicted_by_force_and_they_start_elsewhere() -> None:
    bench = filled()
    assert refused_rule(bench.ask(EvictNode(6, "h1"))) == "node empty"
    bench.handle(EvictNode(6, "h1", force=True))
    bench.wait(1.0)
    assert bench.replies[6] == "h1"
    assert "h1" not in bench.cluster.state.nodes
    assert set(places(bench).values()) == {"h2", "h3"}


def test_a_failback_waits_for_no_move_that_is_under_way() -> None:
    bench = filled()
    bench.slow = True
    drain(bench)
    bench.ask(ResumeNode(5, "h1", True))
    assert bench.cluster.state.active_migrations() == []
    assert set(places(bench).values()) == {"h1"}


def test_a_second_drain_remembers_what_the_first_has_taken() -> None:
    bench = filled()
    set_rules(bench, "v1", possible_owners=("h1",))
    drain(bench)
    drain(bench)
    bench.ask(ResumeNode(5, "h1", True))
    assert set(places(bench).values()) == {"h1"}


def test_a_node_that_is_being_evicted_takes_nothing_and_is_not_resumed() -> None:
    bench = filled()
    bench.silent = {1}
    bench.handle(EvictNode(6, "h1", force=True))
    assert refused_rule(bench.ask(ResumeNode(5, "h1", False))) == "node evicted"
    assert refused_rule(bench.ask(PauseNode(5, "h1"))) == "node evicted"
    assert refused_rule(drain(bench)) == "node evicted"
    assert refused_rule(bench.ask(EvictNode(7, "h1"))) == "node evicted"
    assert refused_rule(bench.create("b", "h1")) == "node paused"


def test_what_is_drained_does_not_go_to_a_node_that_is_being_evicted() -> None:
    bench = ObedientBench(3, forced=False)
    bench.say(1, VotesRecorded(1))
    bench.create("a", "h2")
    bench.ask(PauseNode(5, "h3"))
    bench.handle(EvictNode(6, "h1"))
    assert "h1" in bench.cluster.state.evicting, "it waits until its vote is gone"
    assert not bench.cluster.state.nodes["h1"].paused
    assert refused_rule(drain(bench, "h2")) == "last node"
    assert refused_rule(bench.ask(EvictNode(7, "h2", force=True))) == "last node"
    bench.ask(ResumeNode(5, "h3", False))
    assert refused_rule(drain(bench, "h2", "h1")) == "node paused"
    assert drain(bench, "h2") == "h2"
    assert bench.place_of("a") == "h3"


def test_the_last_node_with_vms_is_not_evicted_by_force() -> None:
    bench = filled(hosts=1, vms=1)
    assert refused_rule(bench.ask(EvictNode(6, "h1", force=True))) == "last node"
    assert bench.place_of("v0") == "h1"


def test_a_queued_move_does_not_go_where_the_vm_may_not_be_any_more() -> None:
    bench = filled()
    bench.slow = True
    for number in range(3):
        move(bench, "h2", f"v{number}")
    set_rules(bench, "v2", possible_owners=("h1", "h3"))
    assert bench.cluster.state.migrations["m3"].state is MigrationState.FAILED


def test_the_others_take_over_from_a_target_that_is_paused() -> None:
    bench = filled()
    bench.slow = True
    drain(bench, to="h2")
    bench.ask(PauseNode(7, "h2"))
    targets = {one.vm: one.target for one in bench.cluster.state.active_migrations()}
    assert sorted(targets.values()) == ["h2", "h2", "h3", "h3"]
