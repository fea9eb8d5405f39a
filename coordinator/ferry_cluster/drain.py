"""Planned work on a node: pause it, empty it by live migration, let it take VMs again.

::

    up --pause--> paused --resume--> up
    up, paused --drain--> draining --nothing left--> paused (completed)
                              \\--deadline, or what is left cannot move--> paused (failed)

A drain is in the store, and so are its moves: whoever reigns goes on with it. What it does next follows from
what is on the node: a move that failed is asked for again, to whichever host suits then; a target that is
lost is replaced; what the node loses fails over.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

from ferry_cluster import moves, ownership, requests
from ferry_cluster.inputs import DrainNode, PauseNode, ResumeNode
from ferry_cluster.placement import Room
from ferry_cluster.plans import DrainPlan, PlannedMove, StuckVm
from ferry_cluster.records import (
    Attempts,
    DrainRecord,
    DrainState,
    MigrationRecord,
    NodeRecord,
    Stuck,
    VmRecord,
)
from ferry_cluster.refusals import no_node
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_cluster.turn import Turn
from ferry_types.errors import Refusal, refused
from ferry_types.events import DRAIN_CHANGED, DRAIN_FAILED, DRAIN_MOVE_FAILED, NODE_PAUSED, VM_FAILBACK
from ferry_types.messages import StopVm
from ferry_types.migrations import MigrationOptions, MigrationState
from ferry_types.roles import RoleRules

CAUSE = "drain"
FAILBACK_CAUSE = "failback"

ATTEMPTS_MAX = 3
"""Moves of one VM that may fail before a drain lets it be."""

_RATE_MOVES = 10
"""Completed moves, the latest ones, that an estimate is made from."""


# --- requests -----------------------------------------------------------------------------------


def on_pause(turn: Turn, event: PauseNode) -> None:
    """No VM comes to the node any more; answered with its name."""
    node = turn.state.nodes.get(event.node)
    if node is None:
        turn.reply(event.request, no_node(event.node))
    elif node.name in turn.state.evicting:
        turn.reply(event.request, _is_leaving(node.name))
    elif node.paused:
        hint = f"ferry node resume {node.name} lets VMs come to it again"
        turn.reply(event.request, refused("node paused", f"node {node.name} is paused already", hint))
    else:
        pause(turn, node)
        turn.reply(event.request, node.name)


def pause(turn: Turn, node: NodeRecord) -> None:
    """Note it, and end the moves that are queued to come here."""
    if not node.paused:
        turn.write(replace(node, paused=True))
        turn.log(NODE_PAUSED, f"node {node.name} is paused: no VM comes to it", node.name)
    end_queued_to(turn, node.name, f"node {node.name} is paused")


def end_queued_to(turn: Turn, node: str, reason: str) -> None:
    """End the moves that wait for a slot to come to a node."""
    for move in turn.state.active_migrations():
        if move.state is MigrationState.QUEUED and move.target == node:
            moves.end(turn, move, MigrationState.FAILED, reason)


def on_drain(turn: Turn, event: DrainNode) -> None:
    """Pause a node and begin to empty it; answered with its name."""
    problem = drain_problem(turn.state, turn.now, event.node, event.to)
    if problem is not None:
        turn.reply(event.request, problem)
        return
    until_us = 0 if event.within_s is None else turn.state.wall_us + round(event.within_s * 1e6)
    former = turn.state.drains.get(event.node)
    before = () if former is None else former.taken
    there = (vm.spec.name for vm in turn.state.owned_by(event.node))
    taken = (*before, *(vm for vm in there if vm not in before))
    pause(turn, turn.state.nodes[event.node])
    begin(turn, DrainRecord(event.node, event.to, until_us, event.stuck, taken=taken))
    turn.reply(event.request, event.node)


def begin(turn: Turn, drain: DrainRecord) -> None:
    """Keep a drain, and ask for its first moves."""
    turn.write(drain)
    where, count = f" onto {drain.to}" if drain.to else "", len(turn.state.owned_by(drain.node))
    turn.log(DRAIN_CHANGED, f"drain of {drain.node}{where} begins: {count} VMs", drain.node)
    _advance(turn, drain, lambda: Room.of(turn))


def drain_problem(state: ClusterState, now: float, node: str, to: str) -> Refusal | None:
    """Why this node cannot be drained, or None."""
    for name in (node, to):
        if name and name not in state.nodes:
            return no_node(name)
    if node in state.evicting:
        return _is_leaving(node)
    known = state.drains.get(node)
    if known is not None and known.state is DrainState.ACTIVE:
        hint = f"wait for it, or end it: ferry node resume {node}"
        return refused("node draining", f"node {node} is being drained already", hint)
    if not state.is_live(node, now):
        hint = "ferry node list tells which nodes are"
        return refused("node up", f"node {node} is not up: its VMs cannot move live", hint)
    if to == node:
        return refused("same node", f"a drain of {node} does not go to {node}", "choose another node")
    if not takers(state, now, node):
        what = f"{node} is the last node that takes VMs"
        return refused("last node", what, "start or resume another one first")
    if to and not _takes_vms(state, now, state.nodes[to]):
        what = f"node {to} takes no VMs: it is not up, or paused"
        return refused("node paused" if state.is_live(to, now) else "node up", what, "choose another one")
    return None


def takers(state: ClusterState, now: float, node: str) -> list[NodeRecord]:
    """The other nodes that take VMs."""
    return [other for other in state.nodes.values() if other.name != node and _takes_vms(state, now, other)]


def _is_leaving(node: str) -> Refusal:
    return refused("node evicted", f"node {node} is being evicted", "wait until that has ended")


def _takes_vms(state: ClusterState, now: float, node: NodeRecord) -> bool:
    return state.is_live(node.name, now) and not node.paused and not state.is_quarantined(node)


def on_resume(turn: Turn, event: ResumeNode) -> None:
    """The node takes VMs again; a drain ends, and with failback what it has taken away comes home."""
    node = turn.state.nodes.get(event.node)
    if node is None:
        turn.reply(event.request, no_node(event.node))
        return
    if node.name in turn.state.evicting:
        turn.reply(event.request, _is_leaving(node.name))
        return
    if not node.paused and not turn.state.is_quarantined(node):
        hint = "it takes VMs already: ferry node list shows the nodes' states"
        turn.reply(event.request, refused("node paused", f"node {node.name} is not paused", hint))
        return
    turn.write(replace(node, paused=False, quarantined_until_us=0, losses_us=()))
    turn.log(NODE_PAUSED, f"node {node.name} takes VMs again", node.name)
    drain = turn.state.drains.get(node.name)
    if drain is not None:
        _cancel(turn, drain, "the node was resumed", also_begun=event.failback)
        turn.delete(drain)
        if event.failback:
            bring_home(turn, drain)
    turn.reply(event.request, node.name)


def bring_home(turn: Turn, drain: DrainRecord) -> None:
    """Queue what a drain has taken away to come back; what cannot come stays, and that is said."""
    room = Room.of(turn)
    there = [turn.state.vms[name] for name in drain.taken if name in turn.state.vms]
    for vm in ownership.in_start_order(there):
        owner = turn.state.owners[vm.spec.name]
        if owner.node in (None, drain.node):
            continue
        chosen = requests.move_problem(turn.state, vm) or requests.choose_target(room, vm, drain.node)
        if isinstance(chosen, str):
            room.give(vm, chosen)
            send_home(turn, vm, chosen)
        else:
            what = f"{vm.spec.name} does not come back to {drain.node}: {chosen.message}"
            turn.log(DRAIN_CHANGED, what, drain.node, vm.spec.name)


def send_home(turn: Turn, vm: VmRecord, target: str) -> None:
    """Queue the move of a VM back to where it belongs."""
    source = turn.state.owners[vm.spec.name].node
    turn.log(VM_FAILBACK, f"{vm.spec.name} goes back from {source} to {target}", target, vm.spec.name)
    ask(turn, vm, target, FAILBACK_CAUSE)


def ask(turn: Turn, vm: VmRecord, target: str, cause: str) -> None:
    """Queue a move that no admin has asked for."""
    token = requests.token_for(turn, vm.spec.name)
    move = requests.make_move(turn, vm, target, MigrationOptions(), token, turn.state.wall_us)
    requests.enqueue(turn, replace(move, cause=cause))


# --- progress -----------------------------------------------------------------------------------


def advance(turn: Turn) -> None:
    """Take every drain that is under way as far as it goes now."""
    for move in turn.ended_moves:
        _note_end(turn, move)
    turn.ended_moves.clear()
    room = cache(lambda: Room.of(turn))  # counted once, if it is needed at all
    for drain in list(turn.state.drains.values()):
        is_late = 0 < drain.until_us <= turn.state.wall_us
        if drain.state is DrainState.ACTIVE and (is_late or turn.may_empty_nodes):
            _advance(turn, drain, room)


def _advance(turn: Turn, drain: DrainRecord, room: Callable[[], Room]) -> None:
    state = turn.state
    node = state.nodes[drain.node]
    if not node.up:
        _end(turn, drain, DrainState.COMPLETED, f"{drain.node} was lost: its VMs have failed over")
        return
    if 0 < drain.until_us <= state.wall_us:
        _cancel(turn, drain, "the drain's deadline has passed")
        count = len(state.owned_by(drain.node))
        _end(turn, drain, DrainState.FAILED, f"its deadline has passed with {count} VMs on the node")
        return
    if drain.to and _takes_none(state, drain.to):
        turn.log(
            DRAIN_CHANGED,
            f"drain of {drain.node}: {drain.to} is lost or paused, the others take over",
            drain.node,
        )
        drain = replace(drain, to="")
        turn.write(drain)
    left = state.owned_by(drain.node)
    busy = any(drain.node in (move.source, move.target) for move in state.active_migrations())
    if not left and not busy:
        _end(turn, drain, DrainState.COMPLETED, "")
        return
    moving = {move.vm for move in state.active_migrations()}
    waits = busy
    stuck: list[StuckVm] = []
    staying = [vm for vm in left if vm.spec.name not in moving]
    for vm, target in targets(room(), drain, staying) if staying else ():
        if vm.stops or not state.runs(vm.spec.name, state.owners[vm.spec.name].epoch):
            waits = True
        elif isinstance(target, str):
            ask(turn, vm, target, CAUSE)
            waits = True
        elif target.rule == "node up":
            waits = True  # hosts come back; the deadline bounds it
        else:
            stuck.append(StuckVm(vm.spec.name, target))
    if stuck and not waits:
        _settle(turn, drain, stuck)


def _takes_none(state: ClusterState, name: str) -> bool:
    """Whether a node is gone, lost, or not to take VMs; one that is merely silent may come back."""
    node = state.nodes.get(name)
    return node is None or not node.up or node.paused or state.is_quarantined(node)


def targets(room: Room, drain: DrainRecord, vms: list[VmRecord]) -> Iterator[tuple[VmRecord, str | Refusal]]:
    """Where each VM goes, or why nowhere, in the order of the queue; counts them in as it goes."""
    failed = {attempts.vm: attempts.count for attempts in drain.attempts}
    hopeless: dict[tuple[int, RoleRules], Refusal] = {}
    for vm in ownership.in_start_order(vms):
        if failed.get(vm.spec.name, 0) >= ATTEMPTS_MAX:
            what = f"{ATTEMPTS_MAX} moves of {vm.spec.name} have failed"
            yield vm, refused("move failed", what, "ferry migration list tells why")
            continue
        kind = (vm.spec.memory_bytes, vm.rules)
        # Room only gets scarcer from one to the next.
        target = hopeless.get(kind) or requests.choose_target(room, vm, drain.to or requests.BEST)
        if isinstance(target, str):
            room.give(vm, target)
        else:
            hopeless[kind] = target
        yield vm, target


def _note_end(turn: Turn, move: MigrationRecord) -> None:
    """Note a failed move of a drain, so that it is not tried for ever; ``move`` as it was before its end."""
    drain, ended = turn.state.drains.get(move.source), turn.state.migrations.get(move.id)
    if drain is None or drain.state is not DrainState.ACTIVE or move.cause != CAUSE or ended is None:
        return
    state, reason = ended.state, ended.reason
    if state is MigrationState.FAILED and move.state is not MigrationState.QUEUED:
        counts = {attempts.vm: attempts.count for attempts in drain.attempts}
        counts[move.vm] = counts.get(move.vm, 0) + 1
        attempts = tuple(Attempts(vm, count) for vm, count in sorted(counts.items()))
        turn.write(replace(drain, attempts=attempts))
        what = f"drain of {drain.node}: {move.vm} was not moved to {move.target}: {reason}"
        turn.log(DRAIN_MOVE_FAILED, f"{what} (attempt {counts[move.vm]})", drain.node, move.vm)
    elif state is MigrationState.CANCELLED:
        attempts = (*(one for one in drain.attempts if one.vm != move.vm), Attempts(move.vm, ATTEMPTS_MAX))
        turn.write(replace(drain, attempts=attempts))


def _settle(turn: Turn, drain: DrainRecord, stuck: list[StuckVm]) -> None:
    """Nothing is under way, and these VMs cannot move: turn them off, or give up."""
    for one in stuck:
        what = f"drain of {drain.node}: {one.vm} cannot move: {one.refusal.message}"
        turn.log(DRAIN_MOVE_FAILED, what, drain.node, one.vm)
    if drain.stuck is Stuck.STOP:
        for one in stuck:
            turn.write(replace(turn.state.vms[one.vm], wanted=False))
            turn.order(drain.node, StopVm(one.vm, turn.state.owners[one.vm].epoch))
    else:
        names = ", ".join(f"{one.vm} ({one.refusal.rule})" for one in stuck)
        _end(turn, drain, DrainState.FAILED, f"cannot move: {names}")


def _end(turn: Turn, drain: DrainRecord, state: DrainState, reason: str) -> None:
    turn.write(replace(drain, state=state, reason=reason))
    kind = DRAIN_FAILED if state is DrainState.FAILED else DRAIN_CHANGED
    turn.log(kind, f"drain of {drain.node} {state}" + (f": {reason}" if reason else ""), drain.node)


def _cancel(turn: Turn, drain: DrainRecord, reason: str, *, also_begun: bool = False) -> None:
    """Cancel a drain's moves: those that are queued, or all that are not committed."""
    for move in turn.state.active_migrations():
        may_end = move.state is MigrationState.QUEUED or (also_begun and not turn.state.is_committed(move))
        if may_end and (move.source, move.cause) == (drain.node, CAUSE):
            moves.end(turn, move, MigrationState.CANCELLED, reason)


# --- plans --------------------------------------------------------------------------------------


def plan(
    settings: ClusterSettings, state: ClusterState, now: float, node: str, to: str
) -> DrainPlan | Refusal:
    """What a drain would do now."""
    if (problem := drain_problem(state, now, node, to)) is not None:
        return problem
    drain = DrainRecord(node, to, 0, Stuck.STAY)
    rate = _moved_bytes_per_s(state)
    planned, stuck = [], []
    for vm, target in targets(Room(settings, state, now), drain, state.owned_by(node)):
        if isinstance(target, Refusal):
            stuck.append(StuckVm(vm.spec.name, target))
        else:
            size = vm.spec.memory_bytes
            planned.append(PlannedMove(vm.spec.name, size, target, size / rate if rate else None))
    slots = moves.slot_limit(settings, state, node)
    total_bytes = sum(move.memory_bytes for move in planned)
    return DrainPlan(node, tuple(planned), tuple(stuck), total_bytes / rate / slots if rate else None)


def _moved_bytes_per_s(state: ClusterState) -> float:
    """Memory over time of the latest completed moves; 0 if there is none."""
    done = [move for move in state.migrations.values() if move.state is MigrationState.COMPLETED]
    latest = sorted(done, key=lambda move: move.number)[-_RATE_MOVES:]
    spans = [
        (move.memory_bytes, (move.figures.brownout_s or 0) + (move.figures.blackout_s or 0))
        for move in latest
        if move.figures is not None
    ]
    took_s = sum(span_s for _, span_s in spans)
    return sum(size for size, _ in spans) / took_s if took_s > 0 else 0.0
