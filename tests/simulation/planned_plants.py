"""Plants for the scenarios of planned work, isolation, quarantine and cluster settings."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from tests.simulation.plants import Plant, with_era, without, without_placement

from ferry_cluster import (
    admin,
    cluster,
    drain,
    isolation,
    membership,
    moves,
    ownership,
    placement,
    requests,
    roles,
)
from ferry_cluster.inputs import PauseNode, ResumeNode
from ferry_cluster.placement import Room
from ferry_cluster.plans import StuckVm
from ferry_cluster.records import DrainRecord, NodeRecord, Record, VmRecord
from ferry_cluster.state import ClusterState
from ferry_cluster.turn import Turn
from ferry_types.drains import Stuck
from ferry_types.eras import Era
from ferry_types.errors import Refusal
from ferry_types.profiles import PROFILES, LeaseTiming

# --- planned work ---------------------------------------------------------------------------------


def allowed(module: ModuleType, name: str, rule: str) -> Plant:
    """A function that finds problems, and does not know one of its rules."""
    find = getattr(module, name)

    def find_others(*given: object) -> Refusal | None:
        problem: Refusal | None = find(*given)
        return None if problem is not None and problem.rule == rule else problem

    return lambda patch: patch.setattr(module, name, find_others)


def paused_again(patch: pytest.MonkeyPatch) -> None:
    """A node may be paused as often as one likes."""

    def on_pause(turn: Turn, event: PauseNode) -> None:
        drain.pause(turn, turn.state.nodes[event.node])
        turn.reply(event.request, event.node)

    patch.setitem(cluster._REQUESTS, PauseNode, on_pause)


def resumed_again(patch: pytest.MonkeyPatch) -> None:
    """A node may be resumed as often as one likes."""

    def on_resume(turn: Turn, event: ResumeNode) -> None:
        turn.write(replace(turn.state.nodes[event.node], paused=True))
        drain.on_resume(turn, event)

    patch.setitem(cluster._REQUESTS, ResumeNode, on_resume)


def drained_by_restart(patch: pytest.MonkeyPatch) -> None:
    """VMs leave a node by being turned off, to start elsewhere."""

    def oust(turn: Turn, vm: VmRecord, _target: str, cause: str) -> None:
        ownership.oust(turn, vm, cause)

    patch.setattr(requests, "ask_for_move", oust)


def drained_anywhere(patch: pytest.MonkeyPatch) -> None:
    """Nobody heeds where the VMs of a drain are to go."""
    targets = drain.targets

    def targets_anywhere(
        room: Room, record: DrainRecord, vms: list[VmRecord]
    ) -> Iterator[tuple[VmRecord, str | Refusal]]:
        return targets(room, replace(record, to=""), vms)

    patch.setattr(drain, "targets", targets_anywhere)


def drained_by_name(patch: pytest.MonkeyPatch) -> None:
    """A drain without priorities."""
    patch.setattr(ownership, "in_start_order", lambda vms: sorted(vms, key=lambda vm: vm.spec.name))


def never_turned_off(patch: pytest.MonkeyPatch) -> None:
    """A drain that lets be what cannot move, whatever it was told."""
    settle = drain._settle

    def settle_by_leaving(turn: Turn, record: DrainRecord, stuck: list[StuckVm]) -> None:
        settle(turn, replace(record, stuck=Stuck.STAY), stuck)

    patch.setattr(drain, "_settle", settle_by_leaving)


def without_deadline(patch: pytest.MonkeyPatch) -> None:
    """A drain that takes its time."""
    begin = drain.begin
    patch.setattr(drain, "begin", lambda turn, record: begin(turn, replace(record, until_us=0)))


def forgotten_drains(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that takes over reads everything but the drains."""
    from_records = ClusterState.from_records

    def from_others(records: Iterable[Record]) -> ClusterState:
        return from_records([record for record in records if not isinstance(record, DrainRecord)])

    patch.setattr(ClusterState, "from_records", staticmethod(from_others))


def replacing_without(module: ModuleType, field: str) -> Plant:
    """A module that leaves one field of its records as it is."""

    def replace_others(record: Any, **changes: Any) -> Any:
        changes.pop(field, None)
        return replace(record, **changes)

    return lambda patch: patch.setattr(module, "replace", replace_others)


def drained_after_death(patch: pytest.MonkeyPatch) -> None:
    """A drain does not end with its node: it goes on when that is back."""
    advance = drain._advance

    def advance_if_up(turn: Turn, record: DrainRecord, *room: Any) -> None:
        if turn.state.nodes[record.node].up:
            advance(turn, record, *room)

    patch.setattr(drain, "_advance", advance_if_up)


def one_attempt(patch: pytest.MonkeyPatch) -> None:
    """A drain that gives a VM up after its first failed move."""
    patch.setattr(drain, "ATTEMPTS_MAX", 1)


def always_home(patch: pytest.MonkeyPatch) -> None:
    """Resuming a node brings back what was there, asked or not."""
    patch.setitem(
        cluster._REQUESTS,
        ResumeNode,
        lambda turn, event: drain.on_resume(turn, replace(event, failback=True)),
    )


def queue_goes_on(patch: pytest.MonkeyPatch) -> None:
    """A node that is paused still gets what is queued."""
    patch.setattr(drain, "pause", lambda turn, node: turn.write(replace(node, paused=True)))


def unpaused_by_restart(patch: pytest.MonkeyPatch) -> None:
    """Whoever joins takes VMs."""
    patch.setattr(
        membership, "NodeRecord", lambda *given, **named: NodeRecord(*given, **{**named, "paused": False})
    )


# --- resiliency -----------------------------------------------------------------------------------


def lost_as_before(patch: pytest.MonkeyPatch) -> None:
    """A resiliency period that hosts know of, and the coordinator does not."""
    span_s = PROFILES["fast"].coordinator_span_s
    patch.setattr(LeaseTiming, "coordinator_span_s", property(lambda _: span_s))


def long_memory(patch: pytest.MonkeyPatch) -> None:
    """Departures count, however long ago they were."""
    count_loss = isolation.count_loss

    def count_all(turn: Turn, name: str) -> None:
        policy = turn.state.policy
        turn.state.policy = replace(policy, quarantine_period_s=1e6)
        count_loss(turn, name)
        turn.state.policy = policy

    patch.setattr(isolation, "count_loss", count_all)


def all_at_once(patch: pytest.MonkeyPatch) -> None:
    """Every node may be quarantined."""
    patch.setattr(isolation, "QUARANTINED_SHARE", 1)


PLANTS: Mapping[str, Plant] = {
    "planned/pause": without_placement(placement.node_paused),
    "planned/pause-twice": paused_again,
    "planned/pause-ends-queue": queue_goes_on,
    "planned/paused-restart": unpaused_by_restart,
    "planned/resume-twice": resumed_again,
    "planned/resume-ends-drain": without(drain, "_cancel"),
    "planned/resume-failback": without(drain, "bring_home"),
    "planned/resume-stays": always_home,
    "planned/drain": drained_by_restart,
    "planned/drain-to": drained_anywhere,
    "planned/drain-order": drained_by_name,
    "planned/drain-one-at-a-time": with_era(Era.WS2008R2, migrations_per_host_max=None),
    "planned/drain-slots": without(moves, "slot_limit", result=8),
    "planned/drain-stuck": without(drain, "_settle"),
    "planned/drain-stuck-stop": never_turned_off,
    "planned/drain-deadline": without_deadline,
    "planned/drain-last-node": allowed(drain, "drain_problem", "last node"),
    "planned/drain-twice": allowed(drain, "drain_problem", "node draining"),
    "planned/drain-coordinator-restart": forgotten_drains,
    "planned/drain-target-lost": replacing_without(drain, "to"),
    "planned/drain-node-lost": drained_after_death,
    "planned/drain-again": one_attempt,
    "planned/evict-force": without(admin, "_oust_all"),
    "resiliency/isolated-and-back": without(isolation, "isolate_silent"),
    "resiliency/period-ends": lost_as_before,
    "resiliency/certificate": without(membership, "on_death_certified"),
    "resiliency/quarantine": without(isolation, "count_loss"),
    "resiliency/quarantine-again": without(isolation, "empty_quarantined"),
    "resiliency/quarantine-waits": without(isolation, "waits_for_quarantine", result=False),
    "resiliency/quarantine-resume": replacing_without(drain, "quarantined_until_us"),
    "resiliency/departures-long-ago": long_memory,
    "resiliency/one-in-five": all_at_once,
    "resiliency/earlier-eras": with_era(Era.WS2012R2, resiliency=True),
    "resiliency/earlier-settings": allowed(roles, "_policy_problem", "era"),
}
"""Scenario -> how the rule that it shows is taken out."""
