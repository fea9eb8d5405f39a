"""Events that the cluster core handles. The driver makes them; ids and tokens are drawn there."""

from dataclasses import dataclass

from ferry_types.messages import DeathCertificate, HostEnvelope
from ferry_types.migrations import MigrationOptions
from ferry_types.quorum import WitnessRecord
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
    """Time went by. Sent at least once a beat."""


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


@dataclass(frozen=True, slots=True)
class TurnOnVm:
    """An admin starts a VM."""

    request: int
    vm: str


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
    """An admin removes a node from the cluster, dead or alive."""

    request: int
    node: str


@dataclass(frozen=True, slots=True)
class SetQuorum:
    """An admin chooses a witness (address; empty: none) or whether votes are dynamic; None: as it is."""

    request: int
    witness: str | None
    dynamic: bool | None


AdminRequest = CreateVm | TurnOnVm | TurnOffVm | RemoveVm | MigrateVm | CancelMove | EvictNode | SetQuorum
Event = HostMessage | StreamClosed | DeathCertified | Tick | WitnessAnswered | WitnessFailed | AdminRequest
