"""A cluster core with hosts, driven by hand, and ways to look at its commands."""

from dataclasses import replace
from typing import Any

from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import Command, Commit, Reply, Send
from ferry_cluster.inputs import (
    AdminRequest,
    CreateVm,
    HostMessage,
    MigrateVm,
    StreamClosed,
    Tick,
)
from ferry_cluster.state import ClusterSettings
from ferry_types.eras import Era
from ferry_types.errors import failed
from ferry_types.messages import (
    Armed,
    ArmHandOff,
    BeginOutgoing,
    FromHost,
    HostEnvelope,
    IncomingPrepared,
    Join,
    MigrationFailed,
    PrepareIncoming,
    RaiseEpoch,
    Renewal,
    RunVm,
    SourceReleased,
    StartVm,
    StopVm,
    TargetReady,
    TargetRuns,
    ToHost,
    VmRunning,
    VmStopped,
)
from ferry_types.migrations import MigrationFigures, MigrationOptions
from ferry_types.profiles import PROFILES
from ferry_types.roles import NO_RULES
from ferry_types.vms import Capacity, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve

MIB = 2**20
FIGURES = MigrationFigures(brownout_s=0.5, blackout_s=0.001)
NOON_US = 1_767_268_800_000_000
FAST = PROFILES["fast"]
LOST_AFTER_S = FAST.coordinator_span_s


def make_spec(name: str, memory_bytes: int = 16 * MIB) -> VmSpec:
    return VmSpec(name, memory_bytes, resolve("idle", memory_bytes), FillSpec(Fill.ZERO))


class Bench:
    """A cluster core with hosts h1, h2, ... on streams 1, 2, ..., driven by hand.

    Quorum is overridden unless a test is about it: a run-out lease alone loses a node.
    """

    def __init__(self, hosts: int = 2, era: Era = Era.WS2012R2, *, forced: bool = True) -> None:
        self.now = 100.0
        self.replies: dict[int, Any] = {}
        self.settings = ClusterSettings("c", era, FAST, forced)
        self.cluster = Cluster(self.settings, 1, [], self.now)
        for number in range(1, hosts + 1):
            self.join(number)
            self.say(number, Renewal(1))

    def handle(self, event: Any) -> list[Command]:
        commands = self.cluster.handle(event, self.now)
        self.cluster.check()
        self.replies |= {c.request: c.result for c in commands if isinstance(c, Reply)}
        return commands

    def say(self, number: int, body: FromHost, session: int = 1, life: str = "") -> list[Command]:
        envelope = HostEnvelope(life or f"life-{number}", session, body)
        return self.handle(HostMessage(number, envelope))

    def join(self, number: int, **changes: Any) -> list[Command]:
        stream = changes.pop("stream", number)
        session, life = changes.pop("session", 1), changes.pop("life", f"life-{number}")
        fields: dict[str, Any] = {
            "name": f"h{number}",
            "uuid": f"uuid-{number}",
            "address": "127.0.0.1:1",
            "echo_address": "127.0.0.1:2",
            "capacity": Capacity(64 * MIB, 2, 2),
            "version": "0",
            "images": (),
            **changes,
        }
        return self.handle(HostMessage(stream, HostEnvelope(life, session, Join(**fields))))

    def handle_closed(self, stream: int) -> list[Command]:
        return self.handle(StreamClosed(stream))

    def run_vm(self, name: str, number: int) -> None:
        self.handle(CreateVm(7, make_spec(name), f"h{number}", True))
        epoch = self.cluster.state.owners[name].epoch
        self.say(number, RaiseEpoch(name, epoch))
        self.say(number, VmRunning(name, epoch, "", 0.0))

    def migrate(self, vm: str, to: str) -> list[Command]:
        return self.handle(MigrateVm(9, vm, to, MigrationOptions(), False, "token", 1))

    def arm(self) -> None:
        """A move m1 of VM a from h1 to h2, armed."""
        self.run_vm("a", 1)
        self.migrate("a", "h2")
        self.say(2, IncomingPrepared("m1"))
        self.say(1, ArmHandOff("m1"))

    def wait(self, seconds: float) -> None:
        """Time goes by while the coordinator looks at its clock."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.2)
            self.handle(Tick(self.wall_us))

    @property
    def wall_us(self) -> int:
        """Unix time: noon of 2026-01-01 UTC, and as long since as the bench has run."""
        return NOON_US + round(self.now * 1e6)

    def ask(self, request: AdminRequest) -> Any:
        """What an admin's request is answered with at once."""
        self.handle(request)
        return self.replies.pop(request.request)


class ObedientBench(Bench):
    """Its hosts do at once what they are told, and renew their leases, but for those in ``silent``."""

    def __init__(self, hosts: int = 2, era: Era = Era.WS2012R2, **settings: Any) -> None:
        self.silent: set[int] = set()
        self.failing: set[str] = set()
        """VMs whose moves fail on the source."""
        self.slow = False
        """Whether moves wait in their copying."""
        super().__init__(hosts, era, **settings)

    def handle(self, event: Any) -> list[Command]:
        commands = super().handle(event)
        for command in commands:
            if isinstance(command, Send) and command.stream not in self.silent:
                for answer in self.answers(command.order.body):
                    self.say(command.stream, answer, command.order.session, command.order.incarnation)
        return commands

    def answers(self, order: ToHost) -> list[FromHost]:
        match order:
            case StartVm(spec, epoch):
                return [RaiseEpoch(spec.name, epoch), VmRunning(spec.name, epoch, "", 0.0)]
            case StopVm(vm, epoch):
                return [VmStopped(vm, epoch)]
            case PrepareIncoming():
                return [IncomingPrepared(order.migration_id)]
            case BeginOutgoing() if order.vm in self.failing:
                return [MigrationFailed(order.migration_id, failed("the link is down"))]
            case BeginOutgoing() if not self.slow:
                return [ArmHandOff(order.migration_id)]
            case Armed():
                target = self.cluster.state.migrations[order.migration_id].target
                self.report(target, TargetReady(order.migration_id))
                return []
            case RunVm(migration_id, vm, epoch):
                return [RaiseEpoch(vm, epoch), VmRunning(vm, epoch, migration_id, 0.0)]
            case TargetRuns():
                return [SourceReleased(order.migration_id, FIGURES)]
            case _:
                return []

    def wait(self, seconds: float) -> None:
        end, seq = self.now + seconds, 10
        while self.now < end:
            seq += 1
            super().wait(min(0.2, end - self.now))
            for stream, node in list(self.cluster.state.streams.items()):
                if stream not in self.silent:
                    self.report(node, Renewal(seq))

    def report(self, node: str, body: FromHost) -> None:
        """The node's present session says something."""
        present = self.cluster.state.attendance[node]
        assert present.stream is not None
        self.say(present.stream, body, present.session, self.cluster.state.nodes[node].incarnation)

    def create(self, name: str, node: str = "", **changes: Any) -> Any:
        """A VM of 16 MiB that runs; ``rules``, ``priority`` and ``memory_bytes`` as given."""
        rules = changes.pop("rules", NO_RULES)
        spec = replace(make_spec(name, changes.pop("memory_bytes", 16 * MIB)), **changes)
        return self.ask(CreateVm(7, spec, node, True, rules))

    def place_of(self, vm: str) -> str:
        """Where it runs; empty: nowhere."""
        owner = self.cluster.state.owners[vm]
        return owner.node or "" if self.cluster.state.runs(vm, owner.epoch) else ""


def orders(commands: list[Command], number: int) -> list[Any]:
    return [c.order.body for c in commands if isinstance(c, Send) and c.stream == number]


def commit_of(commands: list[Command]) -> Commit:
    """The one commit, which stands before everything that is told."""
    assert isinstance(commands[0], Commit)
    assert sum(isinstance(c, Commit) for c in commands) == 1
    return commands[0]
