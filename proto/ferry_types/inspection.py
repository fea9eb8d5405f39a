"""What a process says about itself, and how it reaches others."""

from dataclasses import dataclass

from ferry_types.eras import Era
from ferry_types.vms import Capacity

REACH_ADDRESSES_MAX = 66
"""Addresses that one request measures: those of a cluster of 64 nodes, its coordinator and its witness."""

REACH_PROBES_MAX = 20
"""Round trips to each address."""

REACH_PATIENCE_S_MAX = 5.0
"""What each address gets at most, connecting included."""


@dataclass(frozen=True, slots=True)
class MachineReport:
    """The machine that a process runs on. ``boot_id``: the same for all its processes, while it is up."""

    boot_id: str
    memory_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class DirectoryReport:
    """A data directory. ``write_s``: to write a page that lasts; ``problem``: why that failed, or empty."""

    path: str
    free_bytes: int
    write_s: float
    problem: str


@dataclass(frozen=True, slots=True)
class HostReport:
    """What an agent adds. ``coordinator``: where it looks for it."""

    node: str
    capacity: Capacity
    coordinator: str


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """What the coordinator adds. ``beat_s``: between two renewals of a lease."""

    cluster: str
    era: Era
    beat_s: float


@dataclass(frozen=True, slots=True)
class SelfReport:
    """A process about itself.

    ``time_us``: its wall clock, Unix microseconds. ``listening``: addresses as bound, ``host:port``.
    """

    version: str
    time_us: int
    machine: MachineReport
    directory: DirectoryReport
    listening: tuple[str, ...]
    host: HostReport | None
    cluster: ClusterReport | None


@dataclass(frozen=True, slots=True)
class ReachQuery:
    """Which addresses to measure, with how many round trips each, and how long to wait for each."""

    addresses: tuple[str, ...]
    probes: int
    patience_s: float

    def validate(self) -> None:
        """Raise ValueError if it is out of bounds; the addresses are not looked at."""
        if len(self.addresses) > REACH_ADDRESSES_MAX:
            raise ValueError(f"{len(self.addresses)} addresses are too many: at most {REACH_ADDRESSES_MAX}")
        if not 1 <= self.probes <= REACH_PROBES_MAX:
            raise ValueError(f"{self.probes} round trips are out of range: from 1 to {REACH_PROBES_MAX}")
        if not 0 < self.patience_s <= REACH_PATIENCE_S_MAX:
            raise ValueError(
                f"a patience of {self.patience_s:g} s is out of range: more than 0, "
                f"at most {REACH_PATIENCE_S_MAX:g} s"
            )


@dataclass(frozen=True, slots=True)
class PathReport:
    """The way to one address: its round trips, or why there were none (``problem``)."""

    address: str
    median_s: float
    worst_s: float
    problem: str


@dataclass(frozen=True, slots=True)
class ReachReport:
    """What was asked for, in the order of the addresses."""

    paths: tuple[PathReport, ...]
