"""Both pure cores on virtual time, with agents that do nothing but answer.

``World`` delivers messages with delays, and can cut and stall streams, crash and freeze hosts, fail moves at
each phase, restart the coordinator from its store, or let a frozen one wake up beside its successor. Clocks
run at rates of their own. After every step it checks who runs what.
"""

import heapq
import itertools
import random
from collections.abc import Callable

from tests.property.checked_store import CheckedStore
from tests.property.world_parts import Agent, Memory, Process, Reign, Stream

from ferry_cluster import commands as cluster_commands
from ferry_cluster import inputs as cluster_inputs
from ferry_cluster.cluster import Cluster
from ferry_cluster.records import MigrationRecord, Origin
from ferry_cluster.state import ClusterSettings
from ferry_host import commands as host_commands
from ferry_host import inputs as host_inputs
from ferry_host.host import Host
from ferry_host.state import HostIdentity
from ferry_types.eras import Era
from ferry_types.errors import Refusal, failed
from ferry_types.messages import DiscardVm, HostOrder
from ferry_types.migrations import ENDED, MigrationFigures, MigrationOptions
from ferry_types.profiles import DRIFT_RATE, PROFILES
from ferry_types.vms import Capacity, ImagePhase, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve

MIB = 2**20
LONG_DELAY_S = (0.3, 4.0)
"""From well inside a lease of 2 s to far beyond it."""


def make_spec(name: str, memory_bytes: int = 16 * MIB) -> VmSpec:
    return VmSpec(name, memory_bytes, resolve("idle", memory_bytes), FillSpec(Fill.ZERO, None))


class World:
    """A cluster of pure cores. The probabilities are 0 while all is well."""

    def __init__(self, hosts: int, seed: int, limit: int = 2, memory_bytes: int = 256 * MIB) -> None:
        self.now = 100.0
        self.rng = random.Random(seed)
        self.long_delays = 0.0
        """Probability that a message, or an answer of an agent's own parts, takes long."""
        self.trouble = 0.0
        """Probability that a step of an agent fails."""
        self.settings = ClusterSettings("test", Era.WS2012R2, PROFILES["fast"])
        self.store = CheckedStore(self.may_run)
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.counter = itertools.count(1)
        self.asked: dict[int, Reign] = {}
        self.replies: dict[int, object] = {}
        self.reigns: list[Reign] = []
        self.agents: dict[str, Agent] = {}
        self.strays: list[Agent] = []
        """Lives that nobody hears any more, although they go on."""
        self.streams: list[Stream] = []
        self.limit = limit
        self.memory_bytes = memory_bytes
        self.fail_next: set[str] = set()
        self.newest: dict[str, Memory] = {}
        """VM -> memory that it last ran with."""
        self.start_coordinator()
        for number in range(1, hosts + 1):
            self.start_host(f"n{number}")

    # --- time and chance --------------------------------------------------------------------------

    def later(self, after_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + after_s, next(self.counter), action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.queue and self.queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self.queue)
            action()
            self.check()
        self.now = end

    def run_until(
        self,
        condition: Callable[[], bool],
        seconds: float = 60.0,
        explain: Callable[[], object] = lambda: "the condition did not come true in time",
    ) -> None:
        end = self.now + seconds
        while not condition():
            assert self.now < end, explain()
            self.run(0.05)

    def delay(self) -> float:
        return self.rng.uniform(*LONG_DELAY_S if self.happens(self.long_delays) else (0.0005, 0.02))

    def happens(self, probability: float) -> bool:
        return self.rng.random() < probability

    def clock_rate(self) -> float:
        """Any two clocks differ by no more than the bound."""
        return 1 + self.rng.uniform(-DRIFT_RATE / 2, DRIFT_RATE / 2)

    # --- what must hold at every moment -----------------------------------------------------------

    def check(self) -> None:
        for agent in (*self.agents.values(), *self.strays):
            for vm in agent.running(self.now):
                owner, epoch = self.store.owner(vm), agent.vcpus[vm]
                assert owner is not None, f"{vm} runs on {agent.name} and does not exist"
                assert owner.incarnation == agent.incarnation, f"{vm} runs on {agent.name}: {owner}"
                assert epoch == self.store.raised(vm), f"{vm} runs under {epoch}: {self.store.raised(vm)}"
                self.write_memory(agent, vm)

    def write_memory(self, agent: Agent, vm: str) -> None:
        """A guest that runs writes: its memory must be the newest there is, or that of a new boot."""
        memory, newest = agent.memories[vm], self.newest.get(vm, Memory(0))
        assert memory >= newest, f"{vm} goes on with old memory on {agent.name}: {memory}, not {newest}"
        if vm in agent.resumed:
            agent.resumed.remove(vm)
            self.newest[vm] = agent.memories[vm] = Memory(memory.boot_epoch, memory.runs + 1)

    def may_run(self, node: str, incarnation: str | None) -> bool:
        lives = (self.agents[node], *self.strays)
        return any(agent.incarnation == incarnation and agent.has_lease(self.now) for agent in lives)

    # --- coordinators -----------------------------------------------------------------------------

    @property
    def cluster(self) -> Cluster | None:
        """The core of the newest reign, if its process lives."""
        return self.reigns[-1].cluster if self.reigns and self.reigns[-1].alive else None

    def start_coordinator(self) -> None:
        self.store.term += 1
        rate = self.clock_rate()
        records = list(self.store.records.values())
        reign = Reign(rate, cluster=Cluster(self.settings, self.store.term, records, self.now * rate))
        self.reigns = [*(former for former in self.reigns if former.alive), reign]
        self.carry_out(reign, reign.cluster.start(self.now * rate))
        self.tick(reign)

    def tick(self, reign: Reign) -> None:
        if reign.alive:
            if not reign.frozen:
                self.submit(reign, cluster_inputs.Tick())
            self.later(0.06, lambda: self.tick(reign))

    def kill_coordinator(self, reign: Reign | None = None) -> None:
        reign = reign or self.reigns[-1]
        reign.alive = False
        for stream in [stream for stream in self.streams if stream.reign is reign]:
            self.cut(stream)

    def freeze(self, process: Process, seconds: float) -> None:
        process.frozen = True
        self.later(seconds, lambda: self.thaw(process))

    def thaw(self, process: Process) -> None:
        process.frozen = False
        if isinstance(process, Reign) and self.happens(0.5):
            self.submit(process, cluster_inputs.Tick())  # its timer, before what came meanwhile
        backlog, process.backlog = process.backlog, []
        for action in backlog:
            process.do(action)

    def submit(self, reign: Reign, event: cluster_inputs.Event) -> None:
        if reign.alive:
            self.carry_out(reign, reign.cluster.handle(event, self.now * reign.clock_rate))
            reign.cluster.check()

    def ask(self, make: Callable[[int], cluster_inputs.AdminRequest]) -> int:
        """Put a request to the newest coordinator; one that dies does not answer."""
        request, reign = next(self.counter), self.reigns[-1]
        self.asked[request] = reign
        reign.do(lambda: self.submit(reign, make(request)))
        return request

    def unanswered(self) -> list[int]:
        return [number for number, reign in self.asked.items() if reign.alive and number not in self.replies]

    def migrate(self, vm: str, to: str) -> MigrationRecord | Refusal:
        request = self.ask(
            lambda number: cluster_inputs.MigrateVm(number, vm, to, MigrationOptions(), False, "token", 1)
        )
        answer = self.replies[request]
        assert isinstance(answer, MigrationRecord | Refusal)
        return answer

    def create(self, name: str, node: str = "", memory_bytes: int = 16 * MIB) -> int:
        spec = make_spec(name, memory_bytes)
        return self.ask(lambda number: cluster_inputs.CreateVm(number, spec, node, True))

    def carry_out(self, reign: Reign, commands: list[cluster_commands.Command]) -> None:
        for command in commands:
            match command:
                case cluster_commands.Commit():
                    if not self.store.commit(command):
                        self.kill_coordinator(reign)
                        return
                case cluster_commands.CheckTerm():
                    if command.term != self.store.term:
                        self.kill_coordinator(reign)
                        return
                case cluster_commands.Send():
                    self.to_host(command.stream, command.order)
                case cluster_commands.CloseStream():
                    self.end(command.stream)
                case cluster_commands.Reply():
                    assert command.request not in self.replies, "a request was answered twice"
                    self.replies[command.request] = command.result

    # --- network ----------------------------------------------------------------------------------

    def stream(self, number: int) -> Stream | None:
        return next((stream for stream in self.streams if stream.number == number), None)

    def travel(self, stream: Stream, direction: str, deliver: Callable[[], None]) -> None:
        """One direction of a stream keeps its order; what is on its way to nobody any more is lost."""
        arrives = max(self.now + self.delay(), stream.busy_until[direction])
        stream.busy_until[direction] = arrives
        self.later(arrives - self.now, lambda: deliver() if getattr(stream, direction) else None)

    def stall(self, stream: Stream, direction: str, seconds: float) -> None:
        stream.busy_until[direction] = max(stream.busy_until[direction], self.now + seconds)

    def to_host(self, number: int, order: HostOrder) -> None:
        stream = self.stream(number)
        if stream is not None:
            agent = stream.agent
            self.travel(stream, "down", lambda: agent.do(lambda: self.obey(agent, order)))

    def connect(self, agent: Agent) -> None:
        if not agent.alive or agent.stream is not None or agent in self.strays:
            return
        if self.cluster is None:
            self.later(0.2, lambda: agent.do(lambda: self.connect(agent)))
            return
        agent.stream = Stream(next(self.counter), agent, self.reigns[-1])
        self.streams.append(agent.stream)
        self.feed(agent, host_inputs.Connected())

    def end(self, number: int) -> None:
        """The coordinator ends a stream: the host hears of it behind what is on its way."""
        stream = self.stream(number)
        if stream is not None:
            self.travel(stream, "down", lambda: stream.agent.do(lambda: self.lose_host_end(stream)))
            self.later(self.delay(), lambda: self.lose_coordinator_end(stream))

    def drop(self, stream: Stream) -> None:
        """The host gives a stream up: what it said still arrives, perhaps behind its next Join."""
        self.lose_host_end(stream)
        self.travel(stream, "up", lambda: self.lose_coordinator_end(stream))

    def cut(self, stream: Stream) -> None:
        """A stream breaks, and what is on its way is lost."""
        down, up = stream.down, stream.up
        stream.down = stream.up = False
        if down:
            stream.agent.do(lambda: self.lose_host_end(stream))
        if up:
            stream.up = True
            self.lose_coordinator_end(stream)

    def lose_host_end(self, stream: Stream) -> None:
        stream.down = False
        agent = stream.agent
        if agent.stream is stream:
            agent.stream = None
            self.feed(agent, host_inputs.Disconnected())
            self.later(0.2 + self.delay(), lambda: agent.do(lambda: self.connect(agent)))

    def lose_coordinator_end(self, stream: Stream) -> None:
        if stream.up:
            stream.up = False
            self.streams.remove(stream)
            closed = cluster_inputs.StreamClosed(stream.number)
            stream.reign.do(lambda: self.submit(stream.reign, closed))

    # --- hosts ------------------------------------------------------------------------------------

    def start_host(self, name: str) -> None:
        incarnation = f"{name}-{next(self.counter)}"
        capacity = Capacity(self.memory_bytes, 2, self.limit)
        identity = HostIdentity(name, f"uuid-{name}", incarnation, f"{name}:1", f"{name}:2", capacity, "0")
        agent = Agent(self.clock_rate(), host=Host(identity))
        self.agents[name] = agent
        self.later(0.0, lambda: self.connect(agent))
        self.beat(agent)

    def kill_host(self, name: str) -> None:
        agent = self.agents[name]
        agent.alive = False
        if agent.stream is not None:
            self.cut(agent.stream)
        for other in self.agents.values():
            for migration_id, (_, target) in list(other.leaving.items()):
                if target == name:
                    self.break_move(other, migration_id)
            for migration_id in list(other.arriving):
                if migration_id in agent.leaving:
                    self.break_move(other, migration_id)

    def crash_guest(self, agent: Agent, vm: str) -> None:
        """The guest's program fails; the host hears of it from the vCPU's thread."""
        reason = failed("its guest crashed")
        self.feed_later(agent, host_inputs.GuestCrashed(vm, agent.vcpus[vm], reason))

    def isolate_host(self, name: str) -> None:
        """A host loses every connection for good and runs on; another life of it starts."""
        agent = self.agents[name]
        self.strays.append(agent)
        if agent.stream is not None:
            self.cut(agent.stream)
        self.start_host(name)

    def break_move(self, agent: Agent, migration_id: str) -> None:
        """One side of a move notices that its streams have ended; a target that has all does not mind."""
        reason = failed("the other side is gone")
        if migration_id in agent.arriving and agent.arriving[migration_id] is None:
            self.feed_later(agent, host_inputs.IncomingFailed(migration_id, reason))
        elif migration_id in agent.leaving:
            self.feed_later(agent, host_inputs.OutgoingFailed(migration_id, reason))

    def beat(self, agent: Agent) -> None:
        if agent.alive:
            if not agent.frozen:
                self.feed(agent, host_inputs.Beat())
            self.later(0.25, lambda: self.beat(agent))

    def feed_later(self, agent: Agent, event: host_inputs.Event) -> None:
        self.later(self.delay(), lambda: self.feed(agent, event))

    def obey(self, agent: Agent, order: HostOrder) -> None:
        """A host takes an order: none of an older session (rule L2), none that destroys what it may not."""
        state = agent.host.state
        self.handle(agent, host_inputs.LeaseTimer())
        stale = (order.incarnation, order.session) != (state.identity.incarnation, state.session)
        if isinstance(order.body, DiscardVm) and not stale:
            self.check_discard(agent, order.body)
        before = state.fingerprint() if stale else ""
        self.handle(agent, host_inputs.OrderReceived(order))
        assert not stale or state.fingerprint() == before, f"{agent.name} has obeyed {order}"

    def check_discard(self, agent: Agent, order: DiscardVm) -> None:
        """The owner's image stays, and one that was handed over until its move has ended (rule L4)."""
        image, owner = agent.host.state.images.get(order.vm), self.store.owner(order.vm)
        if image is None or owner is None or image.epoch > order.epoch:
            return
        if owner.incarnation == agent.incarnation:
            assert owner.origin is Origin.BOOT, f"{agent.name} owns what it is to discard: {owner}"
            assert owner.epoch > image.epoch, f"{agent.name} owns what it is to discard: {owner}"
        if image.phase is ImagePhase.AWAITING:
            move = self.store.records[f"migration/{image.migration_id}"]
            assert isinstance(move, MigrationRecord)
            assert move.state in ENDED, f"{agent.name} is to discard what it has handed over: {move}"

    def feed(self, agent: Agent, event: host_inputs.Event) -> None:
        agent.do(lambda: self.handle(agent, event))

    def handle(self, agent: Agent, event: host_inputs.Event) -> None:
        for command in agent.host.handle(event, agent.clock(self.now)):
            match command:
                case host_commands.Report():
                    self.report(agent, command)
                case host_commands.SetDeadline(None):
                    agent.deadline_s = None
                case host_commands.SetDeadline(float(deadline_s)):
                    agent.deadline_s = deadline_s
                    after_s = (deadline_s - agent.clock(self.now)) / agent.clock_rate
                    self.later(after_s, lambda: self.feed(agent, host_inputs.LeaseTimer()))
                case (
                    host_commands.AllocateIncoming()
                    | host_commands.DropIncoming()
                    | host_commands.AdoptIncoming()
                ):
                    self.act_as_target(agent, command)
                case (
                    host_commands.StartOutgoing()
                    | host_commands.SwitchOver()
                    | host_commands.SendFinal()
                    | host_commands.StopOutgoing()
                    | host_commands.ReleaseSource()
                ):
                    self.act_as_source(agent, command)
                case _:
                    self.act(agent, command)

    def report(self, agent: Agent, command: host_commands.Report) -> None:
        stream, envelope = agent.stream, command.envelope
        self.store.note(envelope.body)
        if stream is not None:
            reign = stream.reign
            message = cluster_inputs.HostMessage(stream.number, envelope)
            self.travel(stream, "up", lambda: reign.do(lambda: self.submit(reign, message)))

    def act(self, agent: Agent, command: host_commands.Command) -> None:
        match command:
            case host_commands.BootImage():
                name, epoch = command.spec.name, command.epoch
                if f"boot {name}" in self.fail_next or self.happens(self.trouble):
                    self.feed_later(agent, host_inputs.BootFailed(name, epoch, failed("no such file")))
                else:
                    self.later(self.delay(), lambda: agent.do(lambda: self.booted(agent, name, epoch)))
            case host_commands.RunVcpu():
                assert command.vm in agent.memories, f"{command.vm} has no memory on {agent.name}"
                agent.vcpus[command.vm] = command.epoch
                agent.resumed.add(command.vm)
                ran = host_inputs.QuantumRan(command.vm, command.epoch, agent.clock(self.now))
                self.feed_later(agent, ran)
            case host_commands.HoldVcpu():
                agent.vcpus.pop(command.vm, None)
            case host_commands.DestroyImage():
                self.destroy(agent, command.vm)
            case host_commands.HaltImage():
                self.destroy(agent, command.vm)
                self.feed_later(agent, host_inputs.Halted(command.vm, command.epoch))

    def booted(self, agent: Agent, vm: str, epoch: int) -> None:
        image = agent.host.state.images.get(vm)
        if image is not None and (image.epoch, image.phase) == (epoch, ImagePhase.BOOTING):
            agent.memories[vm] = Memory(epoch)
        self.feed(agent, host_inputs.Booted(vm, epoch))

    def destroy(self, agent: Agent, vm: str) -> None:
        agent.vcpus.pop(vm, None)
        agent.memories.pop(vm, None)

    def act_as_target(
        self,
        agent: Agent,
        command: host_commands.AllocateIncoming | host_commands.DropIncoming | host_commands.AdoptIncoming,
    ) -> None:
        migration_id = command.migration_id
        match command:
            case host_commands.AllocateIncoming():
                if self.happens(self.trouble):
                    self.feed_later(agent, host_inputs.IncomingFailed(migration_id, failed("no memory")))
                    return
                agent.arriving[migration_id] = None
                self.feed_later(agent, host_inputs.IncomingAllocated(migration_id))
            case host_commands.DropIncoming():
                agent.arriving.pop(migration_id, None)
                for other in self.agents.values():
                    self.break_move(other, migration_id)
            case host_commands.AdoptIncoming():
                memory = agent.arriving.pop(migration_id)
                assert memory is not None, f"{command.vm} was adopted half copied"
                agent.memories[command.vm] = memory

    def act_as_source(
        self,
        agent: Agent,
        command: host_commands.StartOutgoing
        | host_commands.SwitchOver
        | host_commands.SendFinal
        | host_commands.StopOutgoing
        | host_commands.ReleaseSource,
    ) -> None:
        match command:
            case host_commands.StartOutgoing(order):
                agent.leaving[order.migration_id] = (order.vm, order.target)
                self.copy(agent, order.migration_id, host_inputs.SwitchDue(order.migration_id))
            case host_commands.SwitchOver(migration_id):
                agent.vcpus.pop(agent.leaving[migration_id][0], None)
                self.copy(agent, migration_id, host_inputs.FinalCopyDue(migration_id))
            case host_commands.SendFinal(migration_id):
                self.later(self.delay(), lambda: self.arrive(agent, migration_id))
            case host_commands.StopOutgoing(migration_id):
                _, target = agent.leaving.pop(migration_id)
                self.break_move(self.agents[target], migration_id)
            case host_commands.ReleaseSource(migration_id, vm):
                del agent.leaving[migration_id]
                self.destroy(agent, vm)
                self.feed_later(agent, host_inputs.SourceGone(migration_id, MigrationFigures()))

    def copy(self, agent: Agent, migration_id: str, done: host_inputs.Event) -> None:
        """Pages go over; the attempt fails if the target does not take them."""

        def finish() -> None:
            if migration_id in agent.leaving:
                target = self.agents[agent.leaving[migration_id][1]]
                if migration_id not in target.arriving or not target.alive or self.happens(self.trouble):
                    self.break_move(agent, migration_id)
                else:
                    self.feed(agent, done)

        self.later(self.delay(), lambda: agent.do(finish))

    def arrive(self, agent: Agent, migration_id: str) -> None:
        """The final copy arrives, or breaks off, or is found wrong; the source may lose sight of it."""
        if migration_id not in agent.leaving:
            return
        target = self.agents[agent.leaving[migration_id][1]]
        if self.happens(4 * self.trouble):
            self.break_move(agent, migration_id)
        if migration_id not in target.arriving or self.happens(self.trouble):
            self.break_move(target, migration_id)
            self.break_move(agent, migration_id)
        else:
            memory = agent.memories[agent.leaving[migration_id][0]]
            target.do(lambda: self.complete(target, migration_id, memory))

    def complete(self, target: Agent, migration_id: str, memory: Memory) -> None:
        if migration_id in target.arriving:
            target.arriving[migration_id] = memory
            self.feed(target, host_inputs.IncomingComplete(migration_id))
