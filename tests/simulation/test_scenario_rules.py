"""Scenarios are checked: without the rule that it shows, each of them fails.

A plant takes one rule out of a core. A scenario that comes out well without its rule shows nothing.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.simulation import planned_plants, rule_plants
from tests.simulation.plants import Plant, deaf_to, with_era, without, without_placement

from ferry_cluster import admin, membership, moves, ownership, placement, quorum, requests, rounds
from ferry_cluster.records import Record, VmRecord
from ferry_cluster.state import WitnessView
from ferry_cluster.turn import Turn
from ferry_host import lease, promises
from ferry_sim.scenarios import model, runner
from ferry_types.eras import Era
from ferry_types.messages import OrderRefused, TargetReady
from ferry_types.profiles import LeaseTiming

FOLDER = Path(__file__).parents[1] / "scenarios"

# --- plants of their own --------------------------------------------------------------------------


def impatient(patch: pytest.MonkeyPatch) -> None:
    """A lease that the coordinator does not wait for."""
    patch.setattr(LeaseTiming, "coordinator_span_s", property(lambda timing: 2 * timing.beat_s))


def strangers_are_never_judged(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that owes nothing to whom its predecessor has granted something."""
    judge = membership.judge

    def judge_acquaintances(turn: Turn) -> None:
        attendance = turn.state.attendance
        strangers = {name: present for name, present in attendance.items() if not present.session}
        for name in strangers:
            del attendance[name]
        judge(turn)
        attendance.update(strangers)

    patch.setattr(membership, "judge", judge_acquaintances)


def start_by_name(patch: pytest.MonkeyPatch) -> None:
    """No priorities."""
    patch.setattr(ownership, "in_start_order", lambda vms: sorted(vms, key=lambda vm: vm.spec.name))


def no_priority_none(patch: pytest.MonkeyPatch) -> None:
    """A priority that means nothing."""
    patch.setattr(ownership, "Priority", SimpleNamespace(NONE=object()))


def limits_of_no_era(patch: pytest.MonkeyPatch) -> None:
    """The host's own limit alone."""
    patch.setattr(moves, "slot_limit", lambda _, state, node: state.nodes[node].capacity.migration_limit)


def no_vote_for_the_witness(patch: pytest.MonkeyPatch) -> None:
    """Of two hosts one has the only vote."""
    wanted_votes = quorum.wanted_votes
    patch.setattr(quorum, "wanted_votes", lambda turn: (wanted_votes(turn)[0][:1], ""))


def a_witness_that_is_never_missed(patch: pytest.MonkeyPatch) -> None:
    """It keeps its vote, whether it answers or not."""
    patch.setattr(WitnessView, "is_silent", lambda *_: False)


def always_wanted(patch: pytest.MonkeyPatch) -> None:
    """Nobody keeps that an admin has stopped a VM."""
    write = Turn.write

    def write_wanted(turn: Turn, record: Record) -> None:
        write(turn, replace(record, wanted=True) if isinstance(record, VmRecord) else record)

    patch.setattr(Turn, "write", write_wanted)


PLANTS: Mapping[str, Plant] = {
    "failover/power-loss": without(ownership, "fail_over"),
    "failover/certified-death": without(membership, "on_death_certified"),
    "failover/shutdown": without(membership, "on_death_certified"),
    "failover/reboot": without(ownership, "fail_over"),
    "failover/short-freeze": impatient,
    "failover/windows-profile": impatient,
    "failover/long-freeze": without(membership, "_is_void", result=False),
    "failover/network-cut": without(lease, "check_deadline"),
    "failover/one-way-cut": without(promises, "ask_if_due"),
    "failover/coordinator-cut": without(promises, "ask_if_due"),
    "failover/coordinator-restart": without(promises, "ask_if_due"),
    "failover/host-lost-without-coordinator": strangers_are_never_judged,
    "failover/start-order": start_by_name,
    "failover/priority-none": no_priority_none,
    "failover/memory-short": without_placement(placement.memory),
    "failover/room-again": without(ownership, "place_waiting"),
    "failover/guest-crash": deaf_to(OrderRefused),
    "moves/live-migration": deaf_to(TargetReady),
    "moves/target-lost": without(moves, "end"),
    "moves/source-lost": without(moves, "end"),
    "moves/cut-between": without(moves, "end"),
    "moves/cancelled": without(moves, "end"),
    "moves/one-at-a-time": limits_of_no_era,
    "moves/no-room-at-target": without_placement(placement.memory),
    "moves/network-path": without_placement(placement.network_path),
    "moves/refused": without(requests, "move_problem"),
    "quorum/majority-lost": without(rounds, "put_to_vote", result=True),
    "quorum/no-majority-no-failover": without(rounds, "put_to_vote", result=True),
    "quorum/witness": no_vote_for_the_witness,
    "quorum/last-man-standing": with_era(Era.WS2012R2, dynamic_quorum=False),
    "quorum/static-votes": with_era(Era.WS2008R2, dynamic_quorum=True),
    "quorum/witness-away": a_witness_that_is_never_missed,
    "nodes/evict-dead": without(membership, "forget"),
    "nodes/evict-alive": without(membership, "forget"),
    "nodes/evict-with-vms": without(admin, "_eviction_problem"),
    "vms/unique-name": without(admin, "_creation_problem"),
    "vms/too-large": without_placement(placement.memory),
    "vms/stop-and-start": always_wanted,
    **rule_plants.PLANTS,
    **planned_plants.PLANTS,
}
"""Scenario -> how the rule that it shows is taken out."""

EXAMPLE = "annotated-example"
"""Shows the format, not a rule."""


@pytest.mark.parametrize(("name", "plant"), PLANTS.items(), ids=PLANTS.keys())
def test_without_its_rule_a_scenario_fails(name: str, plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = model.read(FOLDER / f"{name}.yaml")
    plant(monkeypatch)
    outcome = runner.run(scenario)
    assert not outcome.ok, f"{scenario.rule} can be taken out, and the scenario does not notice"
    assert not any("comes up" in failure for failure in outcome.failures), "it did not even begin"


def test_every_scenario_has_its_rule_taken_out() -> None:
    names = {str(file.relative_to(FOLDER).with_suffix("")) for file in FOLDER.rglob("*.yaml")}
    assert names - {EXAMPLE} == PLANTS.keys()
