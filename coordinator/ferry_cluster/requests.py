"""Requests for moves, whoever makes them: an admin, a drain or a failback."""

import hashlib
from dataclasses import replace

from ferry_cluster.placement import Room, Wish, check_host, choose_host
from ferry_cluster.records import MigrationRecord, VmRecord
from ferry_cluster.state import ClusterState
from ferry_cluster.transport_options import choose_option
from ferry_cluster.turn import Turn
from ferry_types.errors import Refusal, refused
from ferry_types.events import MIGRATION_CHANGED, OPTION_DOWNGRADED, VM_FAILBACK
from ferry_types.migrations import BEST, MigrationOptions, MigrationState

DRAIN_CAUSE = "drain"
FAILBACK_CAUSE = "failback"
"""Of moves that no admin has asked for."""


def move_problem(state: ClusterState, vm: VmRecord) -> Refusal | None:
    """Why the VM cannot move live now, wherever to; or None."""
    name = vm.spec.name
    owner = state.owners[name]
    move = state.migration_of(name)
    if move is not None:
        hint = f"wait for it, or cancel it: ferry migration cancel {move.id}"
        return refused("one move at a time", f"{name} is moving already ({move.id})", hint)
    if owner.node is None or not state.runs(name, owner.epoch):
        return refused("vm running", f"{name} does not run", "only a running VM moves live")
    if vm.stops:
        return refused("vm stopping", f"{name} is being stopped, on {owner.node}")
    return None


def wish_to_move(state: ClusterState, vm: VmRecord) -> Wish:
    """A host for a VM that is to leave its own live; for one that has none, to boot."""
    owner = state.owners[vm.spec.name]
    return Wish(vm, state.nodes[owner.node] if owner.node is not None else None)


def choose_target(room: Room, vm: VmRecord, to: str) -> str | Refusal:
    """Where a running VM moves: ``to`` if no rule is against it, or the best host; or why nowhere."""
    source = room.state.owners[vm.spec.name].node
    assert source is not None
    wish = wish_to_move(room.state, vm)
    if to == BEST:
        return choose_host(room, wish, {source})
    if to == source:
        return refused("same node", f"{vm.spec.name} is on {source} already", "choose another node")
    return check_host(room, wish, to) or to


def make_move(
    turn: Turn,
    vm: VmRecord,
    target: str,
    options: MigrationOptions,
    token: str,
    at_us: int,
    cause: str = "",
) -> MigrationRecord:
    """The next entry of the queue, with the option that it gets. ``cause``: what asks if no admin does."""
    state = turn.state
    owner = state.owners[vm.spec.name]
    assert owner.node is not None
    choice = choose_option(turn.settings, state, owner.node, target, options.option)
    number = max((known.number for known in state.migrations.values()), default=0) + 1
    return MigrationRecord(
        id=f"m{number}",
        vm=vm.spec.name,
        source=owner.node,
        target=target,
        epoch=owner.epoch,
        token=token,
        options=replace(options, option=choice.option),
        state=MigrationState.QUEUED,
        memory_bytes=vm.spec.memory_bytes,
        requested_at_us=at_us,
        cause=cause,
        option_reason=choice.reason,
    )


def enqueue(turn: Turn, move: MigrationRecord) -> None:
    """Put a move into the queue."""
    turn.write(move)
    turn.state.accepted_at[move.id] = turn.now
    why = f" ({move.cause})" if move.cause else ""
    turn.log(
        MIGRATION_CHANGED,
        f"move {move.id} of {move.vm} from {move.source} to {move.target} was requested{why}",
        move.source,
        move.vm,
    )
    if move.option_reason:
        turn.log(
            OPTION_DOWNGRADED, f"move {move.id} of {move.vm}: {move.option_reason}", move.source, move.vm
        )


def ask_for_move(turn: Turn, vm: VmRecord, target: str, cause: str) -> None:
    """Queue a move that no admin has asked for."""
    token, at_us = _token(turn, vm.spec.name), turn.state.wall_us
    enqueue(turn, make_move(turn, vm, target, MigrationOptions(), token, at_us, cause))


def send_home(turn: Turn, vm: VmRecord, target: str) -> None:
    """Queue the move of a VM back to where it belongs."""
    source = turn.state.owners[vm.spec.name].node
    turn.log(VM_FAILBACK, f"{vm.spec.name} goes back from {source} to {target}", target, vm.spec.name)
    ask_for_move(turn, vm, target, FAILBACK_CAUSE)


def _token(turn: Turn, vm: str) -> str:
    """The token of a move that no admin has asked for: nobody can tell it who does not know the seed."""
    epoch = turn.state.owners[vm].epoch
    return hashlib.sha256(f"{turn.settings.seed}/{turn.term}/{turn.now}/{vm}/{epoch}".encode()).hexdigest()
