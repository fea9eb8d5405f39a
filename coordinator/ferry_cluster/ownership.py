"""Who may run a VM: start, failover, refusal and stop (rules S1, D2, D4, L4, O1, O2).

Every function that changes an owner writes one ``Ownership`` record, which the turn guards with the
record that it replaces: one compare-and-set on (term, epoch).
"""

from collections.abc import Set
from dataclasses import replace

from ferry_cluster.placement import RULES, Room, Wish, choose_host
from ferry_cluster.placement import memory as memory_rule
from ferry_cluster.records import (
    EpochFloor,
    NodeRecord,
    Origin,
    Ownership,
    RaisedEpoch,
    VmRecord,
)
from ferry_cluster.turn import Turn
from ferry_types.errors import Refusal, refused
from ferry_types.events import (
    FAILOVER_THRESHOLD,
    ROLE_FAILED,
    VM_CHANGED,
    VM_FAILED,
    VM_FAILOVER,
    VM_OUSTED,
    VM_STAYS_OFF,
)
from ferry_types.messages import (
    EpochRaised,
    OrderRefused,
    RaiseEpoch,
    ResumeSource,
    RunVm,
    StartVm,
    StopVm,
    VmRunning,
    VmStopped,
)
from ferry_types.roles import Priority
from ferry_types.units import format_span

START_ORDER = {priority: rank for rank, priority in enumerate(Priority)}
"""Who starts first, and may oust those behind it."""


def in_start_order(vms: list[VmRecord]) -> list[VmRecord]:
    """High priority first, then by name."""
    return sorted(vms, key=lambda vm: (START_ORDER[vm.spec.priority], vm.spec.name))


def assign(turn: Turn, vm: VmRecord, node: str) -> None:
    """Give a VM to a live host, to boot it under a new epoch."""
    name = vm.spec.name
    record = turn.state.nodes[node]
    epoch = turn.state.owners[name].epoch + 1
    turn.write(Ownership(name, epoch, node, record.incarnation, Origin.BOOT))
    turn.write(replace(vm, reason="", starts_at_us=0, ousted=""))
    forget_run(turn, name)
    turn.order(node, StartVm(vm.spec, epoch))


def place(turn: Turn, room: Room, vm: VmRecord, exclude: Set[str] = frozenset()) -> Refusal | None:
    """Give a VM to the best host, or leave it without one and note why."""
    chosen = choose_host(room, Wish(vm), exclude)
    if isinstance(chosen, str):
        room.give(vm, chosen)
        assign(turn, vm, chosen)
        return None
    release(turn, vm, chosen.message)
    return chosen


def release(turn: Turn, vm: VmRecord, reason: str) -> None:
    """Take a VM from its owner and give it to nobody; the epoch rises, which voids the owner's image."""
    turn.write(Ownership(vm.spec.name, turn.state.owners[vm.spec.name].epoch + 1))
    turn.write(replace(vm, reason=reason, ousted=""))
    forget_run(turn, vm.spec.name)


def forget_run(turn: Turn, vm: str) -> None:
    """The VM is not known to run any more."""
    turn.state.running.pop(vm, None)
    turn.state.held -= {vm}
    turn.touch_vm(vm)


def oust(turn: Turn, vm: VmRecord, why: str) -> None:
    """Have a VM turned off that is wanted: it starts again where there is room, if it starts by itself."""
    owner = turn.state.owners[vm.spec.name]
    if owner.node is not None and not vm.stops:
        turn.write(replace(vm, ousted=why, wanted=vm.spec.priority is not Priority.NONE))
        turn.log(
            VM_OUSTED, f"{vm.spec.name} is being turned off on {owner.node}: {why}", owner.node, vm.spec.name
        )
        turn.order(owner.node, StopVm(vm.spec.name, owner.epoch))


def place_waiting(turn: Turn) -> None:
    """Try the VMs that are wanted and have no host; why a VM has none stays as it was noted first."""
    waiting = [
        vm
        for name, vm in turn.state.vms.items()
        if vm.wanted
        and turn.state.owners[name].node is None
        and vm.starts_at_us <= turn.state.wall_us
        and not vm.given_up
    ]
    if not waiting:
        return
    room = Room.of(turn)
    homeless, hopeless = set(), set()
    for vm in in_start_order(waiting):
        exclude = turn.state.refused_by.get(vm.spec.name, frozenset())
        kind = (vm.spec.memory_bytes, vm.spec.priority, vm.rules, exclude)
        if kind in hopeless:
            continue  # nothing becomes free while others are placed
        chosen = None if kind in homeless else choose_host(room, Wish(vm), exclude)
        if isinstance(chosen, str):
            room.give(vm, chosen)
            assign(turn, vm, chosen)
            continue
        homeless.add(kind)
        if not make_room(turn, room, vm, exclude):
            hopeless.add(kind)


def fail_over(turn: Turn, node: str) -> None:
    """Boot a lost node's VMs on the others, by priority."""
    room = Room.of(turn)
    for vm in in_start_order(turn.state.owned_by(node)):
        name = vm.spec.name
        if not vm.wanted:
            release(turn, vm, "")
            turn.answer_waiting("off", name, name)
        elif vm.spec.priority is Priority.NONE:
            reason = f"its node {node} was lost and it has no automatic start"
            release(turn, replace(vm, wanted=False), reason)
            turn.log(VM_STAYS_OFF, f"{name} stays off: node {node} was lost, priority none", node, name)
            turn.answer_waiting("on", name, refused("node up", f"{name} stays off: {reason}"))
        else:
            problem = fail_over_vm(turn, room, replace(vm, failed_over=True), f"node {node} was lost")
            if problem is not None:
                turn.log(ROLE_FAILED, f"{name} was on {node} and has no host: {problem.message}", node, name)
                turn.answer_waiting("on", name, problem)


def fail_over_vm(
    turn: Turn, room: Room, vm: VmRecord, why: str, exclude: Set[str] = frozenset()
) -> Refusal | None:
    """Boot a VM elsewhere, now or after its start delay; or leave it without a host, and say why.

    After too many failovers within its period it waits for an admin (the group's ``FailoverThreshold``).
    """
    name, wall_us, rules = vm.spec.name, turn.state.wall_us, vm.rules
    former = turn.state.owners[name].node or ""
    if rules.failover_threshold:
        since_us = wall_us - round(rules.failover_period_s * 1e6)
        recent = tuple(at_us for at_us in vm.failovers_us if since_us < at_us <= wall_us)
        is_too_often = len(recent) >= rules.failover_threshold
        vm = replace(vm, failovers_us=(*recent, wall_us), given_up=is_too_often)
    if vm.given_up:
        limit = f"{rules.failover_threshold} within {format_span(rules.failover_period_s)}"
        reason = f"{why}, and its failover threshold is exceeded: {limit}"
        release(turn, vm, reason)
        turn.log(FAILOVER_THRESHOLD, f"{name} is not failed over any more: {reason}", former, name)
        return refused("failover threshold", reason, f"start it yourself: ferry vm start {name}")
    if rules.start_delay_s:
        vm = replace(vm, starts_at_us=wall_us + round(rules.start_delay_s * 1e6))
        delay = f"it starts {rules.start_delay_s:g} s later"
        release(turn, vm, f"{why}; {delay}")
        turn.log(VM_FAILOVER, f"{name} fails over from {former}: {delay}", former, name)
        return None
    if (problem := place(turn, room, vm, exclude)) is None:
        owner = turn.state.owners[name]
        where = f"{name} fails over from {former} to {owner.node} under epoch {owner.epoch}"
        turn.log(VM_FAILOVER, where, owner.node or "", name)
    elif make_room(turn, room, turn.state.vms[name], exclude):
        turn.write(replace(turn.state.vms[name], reason=f"{why}; others are being turned off to make room"))
        return None
    return problem


# --- making room --------------------------------------------------------------------------------


def make_room(turn: Turn, room: Room, vm: VmRecord, exclude: Set[str]) -> bool:
    """Oust VMs of lower priority where only memory is short, if that is enough: few, and unimportant ones.

    Whether it helps, now or soon.
    """
    why = f"it makes room for {vm.spec.name}"
    if (kept := room.being_made_at(why)) is not None:
        room.give(vm, kept)
        return True
    found: list[tuple[tuple[int, int, str], list[VmRecord]]] = []
    for name, node in turn.state.nodes.items():
        victims = [] if name in exclude else _victims(room, vm, name)
        if victims and _only_memory_is_short(room, vm, node):
            most_important = min(START_ORDER[victim.spec.priority] for victim in victims)
            found.append(((-most_important, len(victims), name), victims))
    if not found:
        return False
    (_, _, chosen), victims = min(found, key=lambda one: one[0])
    for victim in victims:
        oust(turn, victim, why)
        room.take(victim, chosen)
        room.settled(chosen).remove(victim)
    room.give(vm, chosen)
    return True


def _only_memory_is_short(room: Room, vm: VmRecord, node: NodeRecord) -> bool:
    return all(rule is memory_rule or rule(room, Wish(vm), node) is None for rule in RULES)


def _victims(room: Room, vm: VmRecord, node: str) -> list[VmRecord]:
    """VMs of lower priority whose memory is enough; nobody if all of it is not."""
    rank, missing = START_ORDER[vm.spec.priority], vm.spec.memory_bytes - room.free_bytes(node)
    lower = [other for other in room.settled(node) if START_ORDER[other.spec.priority] > rank]
    if sum(other.spec.memory_bytes for other in lower) < missing:
        return []
    lower.sort(key=lambda one: (-START_ORDER[one.spec.priority], -one.spec.memory_bytes, one.spec.name))
    victims: list[VmRecord] = []
    for candidate in lower:
        if missing <= 0:
            break
        victims.append(candidate)
        missing -= candidate.spec.memory_bytes
    return victims


# --- orders and reports -------------------------------------------------------------------------


def repeat_order(turn: Turn, node: NodeRecord, owner: Ownership) -> None:
    """Tell an owner again what its ownership came from; a repeat is harmless (rule O1)."""
    vm = turn.state.vms[owner.vm]
    if vm.stops:
        turn.order(node.name, StopVm(owner.vm, owner.epoch))
    elif owner.origin is Origin.MOVE:
        turn.order(node.name, RunVm(owner.migration_id, owner.vm, owner.epoch))
    elif owner.origin in (Origin.ABORT, Origin.TAKE_BACK):
        order_resume(turn, owner)
    else:
        turn.order(node.name, StartVm(vm.spec, owner.epoch))


def order_resume(turn: Turn, owner: Ownership) -> None:
    """Have the source of a move run on; a take-back only if the target has not raised its epoch."""
    unless_raised = owner.epoch - 1 if owner.origin is Origin.TAKE_BACK else 0
    if owner.node is not None:
        turn.order(owner.node, ResumeSource(owner.migration_id, owner.vm, owner.epoch, unless_raised))


def on_raise_epoch(turn: Turn, node: NodeRecord, message: RaiseEpoch) -> None:
    """Compare and raise, in the array's stead (rule D4): only the present owner's own epoch, never down.

    Nor past an epoch that the owner's memory is older than.
    """
    held = turn.state.raised.get(message.vm, RaisedEpoch(message.vm, 0)).epoch
    overtaken = held > message.epoch or 0 < message.unless_raised <= held < message.epoch
    raised = turn.state.owns(node, message.vm, message.epoch) and not overtaken
    if raised and held < message.epoch:
        turn.write(RaisedEpoch(message.vm, message.epoch))
    turn.needs_term()
    turn.order(node.name, EpochRaised(message.vm, message.epoch, raised))


def on_vm_running(turn: Turn, node: NodeRecord, message: VmRunning) -> bool:
    """Note that a VM runs under its present epoch. False if it is not the owner who says so."""
    name = message.vm
    if not turn.state.owns(node, name, message.epoch):
        return False
    vm = turn.state.vms[name]
    first = turn.state.running.get(name) != message.epoch
    turn.state.running[name] = message.epoch
    turn.state.held -= {name}
    turn.state.refused_by.pop(name, None)
    turn.touch_vm(name)
    if vm.unproven:
        turn.write(replace(vm, unproven=False))
    if first:
        turn.log(VM_CHANGED, f"{name} runs on {node.name} under epoch {message.epoch}", node.name, name)
    turn.answer_waiting("on", name, name)
    return True


def on_vm_stopped(turn: Turn, node: NodeRecord, message: VmStopped) -> None:
    """The owner has turned the VM off."""
    if not turn.state.owns(node, message.vm, message.epoch):
        return
    vm = turn.state.vms[message.vm]
    turn.write(Ownership(message.vm, message.epoch))
    if vm.ousted:
        reason = f"it was turned off: {vm.ousted}"
        turn.write(replace(vm, ousted="", unproven=False, reason=reason))
        turn.answer_waiting("on", message.vm, refused("memory", f"{message.vm} does not start: {reason}"))
    forget_run(turn, message.vm)
    turn.log(VM_CHANGED, f"{message.vm} is off", node.name, message.vm)
    turn.answer_waiting("off", message.vm, message.vm)


def on_order_refused(turn: Turn, node: NodeRecord, message: OrderRefused) -> None:
    """A refused order moves the VM on (rules O1, O2), but never back to a host that refused it."""
    name = message.vm
    if not turn.state.owns(node, name, message.epoch):
        return
    vm = turn.state.vms[name]
    turn.log(
        VM_FAILED,
        f"{name} (virtual machine) failed on {node.name}: {message.reason.message}",
        node.name,
        name,
    )
    if not vm.wanted:
        release(turn, vm, "")
        turn.answer_waiting("off", name, name)
        return
    if vm.unproven:
        turn.answer_waiting("on", name, message.reason)
        forget_vm(turn, vm)
        return
    if turn.state.owners[name].origin is Origin.BOOT:
        turn.state.refused_by[name] = turn.state.refused_by.get(name, frozenset()) | {node.name}
    exclude = turn.state.refused_by.get(name, frozenset())
    why = f"{node.name} refused it: {message.reason.message}"
    room = Room.of(turn)
    room.take(vm, node.name)
    if (problem := fail_over_vm(turn, room, vm, why, exclude)) is not None:
        reason = f"{node.name}: {message.reason.message}; {problem.message}"
        turn.write(replace(turn.state.vms[name], reason=reason))
        turn.log(ROLE_FAILED, f"{name} has no host: {reason}", node.name, name)
        turn.answer_waiting("on", name, message.reason)


def forget_vm(turn: Turn, vm: VmRecord) -> None:
    """Delete a VM and what is kept about it; a later VM of that name starts above its epochs."""
    name = vm.spec.name
    owner = turn.state.owners[name]
    turn.write(EpochFloor(max(turn.state.epoch_floor, owner.epoch)))
    if (raised := turn.state.raised.get(name)) is not None:
        turn.delete(raised)
    turn.delete(owner)
    turn.delete(vm)
    forget_run(turn, name)
    turn.state.refused_by.pop(name, None)
