"""Starting, stopping, holding and discarding VM images (rules D2, L4, O1, O2)."""

from dataclasses import replace

from ferry_host.commands import (
    AnnounceGuest,
    BootImage,
    DestroyImage,
    DropIncoming,
    HaltImage,
    RunVcpu,
    StopOutgoing,
)
from ferry_host.inputs import Booted, BootFailed, GuestCrashed, Halted, QuantumRan
from ferry_host.state import INCOMING, Image
from ferry_host.turn import Turn
from ferry_types.errors import Refusal, refused
from ferry_types.messages import (
    DiscardVm,
    EpochRaised,
    GoOn,
    OrderRefused,
    StartVm,
    StopVm,
    VmStopped,
)
from ferry_types.units import format_size
from ferry_types.vms import ImagePhase, VmSpec

_MAY_CRASH = frozenset({ImagePhase.RUNNING, ImagePhase.SWITCHING})
"""Once the final copy is sent, the outcome of the move is the store's to tell."""


def remove(turn: Turn, image: Image) -> None:
    """Destroy an image at once, with whatever moves it."""
    del turn.state.images[image.name]
    if image.phase in INCOMING:
        turn.do(DropIncoming(image.arrived_by))
        return
    if image.outgoing is not None:
        turn.do(StopOutgoing(image.outgoing.migration_id))
    turn.do(DestroyImage(image.name))


def memory_problem(turn: Turn, spec: VmSpec) -> Refusal | None:
    """Why the host cannot hold one more image, or None."""
    total = turn.state.identity.capacity.memory_bytes
    free = total - turn.state.memory_used_bytes()
    if spec.memory_bytes <= free:
        return None
    return refused(
        "memory",
        f"{format_size(max(free, 0))} of {format_size(total)} are free, "
        f"{spec.name} needs {format_size(spec.memory_bytes)}",
    )


def is_refused(turn: Turn, vm: str, epoch: int) -> bool:
    """Repeat the refusal of an epoch that this host will never run."""
    known = turn.state.refused.get(vm)
    if known is None or epoch > known[0]:
        return False
    turn.report(OrderRefused(vm, epoch, known[1]))
    return True


def on_start(turn: Turn, order: StartVm) -> None:
    """Boot; an image of an older epoch is void by then."""
    name = order.spec.name
    if is_refused(turn, name, order.epoch):
        return
    image = turn.state.images.get(name)
    if image is not None:
        if image.epoch >= order.epoch:
            repeat_running(turn, image, order.epoch)
            return
        remove(turn, image)
    problem = memory_problem(turn, order.spec)
    if problem is not None:
        turn.refuse(name, order.epoch, problem)
        return
    turn.put(Image(order.spec, order.epoch, ImagePhase.BOOTING))
    turn.do(BootImage(order.spec, order.epoch))


def repeat_running(turn: Turn, image: Image, epoch: int) -> None:
    """Answer a repeated order with what it led to."""
    if image.epoch == epoch and image.phase is ImagePhase.RUNNING and image.ran_at_s is not None:
        turn.report(image.running(image.ran_at_s))


def on_booted(turn: Turn, event: Booted) -> None:
    """Memory is there: raise the epoch before any quantum (rule D2)."""
    image = turn.state.images.get(event.vm)
    if image is not None and image.epoch == event.epoch and image.phase is ImagePhase.BOOTING:
        turn.report(turn.step(image, ImagePhase.RAISING).raise_epoch())


def on_boot_failed(turn: Turn, event: BootFailed) -> None:
    """An order that cannot be carried out is refused for good (rule O2)."""
    image = turn.state.images.get(event.vm)
    if image is not None and image.epoch == event.epoch and image.phase is ImagePhase.BOOTING:
        del turn.state.images[event.vm]
        turn.refuse(event.vm, event.epoch, event.reason)


def on_epoch_raised(turn: Turn, answer: EpochRaised) -> None:
    """The storage has answered: run, or drop an image whose epoch was overtaken."""
    image = turn.state.images.get(answer.vm)
    if image is None or image.epoch != answer.epoch or image.phase is not ImagePhase.RAISING:
        return
    if not answer.raised:
        remove(turn, image)
        why = f"epoch {answer.epoch} of {answer.vm} has been overtaken"
        if image.unless_raised:
            why = f"{answer.vm} may have run elsewhere under epoch {image.unless_raised}: this image is old"
        turn.refuse(answer.vm, answer.epoch, refused("raised epoch", why))
        return
    image = turn.step(image, ImagePhase.RUNNING)
    if not image.held:
        turn.do(RunVcpu(image.name, image.epoch))


def on_quantum_ran(turn: Turn, event: QuantumRan) -> None:
    """Report that the VM runs; the first time under its epoch, announce it to the network."""
    image = turn.state.images.get(event.vm)
    if image is not None and image.epoch == event.epoch and image.phase is ImagePhase.RUNNING:
        has_begun = image.ran_at_s is None
        turn.report(turn.put(replace(image, ran_at_s=event.at_s)).running(event.at_s))
        if has_begun:
            turn.do(AnnounceGuest(event.vm, event.epoch))


def on_guest_crashed(turn: Turn, event: GuestCrashed) -> None:
    """What cannot run is refused for good, so that the VM starts anew elsewhere (rules O1, O2)."""
    image = turn.state.images.get(event.vm)
    if image is None or image.epoch != event.epoch or image.phase not in _MAY_CRASH:
        return
    remove(turn, image)
    if image.outgoing is not None:
        turn.end_move(image.outgoing.migration_id, event.reason)
    turn.refuse(event.vm, event.epoch, event.reason)


def on_go_on(turn: Turn, order: GoOn) -> None:
    """The epoch of a held VM still stands (rule L4)."""
    image = turn.state.images.get(order.vm)
    if image is None or image.epoch != order.epoch:
        return
    if image.phase is ImagePhase.RAISING:
        turn.report(image.raise_epoch())
    if image.held:
        image = turn.put(replace(image, held=False))
        if image.phase is ImagePhase.RUNNING:
            turn.do(RunVcpu(image.name, image.epoch))


def on_stop(turn: Turn, order: StopVm) -> None:
    """Turn a VM off; nothing to turn off is off."""
    image = turn.state.images.get(order.vm)
    if image is not None and image.epoch > order.epoch:
        return
    if image is not None and image.epoch == order.epoch and image.phase not in INCOMING:
        if image.phase is not ImagePhase.STOPPING:
            if image.outgoing is not None:
                turn.do(StopOutgoing(image.outgoing.migration_id))
            turn.put(replace(image, phase=ImagePhase.STOPPING, outgoing=None))
            turn.do(HaltImage(order.vm, order.epoch))
        return
    if image is not None:
        remove(turn, image)
    _stopped(turn, order.vm, order.epoch)


def on_halted(turn: Turn, event: Halted) -> None:
    """The memory is gone."""
    image = turn.state.images.get(event.vm)
    if image is not None and image.epoch == event.epoch and image.phase is ImagePhase.STOPPING:
        del turn.state.images[event.vm]
        _stopped(turn, event.vm, event.epoch)


def _stopped(turn: Turn, vm: str, epoch: int) -> None:
    turn.never_run(vm, epoch, refused("epoch ended", f"{vm} was stopped under epoch {epoch}"))
    turn.report(VmStopped(vm, epoch))


def on_discard(turn: Turn, order: DiscardVm) -> None:
    """Destroy what is held under an overtaken epoch."""
    image = turn.state.images.get(order.vm)
    if image is not None and image.epoch <= order.epoch and image.phase not in INCOMING:
        remove(turn, image)
