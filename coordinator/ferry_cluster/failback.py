"""VMs that have failed over go back to an owner that they prefer, live, at once or in certain hours."""

from dataclasses import replace
from datetime import UTC, datetime

from ferry_cluster import requests
from ferry_cluster.placement import Room
from ferry_cluster.records import VmRecord
from ferry_cluster.turn import Turn
from ferry_types.roles import Failback, RoleRules


def in_window(rules: RoleRules, wall_us: int) -> bool:
    """Whether a VM may go back at this Unix time (microseconds)."""
    if rules.failback is not Failback.WINDOW:
        return rules.failback is Failback.NOW
    hour, begin, end = (
        datetime.fromtimestamp(wall_us / 1e6, UTC).hour,
        rules.failback_from_hour,
        rules.failback_until_hour,
    )
    return begin <= hour < end if begin < end else hour >= begin or hour < end


def send_back(turn: Turn) -> None:
    """Queue the move of every VM for which an owner that it prefers to its host would take it; once each."""
    room: Room | None = None
    for name in sorted(turn.state.displaced):
        vm = turn.state.vms[name]
        if not any(turn.state.is_live(owner, turn.now) for owner in _better(turn, vm)):
            continue
        if not in_window(vm.rules, turn.state.wall_us) or requests.move_problem(turn.state, vm) is not None:
            continue
        room = room or Room.of(turn)
        target = _preferred(turn, room, vm)
        if target:
            room.give(vm, target)
            turn.write(replace(vm, failed_over=False))
            requests.send_home(turn, vm, target)


def _better(turn: Turn, vm: VmRecord) -> tuple[str, ...]:
    """Owners that it prefers to the one that it has."""
    present, preferred = turn.state.owners[vm.spec.name].node, vm.rules.preferred_owners
    return preferred[: preferred.index(present)] if present in preferred else preferred


def _preferred(turn: Turn, room: Room, vm: VmRecord) -> str:
    """The first of them that takes it; empty: none."""
    takers = (owner for owner in _better(turn, vm) if requests.choose_target(room, vm, owner) == owner)
    return next(takers, "")
