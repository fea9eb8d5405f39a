"""What an agent process does for its core: boots, vCPUs, both sides of a move.

Here it only takes time, and may fail.
"""

from collections.abc import Callable, Mapping, Set

from ferry_host import commands, inputs
from ferry_sim.clockwork import Clockwork
from ferry_sim.processes import Agent, Memory
from ferry_types.errors import failed
from ferry_types.migrations import MigrationFigures
from ferry_types.vms import ImagePhase

Feed = Callable[[Agent, inputs.Event], None]


class Shell:
    """All agents' own parts. ``trouble``: the probability that a step fails.

    ``unbootable``: VMs whose boots all fail. ``rate_bytes_per_s``: at which memory is copied; 0: in no time.
    ``severed``: (sender, receiver) between whom nothing passes.
    """

    def __init__(
        self,
        clockwork: Clockwork,
        agents: Mapping[str, Agent],
        feed: Feed,
        severed: Set[tuple[str, str]] = frozenset(),
    ) -> None:
        self.trouble = 0.0
        self.unbootable: set[str] = set()
        self.rate_bytes_per_s = 0
        self._clockwork = clockwork
        self._agents = agents
        self._feed = feed
        self._severed = severed

    def feed_later(self, agent: Agent, event: inputs.Event) -> None:
        """A host hears of something after a short time."""
        what = (agent.incarnation, event)
        self._clockwork.later(self._clockwork.delay(), lambda: self._feed(agent, event), what)

    def carry_out(self, agent: Agent, command: commands.Command) -> None:
        """Do what the core asks for, except for talking and keeping the lease."""
        match command:
            case commands.AllocateIncoming() | commands.DropIncoming() | commands.AdoptIncoming():
                self._act_as_target(agent, command)
            case (
                commands.StartOutgoing()
                | commands.SwitchOver()
                | commands.SendFinal()
                | commands.StopOutgoing()
                | commands.ReleaseSource()
            ):
                self._act_as_source(agent, command)
            case _:
                self._act(agent, command)

    # --- images -----------------------------------------------------------------------------------

    def _act(self, agent: Agent, command: commands.Command) -> None:
        clockwork = self._clockwork
        match command:
            case commands.BootImage():
                name, epoch = command.spec.name, command.epoch
                if name in self.unbootable or clockwork.happens(self.trouble):
                    self.feed_later(agent, inputs.BootFailed(name, epoch, failed("no such file")))
                else:
                    clockwork.later(
                        clockwork.delay(),
                        lambda: agent.do(lambda: self._booted(agent, name, epoch)),
                        (agent.incarnation, "boots", name, epoch),
                    )
            case commands.RunVcpu():
                assert command.vm in agent.memories, f"{command.vm} has no memory on {agent.name}"
                agent.vcpus[command.vm] = command.epoch
                agent.resumed.add(command.vm)
                ran_at_s = agent.clock(clockwork.now)
                self.feed_later(agent, inputs.QuantumRan(command.vm, command.epoch, ran_at_s))
            case commands.HoldVcpu():
                agent.vcpus.pop(command.vm, None)
            case commands.DestroyImage():
                _destroy(agent, command.vm)
            case commands.HaltImage():
                _destroy(agent, command.vm)
                self.feed_later(agent, inputs.Halted(command.vm, command.epoch))

    def _booted(self, agent: Agent, vm: str, epoch: int) -> None:
        image = agent.host.state.images.get(vm)
        if image is not None and (image.epoch, image.phase) == (epoch, ImagePhase.BOOTING):
            agent.memories[vm] = Memory(epoch)
        self._feed(agent, inputs.Booted(vm, epoch))

    def crash_guest(self, agent: Agent, vm: str) -> None:
        """The guest's program fails; the host hears of it from the vCPU's thread."""
        self.feed_later(agent, inputs.GuestCrashed(vm, agent.vcpus[vm], failed("its guest crashed")))

    # --- moves ------------------------------------------------------------------------------------

    def break_moves_with(self, dead: Agent) -> None:
        """The others notice that the streams of their moves with a host that died have ended."""
        for other in self._agents.values():
            for migration_id, (_, target) in list(other.leaving.items()):
                if target == dead.name:
                    self.break_move(other, migration_id)
            for migration_id in list(other.arriving):
                if migration_id in dead.leaving:
                    self.break_move(other, migration_id)

    def break_moves_between(self, one: str, other: str) -> None:
        """The streams of all moves between two hosts end, and both notice."""
        for source, target in ((one, other), (other, one)):
            for migration_id, (_, to) in list(self._agents[source].leaving.items()):
                if to == target:
                    self.break_move(self._agents[target], migration_id)
                    self.break_move(self._agents[source], migration_id)

    def _is_severed(self, one: str, other: str) -> bool:
        return (one, other) in self._severed or (other, one) in self._severed

    def break_move(self, agent: Agent, migration_id: str) -> None:
        """One side of a move notices that its streams have ended; a target that has all does not mind."""
        reason = failed("the other side is gone")
        if migration_id in agent.arriving and agent.arriving[migration_id] is None:
            self.feed_later(agent, inputs.IncomingFailed(migration_id, reason))
        elif migration_id in agent.leaving:
            self.feed_later(agent, inputs.OutgoingFailed(migration_id, reason))

    def _act_as_target(
        self,
        agent: Agent,
        command: commands.AllocateIncoming | commands.DropIncoming | commands.AdoptIncoming,
    ) -> None:
        migration_id = command.migration_id
        match command:
            case commands.AllocateIncoming():
                if self._clockwork.happens(self.trouble):
                    self.feed_later(agent, inputs.IncomingFailed(migration_id, failed("no memory")))
                    return
                agent.arriving[migration_id] = None
                self.feed_later(agent, inputs.IncomingAllocated(migration_id))
            case commands.DropIncoming():
                agent.arriving.pop(migration_id, None)
                for other in self._agents.values():
                    self.break_move(other, migration_id)
            case commands.AdoptIncoming():
                memory = agent.arriving.pop(migration_id)
                assert memory is not None, f"{command.vm} was adopted half copied"
                agent.memories[command.vm] = memory

    def _act_as_source(
        self,
        agent: Agent,
        command: commands.StartOutgoing
        | commands.SwitchOver
        | commands.SendFinal
        | commands.StopOutgoing
        | commands.ReleaseSource,
    ) -> None:
        match command:
            case commands.StartOutgoing(order):
                agent.leaving[order.migration_id] = (order.vm, order.target)
                takes_s = self._takes_s(agent, order.vm)
                self._copy(agent, order.migration_id, inputs.SwitchDue(order.migration_id), takes_s)
            case commands.SwitchOver(migration_id):
                agent.vcpus.pop(agent.leaving[migration_id][0], None)
                self._copy(agent, migration_id, inputs.FinalCopyDue(migration_id))
            case commands.SendFinal(migration_id):
                what = (agent.incarnation, "has sent the final copy", migration_id)
                self._clockwork.later(
                    self._clockwork.delay(), lambda: self._arrive(agent, migration_id), what
                )
            case commands.StopOutgoing(migration_id):
                _, target = agent.leaving.pop(migration_id)
                self.break_move(self._agents[target], migration_id)
            case commands.ReleaseSource(migration_id, vm):
                del agent.leaving[migration_id]
                _destroy(agent, vm)
                self.feed_later(agent, inputs.SourceGone(migration_id, MigrationFigures()))

    def _takes_s(self, agent: Agent, vm: str) -> float:
        """How long the memory of a VM takes to go over, besides a message's time."""
        image = agent.host.state.images.get(vm)
        if image is None or not self.rate_bytes_per_s:
            return 0.0
        return image.spec.memory_bytes / self.rate_bytes_per_s

    def _copy(self, agent: Agent, migration_id: str, done: inputs.Event, takes_s: float = 0.0) -> None:
        """Pages go over; the attempt fails if the target does not take them."""

        def finish() -> None:
            if migration_id in agent.leaving:
                target = self._agents[agent.leaving[migration_id][1]]
                taken = migration_id in target.arriving and target.alive
                taken = taken and not self._is_severed(agent.name, target.name)
                if not taken or self._clockwork.happens(self.trouble):
                    self.break_move(agent, migration_id)
                else:
                    self._feed(agent, done)

        what = (agent.incarnation, "has copied", done)
        self._clockwork.later(takes_s + self._clockwork.delay(), lambda: agent.do(finish), what)

    def _arrive(self, agent: Agent, migration_id: str) -> None:
        """The final copy arrives, or breaks off, or is found wrong; the source may lose sight of it."""
        if migration_id not in agent.leaving:
            return
        target = self._agents[agent.leaving[migration_id][1]]
        if self._clockwork.happens(4 * self.trouble):
            self.break_move(agent, migration_id)
        severed = self._is_severed(agent.name, target.name)
        if migration_id not in target.arriving or severed or self._clockwork.happens(self.trouble):
            self.break_move(target, migration_id)
            self.break_move(agent, migration_id)
        else:
            memory = agent.memories[agent.leaving[migration_id][0]]
            target.do(lambda: self._complete(target, migration_id, memory))

    def _complete(self, target: Agent, migration_id: str, memory: Memory) -> None:
        if migration_id in target.arriving:
            target.arriving[migration_id] = memory
            self._feed(target, inputs.IncomingComplete(migration_id))


def _destroy(agent: Agent, vm: str) -> None:
    agent.vcpus.pop(vm, None)
    agent.memories.pop(vm, None)
    agent.resumed.discard(vm)
