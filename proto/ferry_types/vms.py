"""Virtual machines and hosts as the cluster knows them."""

from dataclasses import dataclass
from enum import StrEnum

from ferry_types.limits import PAGE_SIZE, VM_MEMORY_BYTES_MAX, VM_MEMORY_BYTES_MIN
from ferry_types.migrations import TransportOption
from ferry_types.names import validate_name
from ferry_types.networks import Nic, Team
from ferry_types.qos import QosPolicy
from ferry_types.roles import SWITCH_DEFAULT, Priority
from ferry_types.scale import check_scale
from ferry_types.workloads import FillSpec, WorkloadSpec

DOMAIN_DEFAULT = "ferry.local"
"""The Active Directory domain that a host belongs to unless told otherwise."""


class VmState(StrEnum):
    """What people see of a VM."""

    OFF = "off"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    UNMONITORED = "unmonitored"
    MIGRATING = "migrating"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class VmSpec:
    """Configuration of a VM: everything a host needs to boot it."""

    name: str
    memory_bytes: int
    workload: WorkloadSpec
    fill: FillSpec
    priority: Priority = Priority.MEDIUM

    def validate(self) -> None:
        """Raise ValueError if a field is out of range."""
        validate_name(self.name, "VM name")
        if not VM_MEMORY_BYTES_MIN <= self.memory_bytes <= VM_MEMORY_BYTES_MAX:
            raise ValueError(
                f"memory of {self.memory_bytes} bytes is out of range: "
                f"from {VM_MEMORY_BYTES_MIN} (4 MiB) to {VM_MEMORY_BYTES_MAX} (1 TiB)"
            )
        if self.memory_bytes % PAGE_SIZE:
            raise ValueError(f"memory of {self.memory_bytes} bytes is not a multiple of {PAGE_SIZE}")
        self.workload.validate(self.memory_bytes)
        self.fill.validate()


class NodeState(StrEnum):
    """What people see of a node."""

    UP = "up"
    DOWN = "down"
    PAUSED = "paused"
    DRAINING = "draining"
    JOINING = "joining"
    ISOLATED = "isolated"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Processor:
    """A processor model. Those of one vendor have all that earlier generations of it had."""

    vendor: str = "intel"
    generation: int = 1


PROCESSOR_DEFAULT = Processor()
"""What a host has unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a host offers.

    ``level``: the Windows release that it plays, as an era's name; empty: that of its cluster.
    ``migration_option``: how VMs leave it unless a move says otherwise; None: by TCP/IP.
    ``scale``: how much smaller memory and rates really are there; all that is here is in emulated units.
    """

    memory_bytes: int
    processors: int
    migration_limit: int
    processor: Processor = PROCESSOR_DEFAULT
    switches: tuple[str, ...] = (SWITCH_DEFAULT,)
    domain: str = DOMAIN_DEFAULT
    level: str = ""
    nics: tuple[Nic, ...] = ()
    teams: tuple[Team, ...] = ()
    migration_option: TransportOption | None = None
    qos: tuple[QosPolicy, ...] = ()
    scale: int = 1

    def validate(self) -> None:
        """Raise ValueError if the scale is out of range."""
        check_scale(self.scale)


class ImagePhase(StrEnum):
    """Where a host stands with a VM image that it holds (the host core's states)."""

    BOOTING = "booting"
    RAISING = "raising"
    RUNNING = "running"
    SWITCHING = "switching"
    AWAITING = "awaiting"
    STOPPING = "stopping"
    PREPARING = "preparing"
    RECEIVING = "receiving"
    READY = "ready"
