"""Virtual machines and hosts as the cluster knows them."""

from dataclasses import dataclass
from enum import StrEnum

from ferry_types.limits import PAGE_SIZE, VM_MEMORY_BYTES_MAX, VM_MEMORY_BYTES_MIN
from ferry_types.names import validate_name
from ferry_types.workloads import FillSpec, WorkloadSpec


class VmState(StrEnum):
    """What people see of a VM."""

    OFF = "off"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    MIGRATING = "migrating"
    FAILED = "failed"


class Priority(StrEnum):
    """Order of start after a failover; ``none`` stays off."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


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
    JOINING = "joining"


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a host offers."""

    memory_bytes: int
    processors: int
    migration_limit: int


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
