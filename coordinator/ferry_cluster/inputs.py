"""Events that the cluster core handles. The driver makes them; ids and tokens are drawn there."""

from dataclasses import dataclass

from ferry_types.drains import Stuck
from ferry_types.messages import DeathCertificate, HostEnvelope
from ferry_types.migrations import MigrationOptions
from ferry_types.quorum import WitnessRecord
from ferry_types.roles import NO_RULES, RoleChanges, RoleRules
from ferry_types.vms import VmSpec


@dataclass(frozen=True, slots=True)
class HostMessage:
    """A message arrived on a node's stream."""

    stream: int
    envelope: HostEnvelope


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """A node's stream ended. This proves nothing about the node (rule C1)."""

    stream: int


@dataclass(frozen=True, slots=True)
class DeathCertified:
    """A watchdog has certified its agent's death."""

    certificate: DeathCertificate


@dataclass(frozen=True, slots=True)
class Tick:
    """Time went by. Sent at least once a beat.

    ``wall_us``: Unix time, microseconds, for what admins put into hours; no lease is counted by it.
    """

    wall_us: int = 0


@dataclass(frozen=True, slots=True)
class WitnessAnswered:
    """The witness's record as it is now: it was read, or was to be replaced."""

    address: str
    record: WitnessRecord


@dataclass(frozen=True, slots=True)
class WitnessFailed:
    """The witness did not answer, or not in a way that makes sense."""

    address: str


@dataclass(frozen=True, slots=True)
class CreateVm:
    """An admin creates a VM; ``node`` empty lets the cluster place it."""

    request: int
    spec: VmSpec
    node: str
    start: bool
    rules: RoleRules = NO_RULES


@dataclass(frozen=True, slots=True)
class SetVm:
    """An admin changes what the cluster heeds for a VM."""

    request: int
    vm: str
    changes: RoleChanges


@dataclass(frozen=True, slots=True)
class TurnOnVm:
    """An admin starts a VM; ``node`` empty lets the cluster place it."""

    request: int
    vm: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class TurnOffVm:
    """An admin stops a VM."""

    request: int
    vm: str


@dataclass(frozen=True, slots=True)
class RemoveVm:
    """An admin deletes a VM that is off."""

    request: int
    vm: str


@dataclass(frozen=True, slots=True)
class MigrateVm:
    """An admin moves a running VM; ``to`` is a node's name or ``best``."""

    request: int
    vm: str
    to: str
    options: MigrationOptions
    dry_run: bool
    token: str
    requested_at_us: int


@dataclass(frozen=True, slots=True)
class CancelMove:
    """An admin cancels a move."""

    request: int
    migration_id: str


@dataclass(frozen=True, slots=True)
class EvictNode:
    """An admin removes a node from the cluster, dead or alive; ``force``: its VMs fail over."""

    request: int
    node: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class PauseNode:
    """An admin wants no VM to come to a node any more; those that it has stay."""

    request: int
    node: str


@dataclass(frozen=True, slots=True)
class DrainNode:
    """An admin wants a node paused and emptied. ``to``: onto that host; empty: the best for each VM.

    ``within_s``: then the drain is given up; None: never.
    """

    request: int
    node: str
    to: str
    within_s: float | None
    stuck: Stuck


@dataclass(frozen=True, slots=True)
class ResumeNode:
    """An admin lets a node take VMs again, or out of quarantine; ``failback``: the drained VMs come home."""

    request: int
    node: str
    failback: bool


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """An admin chooses for the whole cluster; None: as it is."""

    request: int
    enforced_anti_affinity: bool | None = None
    quarantine_threshold: int | None = None
    quarantine_period_s: float | None = None
    quarantine_s: float | None = None


@dataclass(frozen=True, slots=True)
class SetQuorum:
    """An admin chooses a witness (address; empty: none) or whether votes are dynamic; None: as it is."""

    request: int
    witness: str | None
    dynamic: bool | None


AdminRequest = (
    CreateVm
    | SetVm
    | TurnOnVm
    | TurnOffVm
    | RemoveVm
    | MigrateVm
    | CancelMove
    | PauseNode
    | DrainNode
    | ResumeNode
    | EvictNode
    | SetPolicy
    | SetQuorum
)
Event = HostMessage | StreamClosed | DeathCertified | Tick | WitnessAnswered | WitnessFailed | AdminRequest
