"""Plants for the scenarios of placement, order and failover rules."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.simulation.plants import Plant, without, without_placement

from ferry_cluster import admin, failback, ownership, placement, roles
from ferry_cluster import cluster as cluster_module
from ferry_cluster.inputs import MigrateVm, SetVm
from ferry_cluster.ownership import START_ORDER
from ferry_cluster.placement import Room, Wish
from ferry_cluster.records import NodeRecord, VmRecord
from ferry_cluster.state import ClusterState
from ferry_cluster.turn import Turn
from ferry_types.errors import Refusal, refused
from ferry_types.roles import Failback

# --- rules of VMs ---------------------------------------------------------------------------------


def accepting(words: str) -> Plant:
    """Rules of VMs that are not refused for what is told with these words."""
    rules_problem = roles.rules_problem

    def other_problem(state: ClusterState, vm: VmRecord) -> Refusal | None:
        problem = rules_problem(state, vm)
        return None if problem is not None and words in problem.message else problem

    def plant(patch: pytest.MonkeyPatch) -> None:
        for module in (roles, admin):
            patch.setattr(module, "rules_problem", other_problem)

    return plant


def changes_while_on(patch: pytest.MonkeyPatch) -> None:
    """Any rule of a VM that runs can be changed, as if it were off."""

    def on_set_vm(turn: Turn, event: SetVm) -> None:
        owners = turn.state.owners
        owner = owners[event.vm]
        owners[event.vm] = replace(owner, node=None)
        roles.on_set_vm(turn, event)
        owners[event.vm] = owner

    patch.setitem(cluster_module._REQUESTS, SetVm, on_set_vm)


# --- placement ------------------------------------------------------------------------------------


def _instead_of(rule: placement.Rule, other: placement.Rule) -> Plant:
    rules = [other if each is rule else each for each in placement.RULES]
    return lambda patch: patch.setattr(placement, "RULES", rules)


def _always_apart(room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    shared = room.shared_classes(wish.vm, node.name)
    return refused("anti-affinity", f"a VM of class {shared[0]} is there") if shared else None


def _as_if_incompatible(room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    bare = replace(wish.vm, rules=replace(wish.vm.rules, processor_compatibility=False))
    return placement.processor_generation(room, replace(wish, vm=bare), node)


def without_order(place: int) -> Plant:
    """Suitable hosts are put in order without one of its parts: 0 classes, 1 preference, 2 free memory."""
    order = placement._order

    def without_part(room: Room, wish: Wish, node: str) -> tuple[int | str, ...]:
        parts = order(room, wish, node)
        return (*parts[:place], *parts[place + 1 :])

    return lambda patch: patch.setattr(placement, "_order", without_part)


# --- failover and failback ------------------------------------------------------------------------


def failing_over_as_with(**rules: Any) -> Plant:
    """Failovers that take a VM to have other rules than those that were chosen for it."""
    fail_over_vm = ownership.fail_over_vm

    def fail_over(turn: Turn, room: Room, vm: VmRecord, *others: Any) -> Refusal | None:
        return fail_over_vm(turn, room, replace(vm, rules=replace(vm.rules, **rules)), *others)

    return lambda patch: patch.setattr(ownership, "fail_over_vm", fail_over)


def homesick(patch: pytest.MonkeyPatch) -> None:
    """A VM goes back although an admin has moved it since it failed over."""

    def on_migrate(turn: Turn, event: MigrateVm) -> None:
        before = turn.state.vms[event.vm].failed_over
        admin.on_migrate(turn, event)
        turn.write(replace(turn.state.vms[event.vm], failed_over=before))

    patch.setitem(cluster_module._REQUESTS, MigrateVm, on_migrate)


def all_who_are_lower(patch: pytest.MonkeyPatch) -> None:
    """Room is made by whoever is less important, enough or not."""

    def victims(room: Room, vm: VmRecord, node: str) -> list[VmRecord]:
        rank = START_ORDER[vm.spec.priority]
        return [other for other in room.settled(node) if START_ORDER[other.spec.priority] > rank]

    patch.setattr(ownership, "_victims", victims)


PLANTS: Mapping[str, Plant] = {
    "rules/possible-owners": without_placement(placement.possible_owners),
    "rules/possible-owners-live-move": without_placement(placement.possible_owners),
    "rules/possible-owners-gone": without_placement(placement.possible_owners),
    "rules/only-owner-stays": without(admin, "only_owner_problem"),
    "rules/unknown-owner": accepting("there is no node"),
    "rules/preferred-owners": without_order(1),
    "rules/preferred-not-possible": accepting("not one of its possible owners"),
    "rules/anti-affinity": without_order(0),
    "rules/anti-affinity-one-host": _instead_of(placement.anti_affinity, _always_apart),
    "rules/anti-affinity-enforced": without_placement(placement.anti_affinity),
    "rules/anti-affinity-more-vms-than-nodes": without(roles, "_class_problem"),
    "rules/failback-now": without(failback, "send_back"),
    "rules/failback-off": failing_over_as_with(failback=Failback.NOW),
    "rules/failback-window": without(failback, "in_window", result=True),
    "rules/failback-after-an-admins-move": homesick,
    "rules/failback-to-nobody": accepting("no preferred owner"),
    "rules/failover-threshold": failing_over_as_with(failover_threshold=0),
    "rules/failover-period": failing_over_as_with(failover_period_s=7 * 86400.0),
    "rules/start-delay": failing_over_as_with(start_delay_s=0.0),
    "rules/preemption": without(ownership, "make_room", result=False),
    "rules/preemption-in-vain": all_who_are_lower,
    "rules/preemption-where-it-may-run": without(ownership, "_only_memory_is_short", result=True),
    "rules/processor-vendor": without_placement(placement.processor_vendor),
    "rules/processor-generation": without_placement(placement.processor_generation),
    "rules/processor-compatibility": _instead_of(placement.processor_generation, _as_if_incompatible),
    "rules/processor-compatibility-while-on": changes_while_on,
    "rules/virtual-switch": without_placement(placement.switch),
    "rules/domain": without_placement(placement.domain),
    "rules/functional-level": without_placement(placement.functional_level),
    "rules/paused-node": without_placement(placement.node_paused),
    "rules/most-free-memory": without_order(2),
}
"""Scenario -> how the rule that it shows is taken out."""
