"""A cluster core with hosts, driven by hand, and ways to look at its commands."""

from typing import Any

from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import Command, Commit, Send
from ferry_cluster.inputs import (
    CreateVm,
    HostMessage,
    MigrateVm,
    StreamClosed,
    Tick,
)
from ferry_cluster.state import ClusterSettings
from ferry_types.eras import Era
from ferry_types.messages import (
    ArmHandOff,
    FromHost,
    HostEnvelope,
    IncomingPrepared,
    Join,
    RaiseEpoch,
    Renewal,
    VmRunning,
)
from ferry_types.migrations import MigrationOptions
from ferry_types.profiles import PROFILES
from ferry_types.vms import Capacity, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve

MIB = 2**20
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
        self.settings = ClusterSettings("c", era, FAST, forced)
        self.cluster = Cluster(self.settings, 1, [], self.now)
        for number in range(1, hosts + 1):
            self.join(number)
            self.say(number, Renewal(1))

    def handle(self, event: Any) -> list[Command]:
        commands = self.cluster.handle(event, self.now)
        self.cluster.check()
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
            self.handle(Tick())


def orders(commands: list[Command], number: int) -> list[Any]:
    return [c.order.body for c in commands if isinstance(c, Send) and c.stream == number]


def commit_of(commands: list[Command]) -> Commit:
    """The one commit, which stands before everything that is told."""
    assert isinstance(commands[0], Commit)
    assert sum(isinstance(c, Commit) for c in commands) == 1
    return commands[0]
