"""Who may run a VM: start, failover, refusal and stop (rules S1, D2, D4, L4, O1, O2).

Every function that changes an owner writes one ``Ownership`` record, which the turn guards with the
record that it replaces: one compare-and-set on (term, epoch).
"""

from collections.abc import Set
from dataclasses import replace

from ferry_cluster.placement import choose_host
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
from ferry_types.events import ROLE_FAILED, VM_CHANGED, VM_FAILOVER
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

_START_ORDER = {priority: rank for rank, priority in enumerate(Priority)}


def in_start_order(vms: list[VmRecord]) -> list[VmRecord]:
    """High priority first, then by name."""
    return sorted(vms, key=lambda vm: (_START_ORDER[vm.spec.priority], vm.spec.name))


def assign(turn: Turn, vm: VmRecord, node: str) -> None:
    """Give a VM to a live host, to boot it under a new epoch."""
    name = vm.spec.name
    record = turn.state.nodes[node]
    epoch = turn.state.owners[name].epoch + 1
    turn.write(Ownership(name, epoch, node, record.incarnation, Origin.BOOT))
    turn.write(replace(vm, reason=""))
    forget_run(turn, name)
    turn.order(node, StartVm(vm.spec, epoch))


def place(turn: Turn, vm: VmRecord, exclude: Set[str] = frozenset()) -> Refusal | None:
    """Give a VM to the best host, or leave it without one and note why."""
    chosen = choose_host(turn.state, turn.now, vm.spec.memory_bytes, exclude)
    if isinstance(chosen, str):
        assign(turn, vm, chosen)
        return None
    release(turn, vm, chosen.message)
    return chosen


def release(turn: Turn, vm: VmRecord, reason: str) -> None:
    """Take a VM from its owner and give it to nobody; the epoch rises, which voids the owner's image."""
    turn.write(Ownership(vm.spec.name, turn.state.owners[vm.spec.name].epoch + 1))
    turn.write(replace(vm, reason=reason))
    forget_run(turn, vm.spec.name)


def forget_run(turn: Turn, vm: str) -> None:
    """The VM is not known to run any more."""
    turn.state.running.pop(vm, None)
    turn.state.held -= {vm}
    turn.touch_vm(vm)


def place_waiting(turn: Turn) -> None:
    """Try the VMs that are wanted and have no host; why a VM has none stays as it was noted first."""
    waiting = [
        vm for name, vm in turn.state.vms.items() if vm.wanted and turn.state.owners[name].node is None
    ]
    for vm in in_start_order(waiting):
        exclude = turn.state.refused_by.get(vm.spec.name, frozenset())
        chosen = choose_host(turn.state, turn.now, vm.spec.memory_bytes, exclude)
        if isinstance(chosen, str):
            assign(turn, vm, chosen)


def fail_over(turn: Turn, node: str) -> None:
    """Boot a lost node's VMs on the others, by priority."""
    for vm in in_start_order(turn.state.owned_by(node)):
        name = vm.spec.name
        if not vm.wanted:
            release(turn, vm, "")
            turn.answer_waiting("off", name, name)
        elif vm.spec.priority is Priority.NONE:
            reason = f"its node {node} was lost and it has no automatic start"
            release(turn, replace(vm, wanted=False), reason)
            turn.log(VM_FAILOVER, f"{name} stays off: node {node} was lost, priority none", node, name)
            turn.answer_waiting("on", name, refused("node up", f"{name} stays off: {reason}"))
        elif (problem := place(turn, vm)) is None:
            owner = turn.state.owners[name]
            turn.log(
                VM_FAILOVER,
                f"{name} fails over from {node} to {owner.node} under epoch {owner.epoch}",
                owner.node or "",
                name,
            )
        else:
            turn.log(ROLE_FAILED, f"{name} was on {node} and has no host: {problem.message}", node, name)
            turn.answer_waiting("on", name, problem)


def repeat_order(turn: Turn, node: NodeRecord, owner: Ownership) -> None:
    """Tell an owner again what its ownership came from; a repeat is harmless (rule O1)."""
    vm = turn.state.vms[owner.vm]
    if not vm.wanted:
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
    turn.write(Ownership(message.vm, message.epoch))
    forget_run(turn, message.vm)
    turn.log(VM_CHANGED, f"{message.vm} is off", node.name, message.vm)
    turn.answer_waiting("off", message.vm, message.vm)


def on_order_refused(turn: Turn, node: NodeRecord, message: OrderRefused) -> None:
    """A refused order moves the VM on (rules O1, O2), but never back to a host that refused it."""
    name = message.vm
    if not turn.state.owns(node, name, message.epoch):
        return
    vm = turn.state.vms[name]
    turn.log(VM_FAILOVER, f"{node.name} refused {name}: {message.reason.message}", node.name, name)
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
    if (problem := place(turn, vm, turn.state.refused_by.get(name, frozenset()))) is not None:
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
