"""What was gathered of a cluster, for the tests to judge: values, no connections."""

from collections.abc import Iterator
from dataclasses import dataclass

from ferry_types.inspection import ClusterReport, SelfReport
from ferry_types.vms import Capacity

COORDINATOR = "the coordinator"
"""As the end of a path: no node can have such a name."""

WITNESS = "the witness"


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What became of asking a process about itself.

    ``report``: None if it did not answer; ``problem`` then says why. ``ahead_s``: how far its wall clock is
    ahead of the coordinator's, half of each round trip allowed for, give or take ``uncertainty_s``.
    """

    name: str
    address: str
    report: SelfReport | None
    ahead_s: float = 0.0
    uncertainty_s: float = 0.0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node: what the coordinator knows of it, and what it said itself. ``state``: of ``NodeState``."""

    name: str
    state: str
    reason: str
    address: str
    echo_address: str
    recorded_version: str
    recorded_capacity: Capacity
    used_bytes: int
    process: ProcessFacts

    @property
    def is_up(self) -> bool:
        """Whether it is one of those that run VMs."""
        return self.state == "up"

    @property
    def capacity(self) -> Capacity:
        """What it offers, by its own word if there is one."""
        report = self.process.report
        return report.host.capacity if report is not None and report.host else self.recorded_capacity

    @property
    def version(self) -> str:
        """Of its software, by its own word if there is one; empty: unknown."""
        report = self.process.report
        return report.version if report is not None else self.recorded_version


@dataclass(frozen=True, slots=True)
class VmFacts:
    """A VM. ``node``: its owner, or empty."""

    name: str
    state: str
    node: str
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class PathFacts:
    """The way from one process to another, both by name; ``problem``: why it leads nowhere, or empty."""

    source: str
    target: str
    address: str
    median_s: float
    worst_s: float
    problem: str


@dataclass(frozen=True, slots=True)
class EchoFacts:
    """Whether a guest was heard on its host's echo port."""

    vm: str
    node: str
    address: str
    answered: bool


@dataclass(frozen=True, slots=True)
class QuorumFacts:
    """Who has votes. ``witness``: its address, or empty; ``witness_state``: answers, silent, or empty."""

    witness: str
    witness_state: str
    dynamic: bool
    forced: bool
    nodes: int
    votes: int
    majority: int
    reason: str


@dataclass(frozen=True, slots=True)
class EventFacts:
    """An event of the log. ``time_us``: Unix microseconds of the coordinator's clock."""

    time_us: int
    message: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the tests judge. ``unmeasured``: nodes whose paths could not be measured, and why."""

    cluster: ClusterReport
    coordinator: ProcessFacts
    nodes: tuple[NodeFacts, ...]
    vms: tuple[VmFacts, ...]
    paths: tuple[PathFacts, ...]
    echoes: tuple[EchoFacts, ...]
    quorum: QuorumFacts
    critical_events: tuple[EventFacts, ...]
    unmeasured: tuple[tuple[str, str], ...] = ()

    @property
    def reports(self) -> Iterator[tuple[str, SelfReport]]:
        """Those who answered, by name, the coordinator first."""
        for process in (self.coordinator, *(node.process for node in self.nodes)):
            if process.report is not None:
                yield process.name, process.report
