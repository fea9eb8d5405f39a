"""What a step asks of the cluster core."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ferry_cluster import inputs
from ferry_cluster.inputs import AdminRequest
from ferry_cluster.state import ClusterState
from ferry_sim.ballots import ADDRESS
from ferry_sim.scenarios import steps
from ferry_types.errors import FerryError, not_found
from ferry_types.roles import Priority, RoleChanges, RoleRules

Ask = Callable[[int], AdminRequest]
"""Makes a request of its number."""


def asks(action: steps.Request, state: ClusterState, wall_us: int) -> list[Ask]:
    """The requests of a step, each to be put when the one before has been answered.

    Raises FerryError(not_found) if it needs something of the cluster that does not exist.
    """
    match action:
        case steps.Relocate():
            return _relocate(action)
        case steps.CancelMove(vm=vm):
            move = state.migration_of(vm)
            if move is None:
                raise FerryError(not_found(f"{vm} does not move"))
            return [lambda number: inputs.CancelMove(number, move.id)]
        case steps.ChangeList():
            changes = list_changes(action, _rules(state, action.vm))
            return [lambda number: inputs.SetVm(number, action.vm, changes)]
        case steps.MigrateVm():
            return [
                lambda number: inputs.MigrateVm(
                    number, action.vm, action.to, action.options, False, "token", wall_us
                )
            ]
    return [lambda number: _request(action, number)]


def _request(action: steps.Request, number: int) -> AdminRequest:
    match action:
        case steps.CreateVm():
            return inputs.CreateVm(number, action.spec, action.node, action.start, action.rules)
        case steps.StartVm():
            return inputs.TurnOnVm(number, action.vm)
        case steps.StopVm():
            return inputs.TurnOffVm(number, action.vm)
        case steps.RemoveVm():
            return inputs.RemoveVm(number, action.vm)
        case steps.SetVm():
            return inputs.SetVm(number, action.vm, action.changes)
        case steps.PauseNode():
            return inputs.PauseNode(number, action.node)
        case steps.DrainNode():
            return inputs.DrainNode(number, action.node, action.to, action.within_s, action.stuck)
        case steps.ResumeNode():
            return inputs.ResumeNode(number, action.node, action.failback)
        case steps.EvictNode():
            return inputs.EvictNode(number, action.node, action.force)
        case steps.SetPolicy():
            return inputs.SetPolicy(
                number,
                action.enforced_anti_affinity,
                action.quarantine_threshold,
                action.quarantine_period_s,
                action.quarantine_s,
            )
        case steps.SetQuorum():
            witness = None if action.witness is None else ADDRESS if action.witness else ""
            return inputs.SetQuorum(number, witness, action.dynamic)
    raise AssertionError(f"{action} is more than one request")


def _rules(state: ClusterState, vm: str) -> RoleRules:
    record = state.vms.get(vm)
    if record is None:
        raise FerryError(not_found(f"there is no VM {vm}"))
    return record.rules


def _relocate(action: steps.Relocate) -> list[Ask]:
    """Off, and on there."""
    return [
        lambda number: inputs.TurnOffVm(number, action.vm),
        lambda number: inputs.TurnOnVm(number, action.vm, action.to),
    ]


def list_changes(action: steps.ChangeList, present: RoleRules) -> RoleChanges:
    """A VM's list with names more or less."""
    names: tuple[str, ...] = getattr(present, action.field)
    kept = tuple(name for name in names if name not in action.names)
    changed: dict[str, Any] = {action.field: (*kept, *action.names) if action.add else kept}
    rules = replace(RoleRules(), **changed)
    return RoleChanges((action.field,), Priority.MEDIUM, rules)
