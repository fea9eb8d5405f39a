"""Processes and connections of a world: what they are, not what happens to them."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ferry_cluster.cluster import Cluster
from ferry_host.host import Host
from ferry_types.vms import ImagePhase


@dataclass(eq=False)
class Process:
    """What every process has: a life, a clock, and what waits for it while it is frozen."""

    clock_rate: float
    alive: bool = True
    frozen: bool = False
    backlog: list[Callable[[], None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As splits of the network know it; empty: on the side of most."""
        return ""

    def do(self, action: Callable[[], None]) -> None:
        """Now, or when it wakes up."""
        if self.frozen:
            self.backlog.append(action)
        elif self.alive:
            action()


@dataclass(eq=False)
class Reign(Process):
    """A coordinator process."""

    cluster: Cluster = field(kw_only=True)
    commits: bool = False
    """Whether it stands still in the middle of a commit: what is first in its backlog."""

    @property
    def term(self) -> int:
        """Number of its reign."""
        return self.cluster.term


@dataclass(frozen=True, order=True)
class Memory:
    """What a guest's memory holds: of which boot it is, and how often its vCPU has been let run since."""

    boot_epoch: int
    runs: int = 0


@dataclass(eq=False)
class Agent(Process):
    """The shell around one host core: answers every command after a short time."""

    host: Host = field(kw_only=True)
    stream: "Stream | None" = None
    deadline_s: float | None = None
    memories: dict[str, Memory] = field(default_factory=dict)
    """VMs whose memory is filled."""
    vcpus: dict[str, int] = field(default_factory=dict)
    """VM -> epoch under which its vCPU is told to run."""
    resumed: set[str] = field(default_factory=set)
    """VMs that were told to run and have not written since."""
    arriving: dict[str, Memory | None] = field(default_factory=dict)
    """Migration -> the incoming memory, once all of it is here."""
    leaving: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Migration -> (VM, target) of attempts under way."""
    phases: dict[str, ImagePhase] = field(default_factory=dict)
    """Phases of its images, as they were last looked at."""

    @property
    def name(self) -> str:
        """The host's name."""
        return self.host.state.identity.name

    @property
    def incarnation(self) -> str:
        """This life of it."""
        return self.host.state.identity.incarnation

    def clock(self, now: float) -> float:
        """Its monotonic clock, in seconds."""
        return now * self.clock_rate

    def has_lease(self, now: float) -> bool:
        """Whether its gate is open. A frozen host does nothing, and looks at its clock when it wakes up."""
        return (
            self.alive
            and not self.frozen
            and self.deadline_s is not None
            and self.clock(now) < self.deadline_s
        )

    def running(self, now: float) -> set[str]:
        """VMs that run at this moment."""
        return set(self.vcpus) if self.has_lease(now) else set()


@dataclass(eq=False)
class Stream:
    """A connection. Each direction keeps the order; ``down`` and ``up``: whether its reader still reads.

    ``deaf``: directions in which nothing arrives any more, although nobody has noticed.
    """

    number: int
    agent: Agent
    reign: Reign
    down: bool = True
    up: bool = True
    busy_until: dict[str, float] = field(default_factory=lambda: {"down": 0.0, "up": 0.0})
    deaf: set[str] = field(default_factory=set)
