"""A cluster of pure cores on virtual time, and what must hold in it at every moment.

Hosts can crash, freeze, come back as another life beside the first, and be cut off; coordinators can crash
and freeze, also around their commits, and wake up beside their successors on one store. Clocks run at rates
of their own. Raises AssertionError for the first thing that must not be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from ferry_cluster import commands as cluster_commands
from ferry_cluster import inputs as cluster_inputs
from ferry_cluster.cluster import Cluster
from ferry_cluster.moves import slot_limit
from ferry_cluster.records import MigrationRecord, Origin, Ownership, RaisedEpoch, Record
from ferry_cluster.state import ClusterSettings
from ferry_host import commands as host_commands
from ferry_host import inputs as host_inputs
from ferry_host.host import Host
from ferry_host.state import HostIdentity
from ferry_sim.ballots import ADDRESS, Ballots, ForHost
from ferry_sim.clockwork import Clockwork
from ferry_sim.coverage import Coverage
from ferry_sim.network import Network
from ferry_sim.processes import Agent, Memory, Process, Reign
from ferry_sim.shell import Shell
from ferry_sim.storage import Storage
from ferry_sim.store import CheckedStore
from ferry_types.eras import Era
from ferry_types.errors import Refusal
from ferry_types.events import EventRecord
from ferry_types.messages import DiscardVm, EpochRaised, Grant, HostOrder
from ferry_types.migrations import ENDED, MigrationOptions, MigrationState
from ferry_types.networks import Network as ClusterNetwork
from ferry_types.profiles import PROFILES
from ferry_types.vms import Capacity, ImagePhase, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve

MIB: Final = 2**20
TICKS_PER_BEAT: Final = 4
STORE_FAULT_S: Final = (0.05, 0.5, 3.0, 6.0)

WALL_CLOCK_US: Final = 1_767_268_800_000_000
"""Unix time at which a world begins, unless told otherwise: noon of 2026-01-01, UTC."""

EVICTED: Final = "evicted"
"""Rule by which a coordinator sends away a host for good."""


def make_spec(name: str, memory_bytes: int = 16 * MIB) -> VmSpec:
    """An idle VM."""
    return VmSpec(name, memory_bytes, resolve("idle", memory_bytes), FillSpec(Fill.ZERO, None))


@dataclass(frozen=True, slots=True)
class Size:
    """How large a cluster is. ``profile``: of its leases; ``limit``: moves at a time and host."""

    hosts: int = 3
    host_memory_bytes: int = 256 * MIB
    limit: int = 2
    profile: str = "fast"


class World:
    """See the module. All is well until somebody sets a probability or calls a fault."""

    def __init__(
        self,
        size: Size,
        clockwork: Clockwork,
        era: Era = Era.WS2012R2,
        *,
        hosts: Mapping[str, Capacity] | None = None,
        networks: tuple[ClusterNetwork, ...] = (),
        wall_clock_us: int = WALL_CLOCK_US,
        lease_s: float | None = None,
    ) -> None:
        """``hosts``: their names and what each offers; None: n1, n2, ... as ``size`` says.

        ``networks``: of the hosts' NICs; copying itself takes as long over any of them.

        ``lease_s``: None for the profile's; from era 2016 on it is the resiliency period.
        """
        self.size = size
        self.clockwork = clockwork
        self._alike = Capacity(size.host_memory_bytes, 2, size.limit)
        self.hosts = hosts or {f"n{number}": self._alike for number in range(1, size.hosts + 1)}
        self.on_event: Callable[[EventRecord], None] = lambda _event: None
        """Told of each event that is committed to the log."""
        self.evicted_end = False
        """Whether the agent of a host that is evicted ends, as it does in earnest; else it joins anew."""
        self._wall_us_at_zero = wall_clock_us - round(clockwork.now * 1e6)
        timing = PROFILES[size.profile]
        timing = replace(timing, lease_s=lease_s or timing.lease_s)
        self.settings = ClusterSettings("test", era, timing, networks=networks)
        clockwork.lease_s = self.settings.timing.lease_s
        self.store = CheckedStore(self._may_run)
        self.store_faults = 0.0
        """Probability that a coordinator dies or freezes around a commit."""
        self.agents: dict[str, Agent] = {}
        self.strays: list[Agent] = []
        """Lives that nobody hears any more, although they go on."""
        self.reigns: list[Reign] = []
        self.replies: dict[int, object] = {}
        self.newest_memory: dict[str, Memory] = {}
        """VM -> memory that it last ran with."""
        self.coverage = Coverage()
        self.network = Network(self.clockwork, self)
        self.shell = Shell(self.clockwork, self.agents, self.feed, self.network.severed)
        self.storage = Storage(self.clockwork, self.store.raised)
        self.ballots = Ballots(self.clockwork, self.network, self.agents, self.feed, self.submit)
        self._asked: dict[int, Reign] = {}
        self.start_coordinator()
        self.ask(lambda number: cluster_inputs.SetQuorum(number, ADDRESS, None))
        for name in self.hosts:
            self.start_host(name)

    # --- time -------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds."""
        return self.clockwork.now

    @property
    def wall_us(self) -> int:
        """Unix time, microseconds: what the coordinators' machine takes the hour to be."""
        return self._wall_us_at_zero + round(self.now * 1e6)

    def shift_wall_clock(self, wall_us: int) -> None:
        """Have the wall clock show this now; nothing else moves."""
        self._wall_us_at_zero = wall_us - round(self.now * 1e6)

    def run(self, seconds: float) -> None:
        """Let time go by."""
        self.clockwork.run(seconds)
        self.check()

    def run_until(
        self,
        condition: Callable[[], bool],
        seconds: float = 60.0,
        explain: Callable[[], object] = lambda: "the condition did not come true in time",
        step_s: float = 0.05,
    ) -> None:
        """Let time go by until something holds. Raises AssertionError if it does not in time."""
        end = self.now + seconds
        while not condition():
            assert self.now < end, explain()
            self.run(step_s)

    # --- what must hold at every moment -----------------------------------------------------------

    def check(self) -> None:
        """Look at all that run. Raises AssertionError."""
        for agent in (*self.agents.values(), *self.strays):
            self._check_agent(agent)

    def _check_agent(self, agent: Agent) -> None:
        if agent.vcpus and agent.has_lease(self.now):
            for vm in agent.vcpus:
                self._check_runner(agent, vm)

    def _check_runner(self, agent: Agent, vm: str) -> None:
        """Who runs a VM is its owner, under the epoch that is raised, with the newest memory there is."""
        owner, epoch = self.store.owner(vm), agent.vcpus[vm]
        assert owner is not None, f"{vm} runs on {agent.name} and does not exist"
        assert owner.incarnation == agent.incarnation, f"{vm} runs on {agent.name}: {owner}"
        assert epoch == self.store.raised(vm), f"{vm} runs under {epoch}: {self.store.raised(vm)}"
        memory, newest = agent.memories[vm], self.newest_memory.get(vm, Memory(0))
        assert memory >= newest, f"{vm} goes on with old memory on {agent.name}: {memory}, not {newest}"
        if vm in agent.resumed:  # a guest that runs writes
            agent.resumed.remove(vm)
            self.newest_memory[vm] = agent.memories[vm] = Memory(memory.boot_epoch, memory.runs + 1)

    def _check_record(self, reign: Reign, record: Record) -> None:
        """After a commit: who runs a VM whose owner or raised epoch has changed, and the limits of moves."""
        match record:
            case Ownership(vm=vm) | RaisedEpoch(vm=vm):
                for agent in (*self.agents.values(), *self.strays):
                    if vm in agent.vcpus and agent.has_lease(self.now):
                        self._check_runner(agent, vm)
            case MigrationRecord() if record.state not in ENDED and record.state is not MigrationState.QUEUED:
                state = reign.cluster.state
                used = state.slots_used()
                for node in (record.source, record.target):
                    assert used[node] <= slot_limit(self.settings, state, node), f"{node} moves {used[node]}"

    def _may_run(self, node: str, incarnation: str | None) -> bool:
        lives = (self.agents[node], *self.strays)
        return any(agent.incarnation == incarnation and agent.has_lease(self.now) for agent in lives)

    # --- coordinators -----------------------------------------------------------------------------

    @property
    def cluster(self) -> Cluster | None:
        """The core of the newest reign, if its process lives."""
        reign = self.newest()
        return None if reign is None else reign.cluster

    def newest(self) -> Reign | None:
        """The newest reign, if its process lives."""
        return self.reigns[-1] if self.reigns and self.reigns[-1].alive else None

    def start_coordinator(self, *, forced: bool = False) -> None:
        """A coordinator starts, beside any that still lives, and takes over; ``forced``: without a quorum."""
        self.store.term += 1
        rate = self.clockwork.clock_rate()
        records = list(self.store.records.values())
        settings = replace(self.settings, forced=forced)
        reign = Reign(rate, cluster=Cluster(settings, self.store.term, records, self.now * rate))
        self.reigns = [*(former for former in self.reigns if former.alive), reign]
        self._carry_out(reign, reign.cluster.start(self.now * rate))
        self._tick(reign)

    def revive_coordinator(self) -> None:
        """Start a coordinator if there is none."""
        if self.newest() is None:
            self.start_coordinator()

    def _tick(self, reign: Reign) -> None:
        if reign.alive:
            if not reign.frozen:
                self.submit(reign, cluster_inputs.Tick(self.wall_us))
            self.clockwork.later(self.settings.timing.beat_s / TICKS_PER_BEAT, lambda: self._tick(reign))

    def kill_coordinator(self, reign: Reign | None = None) -> None:
        """A coordinator dies; the newest, unless another is named."""
        reign = reign or self.reigns[-1]
        reign.alive = False
        for stream in [stream for stream in self.network.streams if stream.reign is reign]:
            self.network.cut(stream)

    def freeze(self, process: Process, seconds: float) -> None:
        """A process stands still, and does afterwards what has come meanwhile."""
        process.frozen = True
        self.clockwork.later(seconds, lambda: self._thaw(process))

    def _thaw(self, process: Process) -> None:
        process.frozen = False
        if isinstance(process, Agent):
            self._check_agent(process)
        backlog, process.backlog = process.backlog, []
        if isinstance(process, Reign) and self.clockwork.happens(0.5):
            # Its timer, before what came meanwhile, but behind the commit that it stood still in.
            tick = partial(self.submit, process, cluster_inputs.Tick(self.wall_us))
            backlog.insert(1 if process.commits else 0, tick)
        if isinstance(process, Reign):
            process.commits = False
        for action in backlog:
            process.do(action)

    def submit(self, reign: Reign, event: cluster_inputs.Event) -> None:
        """A coordinator hears something."""
        if reign.alive:
            self._carry_out(reign, reign.cluster.handle(event, self.now * reign.clock_rate))

    def ask(self, make: Callable[[int], cluster_inputs.AdminRequest]) -> int:
        """Put a request to the newest coordinator; one that dies does not answer."""
        request, reign = self.clockwork.number(), self.reigns[-1]
        self._asked[request] = reign
        reign.do(lambda: self.submit(reign, make(request)))
        return request

    def unanswered(self) -> list[int]:
        """Requests that a coordinator that lives has not answered."""
        return [number for number, reign in self._asked.items() if reign.alive and number not in self.replies]

    def migrate(self, vm: str, to: str) -> MigrationRecord | Refusal | None:
        """Ask for a move; None if the coordinator is frozen, or has died over it."""
        request = self.ask(
            lambda number: cluster_inputs.MigrateVm(number, vm, to, MigrationOptions(), False, "token", 1)
        )
        answer = self.replies.get(request)
        assert answer is None or isinstance(answer, MigrationRecord | Refusal)
        return answer

    def create(self, name: str, node: str = "", memory_bytes: int = 16 * MIB) -> int:
        """Ask for a VM; the request's number."""
        spec = make_spec(name, memory_bytes)
        return self.ask(lambda number: cluster_inputs.CreateVm(number, spec, node, True))

    def _carry_out(self, reign: Reign, commands: list[cluster_commands.Command]) -> None:
        """What a driver does: the list in order; nothing behind a commit that is refused (rule S2)."""
        for position, command in enumerate(commands):
            match command:
                case cluster_commands.Commit():
                    if not self._commit(reign, command, commands[position + 1 :]):
                        return
                case cluster_commands.CheckTerm():
                    if command.term != self.store.term:
                        self.kill_coordinator(reign)
                        return
                case cluster_commands.Send():
                    self._send(command)
                case cluster_commands.CloseStream():
                    self._close(command)
                case cluster_commands.ReadWitness() | cluster_commands.ReplaceWitness():
                    self.ballots.consult(reign, command)
                case cluster_commands.Reply():
                    assert command.request not in self.replies, "a request was answered twice"
                    self.replies[command.request] = command.result

    def _close(self, command: cluster_commands.CloseStream) -> None:
        """End a stream; an agent that was sent away for good ends as soon as it has heard of it."""
        stream = self.network.stream(command.stream)
        self.network.end(command.stream)
        if self.evicted_end and command.reason.rule == EVICTED and stream is not None:
            self.clockwork.later(self.clockwork.delay(), lambda: self._end_agent(stream.agent))

    def _end_agent(self, agent: Agent) -> None:
        if agent.alive and self.agents[agent.name] is agent:
            self.kill_host(agent.name)

    def _send(self, command: cluster_commands.Send) -> None:
        """Orders go out at once; that an epoch was raised is told when the storage has drained."""
        body = command.order.body
        send = partial(self.network.to_host, command.stream, command.order)
        if isinstance(body, EpochRaised) and body.raised:
            self.storage.answer_when_drained(body.vm, body.epoch, send)
        else:
            send()

    def _commit(
        self, reign: Reign, commit: cluster_commands.Commit, rest: list[cluster_commands.Command]
    ) -> bool:
        """Whether to go on at once. Store and coordinator fail before, during and after a commit."""
        rng, fault = self.clockwork.rng, ""
        if self.clockwork.happens(self.store_faults):
            fault = rng.choice(["dies before", "dies after", "late", "answer late"])
        if fault == "late" and not reign.frozen:
            self.freeze(reign, rng.choice(STORE_FAULT_S))
            reign.backlog.insert(0, lambda: self._carry_out(reign, [commit, *rest]))
            reign.commits = True
            return False
        if fault.startswith("dies"):
            self.clockwork.later(rng.choice(STORE_FAULT_S), self.revive_coordinator)
        if fault == "dies before" or not self.store.commit(commit):
            self.kill_coordinator(reign)
            return False
        for record in commit.writes:
            self.clockwork.note(record.key, getattr(record, "epoch", 0), getattr(record, "state", ""))
            self.coverage.stored(record)
            self._check_record(reign, record)
        for event in commit.events:
            self.on_event(event)
        if fault == "dies after":
            self.kill_coordinator(reign)
            return False
        if fault == "answer late" and not reign.frozen:
            self.freeze(reign, rng.choice(STORE_FAULT_S))
            reign.backlog.insert(0, lambda: self._carry_out(reign, rest))
            reign.commits = True
            return False
        reign.cluster.check()
        return True

    # --- hosts ------------------------------------------------------------------------------------

    def start_host(self, name: str) -> None:
        """An agent starts: another life of its host."""
        incarnation = f"{name}-{self.clockwork.number()}"
        capacity = self.hosts.get(name, self._alike)
        identity = HostIdentity(name, f"uuid-{name}", incarnation, f"{name}:1", f"{name}:2", capacity, "0")
        votes = self.ballots.kept.get(name)
        agent = Agent(self.clockwork.clock_rate(), host=Host(identity, votes))
        self.agents[name] = agent
        self.network.connect_later(agent, 0.0)
        self._beat(agent)

    def kill_host(self, name: str) -> None:
        """An agent dies."""
        agent = self.agents[name]
        agent.alive = False
        if agent.stream is not None:
            self.network.cut(agent.stream)
        self.shell.break_moves_with(agent)

    def isolate_host(self, name: str) -> None:
        """A host loses every connection for good and runs on; another life of it starts."""
        agent = self.agents[name]
        self.strays.append(agent)
        if agent.stream is not None:
            self.network.cut(agent.stream)
        self.start_host(name)

    def _beat(self, agent: Agent) -> None:
        if agent.alive:
            if not agent.frozen:
                self.feed(agent, host_inputs.Beat())
            self.clockwork.later(self.settings.timing.beat_s, lambda: self._beat(agent))

    def feed(self, agent: Agent, event: host_inputs.Event) -> None:
        """A host notices something, now or when it wakes up."""
        agent.do(lambda: self._handle(agent, event))

    def obey(self, agent: Agent, order: HostOrder) -> None:
        """A host takes an order: none of an older session (rule L2), none that destroys what it may not."""
        state = agent.host.state
        self._handle(agent, host_inputs.LeaseTimer())
        stale = (order.incarnation, order.session) != (state.identity.incarnation, state.session)
        if isinstance(order.body, DiscardVm) and not stale:
            self._check_discard(agent, order.body)
        before = state.fingerprint() if stale else ""
        self._handle(agent, host_inputs.OrderReceived(order))
        assert not stale or state.fingerprint() == before, f"{agent.name} has obeyed {order}"

    def _check_discard(self, agent: Agent, order: DiscardVm) -> None:
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

    def _handle(self, agent: Agent, event: host_inputs.Event) -> None:
        had_lease = agent.has_lease(self.now)
        for command in agent.host.handle(event, agent.clock(self.now)):
            match command:
                case host_commands.Report():
                    self.store.note(command.envelope.body)
                    self.network.to_coordinator(agent, command.envelope)
                case host_commands.SetDeadline(None):
                    agent.deadline_s = None
                case host_commands.SetDeadline(float(deadline_s)):
                    agent.deadline_s = deadline_s
                    after_s = (deadline_s - agent.clock(self.now)) / agent.clock_rate
                    self.clockwork.later(after_s, lambda: self.feed(agent, host_inputs.LeaseTimer()))
                case _ if isinstance(command, ForHost):
                    self.ballots.carry_out(agent, command)
                case _:
                    self.clockwork.note(agent.name, type(command).__name__)
                    self.shell.carry_out(agent, command)
                    if isinstance(command, host_commands.RunVcpu):
                        self.storage.begin(agent, command.vm, command.epoch)
                        if agent.has_lease(self.now):
                            self._check_runner(agent, command.vm)
        if not had_lease:
            self._check_agent(agent)
        if not _only_renews(event):
            self.coverage.look_at(agent)


def _only_renews(event: host_inputs.Event) -> bool:
    """Whether an event can change no image but by the lease's end."""
    if isinstance(event, host_inputs.OrderReceived):
        return isinstance(event.order.body, Grant)
    return isinstance(event, host_inputs.Beat)
