"""Both pure cores on virtual time, with agents that do nothing but answer.

``World`` delivers messages with delays, and can cut streams, crash and freeze hosts and restart the
coordinator from its store. Its checks: no two hosts run a VM at one time, and the core's invariants.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from ferry_cluster import commands as cluster_commands
from ferry_cluster import inputs as cluster_inputs
from ferry_cluster.cluster import Cluster
from ferry_cluster.records import MigrationRecord, Record
from ferry_cluster.state import ClusterSettings
from ferry_host import commands as host_commands
from ferry_host import inputs as host_inputs
from ferry_host.host import Host
from ferry_host.state import HostIdentity
from ferry_types.eras import Era
from ferry_types.errors import Refusal, failed
from ferry_types.messages import HostEnvelope, HostOrder
from ferry_types.migrations import MigrationFigures, MigrationOptions
from ferry_types.profiles import PROFILES
from ferry_types.vms import Capacity, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve

MIB = 2**20


def make_spec(name: str, memory_bytes: int = 16 * MIB) -> VmSpec:
    return VmSpec(name, memory_bytes, resolve("idle", memory_bytes), FillSpec(Fill.ZERO, None))


@dataclass
class Agent:
    """The shell around one host core: answers every command after a short time."""

    name: str
    host: Host
    alive: bool = True
    frozen: bool = False
    stream: int | None = None
    deadline_s: float | None = None
    vcpus: dict[str, int] = field(default_factory=dict)
    """VM -> epoch under which its vCPU is told to run."""
    arriving: dict[str, str] = field(default_factory=dict)
    """Migration -> VM of incoming memory."""
    leaving: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Migration -> (VM, target) of attempts under way."""
    backlog: list[Callable[[], None]] = field(default_factory=list)

    def running(self, now: float) -> set[str]:
        if not self.alive or self.frozen or self.deadline_s is None or now >= self.deadline_s:
            return set()
        return set(self.vcpus)


class World:
    """A cluster of pure cores; ``delay`` yields the next message's travel time."""

    def __init__(self, hosts: int, delay: Callable[[], float], limit: int = 2) -> None:
        self.now = 100.0
        self.delay = delay
        self.settings = ClusterSettings("test", Era.WS2012R2, PROFILES["fast"])
        self.store: dict[str, Record] = {}
        self.term = 0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.counter = itertools.count(1)
        self.stream_ends: dict[int, str] = {}
        self.busy_until: dict[tuple[int, str], float] = {}
        self.replies: dict[int, object] = {}
        self.cluster: Cluster | None = None
        self.agents: dict[str, Agent] = {}
        self.limit = limit
        self.fail_next: set[str] = set()
        self.start_coordinator()
        for number in range(1, hosts + 1):
            self.start_host(f"n{number}")

    # --- time -------------------------------------------------------------------------------------

    def later(self, after_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self.queue, (self.now + after_s, next(self.counter), action))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.queue and self.queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self.queue)
            action()
            self.check()
        self.now = end

    def run_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = self.now + seconds
        while not condition():
            assert self.now < end, "the condition did not come true in time"
            self.run(0.05)

    def check(self) -> None:
        if self.cluster is not None:
            self.cluster.check()
        runners: dict[str, list[str]] = {}
        for agent in self.agents.values():
            for vm in agent.running(self.now):
                runners.setdefault(vm, []).append(agent.name)
        for vm, names in runners.items():
            assert len(names) == 1, f"{vm} runs on {names} at {self.now}"

    # --- coordinator ------------------------------------------------------------------------------

    def start_coordinator(self) -> None:
        self.term += 1
        cluster = Cluster(self.settings, self.term, list(self.store.values()), self.now)
        self.cluster = cluster
        self.carry_out(cluster.start(self.now))
        self.tick(self.term)

    def tick(self, term: int) -> None:
        if self.cluster is not None and self.term == term:
            self.submit(cluster_inputs.Tick())
            self.later(0.06, lambda: self.tick(term))

    def kill_coordinator(self) -> None:
        self.cluster = None
        for stream in list(self.stream_ends):
            self.cut(stream)

    def submit(self, event: cluster_inputs.Event) -> None:
        if self.cluster is not None:
            self.carry_out(self.cluster.handle(event, self.now))

    def ask(self, make: Callable[[int], cluster_inputs.AdminRequest]) -> int:
        request = next(self.counter)
        self.submit(make(request))
        return request

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

    def carry_out(self, commands: list[cluster_commands.Command]) -> None:
        for command in commands:
            match command:
                case cluster_commands.Commit():
                    self.commit(command)
                case cluster_commands.Send():
                    self.to_host(command.stream, command.order)
                case cluster_commands.CloseStream():
                    self.cut(command.stream)
                case cluster_commands.Reply():
                    self.replies[command.request] = command.result

    def commit(self, commit: cluster_commands.Commit) -> None:
        assert commit.term == self.term
        for guard in commit.guards:
            assert self.store.get(guard.key) == guard.expected, guard
        for record in commit.writes:
            self.store[record.key] = record
        for key in commit.deletes:
            self.store.pop(key, None)

    # --- network ----------------------------------------------------------------------------------

    def travel(self, stream: int, direction: str, deliver: Callable[[], None]) -> None:
        """Messages of one stream keep their order and are lost with it."""
        arrives = max(self.now + self.delay(), self.busy_until.get((stream, direction), 0.0))
        self.busy_until[stream, direction] = arrives
        self.later(arrives - self.now, lambda: deliver() if stream in self.stream_ends else None)

    def to_host(self, stream: int, order: HostOrder) -> None:
        agent = self.agents.get(self.stream_ends.get(stream, ""))
        if agent is not None:
            self.travel(stream, "down", lambda: self.feed(agent, host_inputs.OrderReceived(order)))

    def to_coordinator(self, stream: int, envelope: HostEnvelope) -> None:
        self.travel(stream, "up", lambda: self.submit(cluster_inputs.HostMessage(stream, envelope)))

    def connect(self, agent: Agent) -> None:
        if not agent.alive or agent.stream is not None:
            return
        if self.cluster is None:
            self.later(0.2, lambda: self.connect(agent))
            return
        agent.stream = next(self.counter)
        self.stream_ends[agent.stream] = agent.name
        self.feed(agent, host_inputs.Connected())

    def cut(self, stream: int) -> None:
        agent = self.agents.get(self.stream_ends.pop(stream, ""))
        self.later(0.0, lambda: self.submit(cluster_inputs.StreamClosed(stream)))
        if agent is not None and agent.stream == stream:
            agent.stream = None
            self.feed(agent, host_inputs.Disconnected())
            self.later(0.2 + self.delay(), lambda: self.connect(agent))

    # --- hosts ------------------------------------------------------------------------------------

    def start_host(self, name: str) -> None:
        incarnation = f"{name}-{next(self.counter)}"
        capacity = Capacity(256 * MIB, 2, self.limit)
        identity = HostIdentity(name, f"uuid-{name}", incarnation, f"{name}:1", f"{name}:2", capacity, "0")
        agent = Agent(name, Host(identity))
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

    def break_move(self, agent: Agent, migration_id: str) -> None:
        reason = failed("the other side is gone")
        if migration_id in agent.arriving:
            self.feed_later(agent, host_inputs.IncomingFailed(migration_id, reason))
        else:
            self.feed_later(agent, host_inputs.OutgoingFailed(migration_id, reason))

    def freeze(self, name: str, seconds: float) -> None:
        agent = self.agents[name]
        agent.frozen = True
        self.later(seconds, lambda: self.thaw(agent))

    def thaw(self, agent: Agent) -> None:
        agent.frozen = False
        backlog, agent.backlog = agent.backlog, []
        for action in backlog:
            action()

    def beat(self, agent: Agent) -> None:
        if agent.alive:
            self.feed(agent, host_inputs.Beat())
            self.later(0.25, lambda: self.beat(agent))

    def feed_later(self, agent: Agent, event: host_inputs.Event) -> None:
        self.later(self.delay(), lambda: self.feed(agent, event))

    def feed(self, agent: Agent, event: host_inputs.Event) -> None:
        if not agent.alive:
            return
        if agent.frozen:
            agent.backlog.append(lambda: self.feed(agent, event))
            return
        for command in agent.host.handle(event, self.now):
            self.act(agent, command)

    def act(self, agent: Agent, command: host_commands.Command) -> None:  # noqa: C901, PLR0912
        match command:
            case host_commands.Report():
                if agent.stream is not None:
                    self.to_coordinator(agent.stream, command.envelope)
            case host_commands.SetDeadline():
                agent.deadline_s = command.deadline_s
            case host_commands.BootImage():
                name, epoch = command.spec.name, command.epoch
                if f"boot {name}" in self.fail_next:
                    self.feed_later(agent, host_inputs.BootFailed(name, epoch, failed("no such file")))
                else:
                    self.feed_later(agent, host_inputs.Booted(name, epoch))
            case host_commands.RunVcpu():
                agent.vcpus[command.vm] = command.epoch
                self.feed_later(agent, host_inputs.QuantumRan(command.vm, command.epoch, self.now))
            case host_commands.HoldVcpu() | host_commands.DestroyImage():
                agent.vcpus.pop(command.vm, None)
            case host_commands.HaltImage():
                agent.vcpus.pop(command.vm, None)
                self.feed_later(agent, host_inputs.Halted(command.vm, command.epoch))
            case host_commands.AllocateIncoming():
                agent.arriving[command.migration_id] = command.spec.name
                self.feed_later(agent, host_inputs.IncomingAllocated(command.migration_id))
            case host_commands.DropIncoming():
                agent.arriving.pop(command.migration_id, None)
                for other in self.agents.values():
                    if command.migration_id in other.leaving:
                        self.break_move(other, command.migration_id)
            case host_commands.AdoptIncoming():
                agent.arriving.pop(command.migration_id, None)
            case host_commands.StartOutgoing():
                order = command.order
                agent.leaving[order.migration_id] = (order.vm, order.target)
                self.feed_later(agent, host_inputs.SwitchDue(order.migration_id))
            case host_commands.SwitchOver():
                agent.vcpus.pop(agent.leaving[command.migration_id][0], None)
                self.feed_later(agent, host_inputs.FinalCopyDue(command.migration_id))
            case host_commands.SendFinal():
                target = self.agents[agent.leaving[command.migration_id][1]]
                self.later(
                    self.delay(),
                    lambda: self.feed(target, host_inputs.IncomingComplete(command.migration_id)),
                )
            case host_commands.StopOutgoing():
                _, name = agent.leaving.pop(command.migration_id)
                if command.migration_id in self.agents[name].arriving:
                    self.break_move(self.agents[name], command.migration_id)
            case host_commands.ReleaseSource():
                agent.leaving.pop(command.migration_id)
                self.feed_later(agent, host_inputs.SourceGone(command.migration_id, MigrationFigures()))
