"""Live migration at the host: source and target (section Switchover of the ownership protocol).

Before the final copy is sent, any failure resumes the source. Once it is sent, only a committed abort
does, or a committed take-back whose compare-and-raise finds that the target has raised nothing; a source
whose streams break then asks, which is to propose abort. Neither side ever times out into running.
"""

from dataclasses import replace

from ferry_host.commands import (
    AdoptIncoming,
    AllocateIncoming,
    HoldVcpu,
    ReleaseSource,
    RunVcpu,
    SendFinal,
    StartOutgoing,
    StopOutgoing,
    SwitchOver,
)
from ferry_host.images import is_refused, memory_problem, remove, repeat_running
from ferry_host.inputs import (
    FinalCopyDue,
    IncomingAllocated,
    IncomingComplete,
    IncomingFailed,
    OutgoingFailed,
    OutgoingProgress,
    SourceGone,
    SwitchDue,
)
from ferry_host.state import Image, Outgoing
from ferry_host.turn import Turn
from ferry_types.errors import failed, refused
from ferry_types.messages import (
    Armed,
    ArmHandOff,
    BeginOutgoing,
    CancelMigration,
    IncomingPrepared,
    PrepareIncoming,
    ProposeAbort,
    ResumeSource,
    RunVm,
    SourceReleased,
    TargetReady,
    TargetRuns,
)
from ferry_types.migrations import HandOffTimes, MigrationFigures
from ferry_types.vms import ImagePhase

# --- target ---------------------------------------------------------------------------------------


def on_prepare(turn: Turn, order: PrepareIncoming) -> None:
    """Make room for a VM that will arrive."""
    if turn.repeat_end(order.migration_id):
        return
    arriving = turn.state.incoming(order.migration_id)
    if arriving is not None:
        if arriving.phase is ImagePhase.RECEIVING:
            turn.report(IncomingPrepared(order.migration_id))
        return
    name = order.spec.name
    stale = turn.state.images.get(name)
    if stale is not None and stale.epoch < order.epoch and stale.outgoing is None:
        remove(turn, stale)
        stale = None
    problem = memory_problem(turn, order.spec)
    if stale is not None:
        problem = refused("one image", f"this host still holds {name} in phase {stale.phase}")
    if problem is not None:
        turn.end_move(order.migration_id, problem)
        return
    turn.put(Image(order.spec, order.epoch, ImagePhase.PREPARING, arrived_by=order.migration_id))
    turn.do(AllocateIncoming(order.migration_id, order.token, order.spec, order.epoch))


def on_allocated(turn: Turn, event: IncomingAllocated) -> None:
    """The memory is there."""
    image = turn.state.incoming(event.migration_id)
    if image is not None and image.phase is ImagePhase.PREPARING:
        turn.step(image, ImagePhase.RECEIVING)
        turn.report(IncomingPrepared(event.migration_id))


def on_complete(turn: Turn, event: IncomingComplete) -> None:
    """READY."""
    image = turn.state.incoming(event.migration_id)
    if image is not None and image.phase is ImagePhase.RECEIVING:
        turn.put(replace(image, phase=ImagePhase.READY, ready_at_s=turn.now))
        turn.report(TargetReady(event.migration_id))


def on_incoming_failed(turn: Turn, event: IncomingFailed) -> None:
    """The attempt is over here; the memory goes."""
    image = turn.state.incoming(event.migration_id)
    if image is not None:
        remove(turn, image)
        turn.end_move(event.migration_id, event.reason)


def _is_repeated(turn: Turn, vm: str, epoch: int) -> bool:
    """Answer an outcome that was told before with what it has led to."""
    if is_refused(turn, vm, epoch):
        return True
    image = turn.state.images.get(vm)
    if image is None or image.epoch < epoch:
        return False
    if image.phase is ImagePhase.RAISING:
        turn.report(image.raise_epoch())
    repeat_running(turn, image, epoch)
    return True


def on_run(turn: Turn, order: RunVm) -> None:
    """The commit: adopt the image and raise its epoch, or refuse the epoch for good (rule O2)."""
    if _is_repeated(turn, order.vm, order.epoch):
        return
    image = turn.state.images.get(order.vm)
    if image is None or image.phase is not ImagePhase.READY or image.arrived_by != order.migration_id:
        if image is not None:
            remove(turn, image)
        reason = refused("ready target", f"this host does not hold {order.vm} ready for {order.migration_id}")
        turn.refuse(order.vm, order.epoch, reason)
        return
    hand_off = HandOffTimes(image.ready_at_s, turn.now)
    image = turn.put(replace(image, phase=ImagePhase.RAISING, epoch=order.epoch, hand_off=hand_off))
    turn.report(image.raise_epoch())
    turn.do(AdoptIncoming(order.migration_id, order.vm, order.epoch))


# --- source ---------------------------------------------------------------------------------------


def on_begin(turn: Turn, order: BeginOutgoing) -> None:
    """Start to copy a running VM."""
    if turn.repeat_end(order.migration_id):
        return
    image = turn.state.images.get(order.vm)
    if image is not None and image.outgoing is not None:
        if image.outgoing.migration_id != order.migration_id:
            problem = refused("one move at a time", f"{order.vm} is leaving already")
            turn.end_move(order.migration_id, problem)
    elif image is None or image.phase is not ImagePhase.RUNNING or image.held or image.epoch != order.epoch:
        problem = refused("vm running", f"{order.vm} does not run here under epoch {order.epoch}")
        turn.end_move(order.migration_id, problem)
    else:
        turn.put(replace(image, outgoing=Outgoing(order.migration_id)))
        turn.do(StartOutgoing(order))


def on_progress(turn: Turn, event: OutgoingProgress) -> None:
    """Pass it on."""
    if turn.state.leaving(event.progress.migration_id) is not None:
        turn.report(event.progress)


def on_switch_due(turn: Turn, event: SwitchDue) -> None:
    """Have the hand-off armed while the guest still runs."""
    image = turn.state.leaving(event.migration_id)
    if image is not None and image.outgoing is not None and image.phase is ImagePhase.RUNNING:
        turn.put(replace(image, outgoing=replace(image.outgoing, switch_due=True)))
        turn.report(ArmHandOff(event.migration_id))


def on_armed(turn: Turn, order: Armed) -> None:
    """The guest may be paused."""
    image = turn.state.leaving(order.migration_id)
    if image is not None and image.phase is ImagePhase.RUNNING:
        turn.step(image, ImagePhase.SWITCHING)
        turn.do(SwitchOver(order.migration_id))


def on_final_due(turn: Turn, event: FinalCopyDue) -> None:
    """The point of no return: from here on the image awaits the outcome."""
    image = turn.state.leaving(event.migration_id)
    if image is not None and image.phase is ImagePhase.SWITCHING:
        turn.step(image, ImagePhase.AWAITING)
        turn.do(SendFinal(event.migration_id))


def on_outgoing_failed(turn: Turn, event: OutgoingFailed) -> None:
    """Before the final copy: run on. After it: ask, which is to propose abort."""
    image = turn.state.leaving(event.migration_id)
    if image is None or image.outgoing is None:
        return
    if image.phase is ImagePhase.AWAITING:
        turn.put(replace(image, outgoing=replace(image.outgoing, broken=event.reason.message)))
        turn.report(ProposeAbort(event.migration_id, event.reason.message))
        return
    give_up_outgoing(turn, image)
    turn.end_move(event.migration_id, event.reason)


def give_up_outgoing(turn: Turn, image: Image) -> None:
    """End an attempt whose final copy was not sent; the source runs on."""
    if image.outgoing is None:
        return
    turn.do(StopOutgoing(image.outgoing.migration_id))
    paused = image.phase is ImagePhase.SWITCHING
    image = turn.put(replace(image, phase=ImagePhase.RUNNING, outgoing=None))
    if paused and not image.held:
        turn.do(RunVcpu(image.name, image.epoch))


def on_cancel(turn: Turn, order: CancelMigration) -> None:
    """Drop the attempt, unless its outcome is the store's to tell."""
    arriving = turn.state.incoming(order.migration_id)
    if arriving is not None:
        remove(turn, arriving)
        turn.remember_end(order.migration_id, failed(order.reason))
    leaving = turn.state.leaving(order.migration_id)
    if leaving is not None and leaving.phase is not ImagePhase.AWAITING:
        give_up_outgoing(turn, leaving)
        turn.remember_end(order.migration_id, failed(order.reason))


def on_resume(turn: Turn, order: ResumeSource) -> None:
    """The abort or the take-back is committed: raise the new epoch, then run (rule D2)."""
    if _is_repeated(turn, order.vm, order.epoch):
        return
    image = turn.state.images.get(order.vm)
    if image is None or image.phase not in (
        ImagePhase.RUNNING,
        ImagePhase.SWITCHING,
        ImagePhase.AWAITING,
    ):
        reason = refused("source image", f"this host does not hold {order.vm} any more")
        turn.refuse(order.vm, order.epoch, reason)
        return
    if image.outgoing is not None:
        turn.do(StopOutgoing(image.outgoing.migration_id))
    turn.do(HoldVcpu(image.name))
    image = turn.put(
        replace(
            image,
            phase=ImagePhase.RAISING,
            epoch=order.epoch,
            held=False,
            arrived_by="",
            hand_off=None,
            outgoing=None,
            ran_at_s=None,
            unless_raised=order.unless_raised,
        )
    )
    turn.report(image.raise_epoch())


def on_target_runs(turn: Turn, order: TargetRuns) -> None:
    """The VM runs elsewhere: the image may go. Nothing to release is released (in an earlier life)."""
    image = turn.state.leaving(order.migration_id)
    if image is not None and image.phase is ImagePhase.AWAITING:
        del turn.state.images[image.name]
        turn.do(
            ReleaseSource(
                order.migration_id,
                order.vm,
                order.epoch,
                order.first_quantum_at_s,
                order.hand_off,
                order.echo_address,
            )
        )
    elif not turn.repeat_end(order.migration_id):
        turn.end_move(order.migration_id, SourceReleased(order.migration_id, MigrationFigures()))


def on_source_gone(turn: Turn, event: SourceGone) -> None:
    """Report the end, with the figures."""
    turn.end_move(event.migration_id, SourceReleased(event.migration_id, event.figures))
