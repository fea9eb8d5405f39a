"""What admins ask for: creating, starting, stopping, removing and moving VMs.

A request is refused as a whole, with the name of the rule, or accepted as a whole.
"""

from dataclasses import replace

from ferry_cluster import drain, membership, moves, ownership, requests, scale
from ferry_cluster.inputs import CancelMove, CreateVm, EvictNode, MigrateVm, RemoveVm, TurnOffVm, TurnOnVm
from ferry_cluster.placement import Room, Wish, check_host, choose_host
from ferry_cluster.records import MigrationRecord, Ownership, VmRecord
from ferry_cluster.refusals import no_migration, no_node, no_vm
from ferry_cluster.roles import forget_owner, only_owner_problem, rules_problem, vm_limit_problem
from ferry_cluster.state import Eviction
from ferry_cluster.turn import Turn
from ferry_types.errors import Refusal, refused
from ferry_types.events import NODE_EVICTED, VM_CHANGED
from ferry_types.messages import StopVm
from ferry_types.migrations import BEST, ENDED, MigrationState

EMPTYING_S_MAX = 60.0
"""What a node that is evicted by force gets to turn its VMs off."""


def _wait(turn: Turn, what: str, vm: str, request: int) -> None:
    key = (what, vm)
    turn.state.waiting[key] = (*turn.state.waiting.get(key, ()), request)


def on_create(turn: Turn, event: CreateVm) -> None:
    """A new VM, started at once unless told otherwise; answered when it runs."""
    name = event.spec.name
    vm = VmRecord(event.spec, wanted=event.start, unproven=event.start, rules=event.rules)
    chosen = _creation_problem(turn, vm) or _first_host(turn, vm, event.node)
    if isinstance(chosen, Refusal):
        turn.reply(event.request, chosen)
        return
    turn.write(Ownership(name, turn.state.epoch_floor))
    turn.write(vm)
    turn.log(VM_CHANGED, f"{name} was created", vm=name)
    if not chosen:
        turn.reply(event.request, name)
        return
    _wait(turn, "on", name, event.request)
    ownership.assign(turn, vm, chosen)


def _creation_problem(turn: Turn, vm: VmRecord) -> Refusal | None:
    if vm.spec.name in turn.state.vms:
        return refused("unique name", f"there is a VM {vm.spec.name} already", "choose another name")
    return vm_limit_problem(turn) or scale.vm_problem(turn.state, vm) or rules_problem(turn.state, vm)


def _first_host(turn: Turn, vm: VmRecord, node: str) -> str | Refusal:
    """Where a new VM starts; empty if it is not to."""
    if node and node not in turn.state.nodes:
        return no_node(node)
    if not vm.wanted:
        return ""
    room = Room.of(turn)
    return (check_host(room, Wish(vm), node) or node) if node else choose_host(room, Wish(vm))


def on_turn_on(turn: Turn, event: TurnOnVm) -> None:
    """Start a VM; answered when it runs."""
    vm = turn.state.vms.get(event.vm)
    if vm is None:
        turn.reply(event.request, no_vm(event.vm))
        return
    owner = turn.state.owners[event.vm]
    if owner.node is not None:
        rule = "vm stopping" if vm.stops else "vm off"
        what = "is being stopped" if vm.stops else "is on already"
        turn.reply(event.request, refused(rule, f"{event.vm} {what}, on {owner.node}"))
        return
    vm = replace(vm, wanted=True, failovers_us=(), given_up=False, failed_over=False)
    chosen = _first_host(turn, vm, event.node)
    if isinstance(chosen, Refusal):
        turn.reply(event.request, chosen)
        return
    turn.state.refused_by.pop(event.vm, None)
    _wait(turn, "on", event.vm, event.request)
    ownership.assign(turn, vm, chosen)


def on_turn_off(turn: Turn, event: TurnOffVm) -> None:
    """Turn a VM off; answered when its host has done so."""
    vm = turn.state.vms.get(event.vm)
    if vm is None:
        turn.reply(event.request, no_vm(event.vm))
        return
    move = turn.state.migration_of(event.vm)
    if move is not None:
        hint = f"wait for it, or cancel it: ferry migration cancel {move.id}"
        turn.reply(event.request, refused("one move at a time", f"{event.vm} is moving ({move.id})", hint))
        return
    owner = turn.state.owners[event.vm]
    if owner.node is None and not vm.wanted:
        turn.reply(event.request, refused("vm running", f"{event.vm} is off already"))
        return
    turn.write(replace(vm, wanted=False, unproven=False, reason="", starts_at_us=0, ousted=""))
    turn.answer_waiting("on", event.vm, refused("vm stopping", f"{event.vm} was stopped"))
    if owner.node is None:
        turn.reply(event.request, event.vm)
        return
    _wait(turn, "off", event.vm, event.request)
    turn.order(owner.node, StopVm(event.vm, owner.epoch))


def on_remove(turn: Turn, event: RemoveVm) -> None:
    """Delete a VM that is off."""
    vm = turn.state.vms.get(event.vm)
    if vm is None:
        turn.reply(event.request, no_vm(event.vm))
    elif turn.state.owners[event.vm].node is not None:
        turn.reply(
            event.request,
            refused("vm off", f"{event.vm} is on", f"stop it first: ferry vm stop {event.vm}"),
        )
    else:
        ownership.forget_vm(turn, vm)
        turn.answer_waiting("on", event.vm, refused("vm exists", f"{event.vm} was removed"))
        turn.log(VM_CHANGED, f"{event.vm} was removed", vm=event.vm)
        turn.reply(event.request, event.vm)


def on_migrate(turn: Turn, event: MigrateVm) -> None:
    """Queue a live migration; answered with its record (the plan alone with dry run)."""
    planned = _plan(turn, event)
    if isinstance(planned, MigrationRecord) and not event.dry_run:
        requests.enqueue(turn, planned)
        vm = turn.state.vms[planned.vm]
        if vm.failed_over:  # from now on it is where somebody has put it
            turn.write(replace(vm, failed_over=False))
    turn.reply(event.request, planned)


def _plan(turn: Turn, event: MigrateVm) -> MigrationRecord | Refusal:
    state = turn.state
    vm = state.vms.get(event.vm)
    if vm is None:
        return no_vm(event.vm)
    if event.to != BEST and event.to not in state.nodes:
        return no_node(event.to)
    if (problem := requests.move_problem(state, vm)) is not None:
        return problem
    target = requests.choose_target(Room.of(turn), vm, event.to)
    if isinstance(target, Refusal):
        return target
    return requests.make_move(turn, vm, target, event.options, event.token, event.requested_at_us)


def on_cancel(turn: Turn, event: CancelMove) -> None:
    """Cancel a move at any time before its commit."""
    move = turn.state.migrations.get(event.migration_id)
    if move is None:
        turn.reply(event.request, no_migration(event.migration_id))
    elif move.state in ENDED:
        turn.reply(event.request, refused("move under way", f"{move.id} is {move.state} already"))
    elif turn.state.is_committed(move):
        turn.reply(
            event.request,
            refused("before the commit", f"{move.id} is committed: {move.vm} belongs to {move.target} now"),
        )
    else:
        moves.end(turn, move, MigrationState.CANCELLED, "cancelled on request")
        turn.reply(event.request, turn.state.migrations[move.id])


def on_evict(turn: Turn, event: EvictNode) -> None:
    """Remove a node, dead or alive; answered with its name once its vote is gone.

    It must be without VMs; by force it is paused, and its VMs are turned off to start elsewhere.
    """
    node = turn.state.nodes.get(event.node)
    if node is None:
        turn.reply(event.request, no_node(event.node))
    elif node.name in turn.state.evicting:
        turn.reply(event.request, refused("node evicted", f"{node.name} is being evicted already"))
    elif (problem := _eviction_refusal(turn, node.name, force=event.force)) is not None:
        turn.reply(event.request, problem)
    else:
        timing = turn.settings.timing
        patience_s = timing.coordinator_span_s + 2 * timing.beat_s
        if event.force:
            patience_s += EMPTYING_S_MAX
            drain.pause(turn, node)
        pauses = event.force and not node.paused
        turn.state.evicting[node.name] = Eviction(event.request, turn.now + patience_s, event.force, pauses)


def finish_evictions(turn: Turn) -> None:
    """Let nodes go that have no vote any more: one that went with its vote would be missed for ever."""
    state = turn.state
    proposed = state.proposal.voters if state.proposal is not None else ()
    for name, eviction in list(state.evicting.items()):
        node = state.nodes[name]
        problem = _eviction_problem(turn, name)
        if problem is not None and eviction.force and turn.now < eviction.until:
            _oust_all(turn, name)
            continue
        problem = problem or only_owner_problem(state, name)
        if problem is None and node.uuid in (*state.quorum.voters, *proposed):
            if turn.now < eviction.until:
                continue
            why = f"no majority has agreed to take the vote of {name} from it"
            problem = refused("quorum", why, "ferry quorum show tells who votes, and what is under way")
        del state.evicting[name]
        if problem is not None and eviction.pauses:
            turn.write(replace(node, paused=False))
        if problem is None:
            forget_owner(turn, name)
            membership.forget(turn, node)
            turn.log(NODE_EVICTED, f"node {name} was evicted", name)
        turn.reply(eviction.request, problem or name)


def _eviction_refusal(turn: Turn, name: str, *, force: bool) -> Refusal | None:
    if (problem := only_owner_problem(turn.state, name)) is not None:
        return problem
    problem = _eviction_problem(turn, name)
    if problem is None or not force:
        return problem
    if not drain.takers(turn.state, turn.now, name):
        what = f"{name} has VMs, and no other node takes them"
        return refused("last node", what, "start or resume another node first, or stop the VMs")
    return None


def _oust_all(turn: Turn, node: str) -> None:
    """Turn off what is on the node, but for what is about to leave it live."""
    moving = {move.vm for move in turn.state.active_migrations()}
    for vm in turn.state.owned_by(node):
        if vm.spec.name not in moving:
            ownership.oust(turn, vm, f"its node {node} is being evicted")


def _eviction_problem(turn: Turn, name: str) -> Refusal | None:
    vms = [vm.spec.name for vm in turn.state.owned_by(name)]
    if vms:
        some = ", ".join(vms[:3]) + (f" and {len(vms) - 3} more" if len(vms) > 3 else "")
        hint = "move or stop them first: ferry vm migrate, ferry vm stop"
        return refused("node empty", f"{name} has VMs: {some}", hint)
    under_way = [move.id for move in turn.state.active_migrations() if name in (move.source, move.target)]
    if under_way:
        hint = f"wait for it, or cancel it: ferry migration cancel {under_way[0]}"
        return refused("node empty", f"{name} takes part in {', '.join(under_way)}", hint)
    return None
