"""The host core's driver: one event loop feeds it, and carries out its commands at once.

``submit`` is synchronous: when it returns, the commands are carried out or under way. Guests, moves and
the uplink call it from the event loop only; vCPU threads hand their news over with
``call_soon_threadsafe``.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from ferry_agent.ballots import Ballots
from ferry_agent.failpoints import Failpoints
from ferry_agent.gate import LeaseGate
from ferry_agent.guest.trace import RunTrace
from ferry_agent.incoming import IncomingMoves
from ferry_agent.outgoing import OutgoingMoves
from ferry_agent.rack import Rack
from ferry_host import commands, inputs
from ferry_host.host import Host
from ferry_host.scale import Scale
from ferry_host.state import HostIdentity
from ferry_types import messages
from ferry_types.eras import RULES, Era
from ferry_types.errors import FerryError, failed
from ferry_types.messages import HostEnvelope, HostOrder
from ferry_types.networks import Network
from ferry_types.quorum import VotingRecord
from ferry_types.vms import ImagePhase

_ORDER_FAILPOINTS: Mapping[type, str] = {
    messages.PrepareIncoming: "target.preparing",
    messages.RunVm: "target.committed",
    messages.EpochRaised: "target.raised",
    messages.TargetRuns: "source.releasing",
}
"""Orders that a failpoint can hold back."""

_log = structlog.get_logger("host")


class HostRuntime:
    """The host core with its hands: guests, moves, lease gate and uplink."""

    def __init__(
        self,
        identity: HostIdentity,
        gate: LeaseGate,
        trace: RunTrace | None,
        failpoints: Failpoints,
        directory: Path,
        votes: VotingRecord | None,
    ) -> None:
        """``directory``: the data directory. ``votes``: what a former life has kept, if there was one."""
        self.host = Host(identity, votes)
        scale = Scale(identity.capacity.scale)
        self.rack = rack = Rack(gate, trace, self._on_first_quantum, self._on_crash, scale)
        self.failpoints = failpoints
        self.incoming = IncomingMoves(rack, failpoints, self.submit, self.renew_lease)
        self.outgoing = OutgoingMoves(rack, failpoints, self.submit)
        self.ballots = ballots = Ballots(directory, self.submit)
        self.send: Callable[[HostEnvelope], None] = lambda _envelope: None
        self.on_networks: Callable[[tuple[Network, ...]], None] = lambda _networks: None
        """Told the cluster's networks, at every welcome."""
        self.announce: Callable[[commands.AnnounceGuest], None] = lambda _command: None
        """Tells watchers that a guest has begun to run here; set once there is a bus."""
        self.cluster = ""
        self.evicted = False
        """Set once the cluster has sent this host away for good: it leaves nothing on the bus."""
        self.welcomed = asyncio.Event()
        """Set once the coordinator has admitted this host; ``cluster`` is known then."""
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self._events: deque[inputs.Event] = deque()
        self._busy = False
        self._beat: asyncio.Task[None] | None = None
        self._lease_timer: asyncio.TimerHandle | None = None
        self._renewed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._actions: Mapping[type, Callable[[Any], None]] = {
            commands.Report: self._report,
            commands.SetDeadline: self._set_deadline,
            commands.SetBeat: self._set_beat,
            commands.BootImage: self._boot,
            commands.RunVcpu: lambda command: rack.run(command.vm, command.epoch),
            commands.HoldVcpu: lambda command: rack.hold(command.vm),
            commands.HaltImage: self._halt,
            commands.DestroyImage: self._destroy,
            commands.AllocateIncoming: self.incoming.allocate,
            commands.DropIncoming: lambda command: self.incoming.drop(command.migration_id),
            commands.AdoptIncoming: self.incoming.adopt,
            commands.StartOutgoing: lambda command: self.outgoing.start(command.order),
            commands.SwitchOver: lambda command: self.outgoing.switch_over(command.migration_id),
            commands.SendFinal: lambda command: self.outgoing.permit_final(command.migration_id),
            commands.StopOutgoing: lambda command: self.outgoing.stop(command.migration_id),
            commands.ReleaseSource: self.outgoing.release,
            commands.AnnounceGuest: self._announce,
            commands.KeepVotes: ballots.keep,
            commands.AnswerPromise: ballots.answer,
            commands.AskPromise: ballots.ask,
            commands.ReadWitness: lambda command: ballots.read_witness(command, self.cluster),
            commands.ReplaceWitness: lambda command: ballots.replace_witness(command, self.cluster),
        }

    # --- events -----------------------------------------------------------------------------------

    def submit(self, event: inputs.Event) -> None:
        """Have the core handle an event and carry out what it asks for. Call it from the event loop only."""
        self._events.append(event)
        if self._busy:
            return  # called while a command is carried out: its turn comes right after
        self._busy = True
        try:
            while self._events:
                event = self._events.popleft()
                for command in self.host.handle(event, time.monotonic()):
                    self._actions[type(command)](command)
        finally:
            self._busy = False

    async def renew_lease(self) -> None:
        """Ask for another stretch of lease out of turn, and return once one is granted."""
        self._renewed.clear()
        self.submit(inputs.Beat())
        await self._renewed.wait()

    def on_order(self, order: HostOrder) -> None:
        """Take an order from the uplink."""
        failpoint = _ORDER_FAILPOINTS.get(type(order.body))
        if failpoint is not None and self.failpoints.enabled:
            self._spawn(self._submit_behind(failpoint, order))
        else:
            self.submit(inputs.OrderReceived(order))

    async def _submit_behind(self, failpoint: str, order: HostOrder) -> None:
        try:
            await self.failpoints.reach(failpoint)
        except FerryError as error:
            _log.warning("order dropped by a failpoint", failpoint=failpoint, reason=str(error))
            return
        self.submit(inputs.OrderReceived(order))

    async def close(self) -> None:
        """Stop guests and moves; the core is not asked any more."""
        if self._beat is not None:
            self._beat.cancel()
        if self._lease_timer is not None:
            self._lease_timer.cancel()
        self._gate.deadline_s = None
        await self.ballots.close()
        await self.outgoing.close()
        self.incoming.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.rack.close()

    def _on_first_quantum(self, vm: str, epoch: int, at_s: float) -> None:
        """Called from a vCPU's thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self.submit, inputs.QuantumRan(vm, epoch, at_s))

    def _on_crash(self, vm: str, epoch: int, error: Exception) -> None:
        """Called from a vCPU's thread."""
        _log.error("a guest crashed", vm=vm, epoch=epoch, exc_info=error)
        reason = failed(f"its guest crashed ({type(error).__name__}: {error})", "the agent's log has more")
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(self.submit, inputs.GuestCrashed(vm, epoch, reason))

    # --- commands ---------------------------------------------------------------------------------

    def _report(self, command: commands.Report) -> None:
        self.send(command.envelope)

    def _announce(self, command: commands.AnnounceGuest) -> None:
        self.announce(command)

    def _set_deadline(self, command: commands.SetDeadline) -> None:
        self._gate.deadline_s = command.deadline_s
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None
        if command.deadline_s is None:
            _log.warning("the lease has run out: guests are paused", reason=command.because)
        else:
            delay_s = command.deadline_s - time.monotonic()
            self._lease_timer = self._loop.call_later(
                max(0.0, delay_s), lambda: self.submit(inputs.LeaseTimer())
            )
            self.rack.poke()
            self._renewed.set()

    def _set_beat(self, command: commands.SetBeat) -> None:
        self.cluster = command.cluster
        self.outgoing.rules = RULES[Era(command.era)]
        self.on_networks(command.networks)
        self.welcomed.set()
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._loop.create_task(self._keep_beat(command.beat_s))

    async def _keep_beat(self, beat_s: float) -> None:
        while True:
            self.submit(inputs.Beat())
            await asyncio.sleep(beat_s)

    def _boot(self, command: commands.BootImage) -> None:
        self._spawn(self._boot_image(command))

    async def _boot_image(self, command: commands.BootImage) -> None:
        name, epoch = command.spec.name, command.epoch
        try:
            image = await self.rack.boot(command.spec, epoch)
        except FerryError as error:
            self.submit(inputs.BootFailed(name, epoch, error.refusal))
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the VM must not stay "starting" for ever
            _log.error("an image could not be made", vm=name, exc_info=error)
            reason = failed(f"the image of {name} could not be made: {error}", "the agent's log has more")
            self.submit(inputs.BootFailed(name, epoch, reason))
            return
        wanted = self.host.state.images.get(name)
        if wanted is None or (wanted.epoch, wanted.phase) != (epoch, ImagePhase.BOOTING):
            await image.destroy()  # stopped or overtaken while its memory was filled
            return
        self.rack.add(image)
        self.submit(inputs.Booted(name, epoch))

    def _halt(self, command: commands.HaltImage) -> None:
        image = self.rack.take(command.vm)

        async def halt() -> None:
            if image is not None:
                await image.destroy()
            self.submit(inputs.Halted(command.vm, command.epoch))

        self._spawn(halt())

    def _destroy(self, command: commands.DestroyImage) -> None:
        image = self.rack.take(command.vm)
        if image is not None:
            self._spawn(image.destroy())

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a task of the host failed", exc_info=task.exception())
