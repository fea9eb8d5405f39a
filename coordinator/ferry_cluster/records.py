"""What the coordinator keeps in the store: one frozen value per key.

Everything that a decision rests on after a restart is here; what a restart may forget is in
``ferry_cluster.state``.
"""

from dataclasses import dataclass
from enum import StrEnum

from ferry_types.migrations import MigrationFigures, MigrationOptions, MigrationState
from ferry_types.quorum import WITNESS
from ferry_types.vms import Capacity, VmSpec


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A member: its identity and the last life that was admitted."""

    name: str
    uuid: str
    incarnation: str
    address: str
    echo_address: str
    capacity: Capacity
    version: str
    up: bool

    @property
    def key(self) -> str:
        """Key in the store."""
        return f"node/{self.name}"


@dataclass(frozen=True, slots=True)
class VmRecord:
    """A VM and whether it is wanted to run.

    ``unproven`` until its first start succeeded: a refused first start takes the VM back.
    ``reason`` says why a wanted VM does not run.
    """

    spec: VmSpec
    wanted: bool
    unproven: bool = False
    reason: str = ""

    @property
    def key(self) -> str:
        """Key in the store."""
        return f"vm/{self.spec.name}"


class Origin(StrEnum):
    """Which compare-and-set made the present owner (rule S1); tells which order to repeat."""

    NONE = "none"
    BOOT = "boot"
    MOVE = "move"
    ABORT = "abort"
    TAKE_BACK = "take-back"


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who may run a VM: a host's incarnation under an epoch, or nobody. The epoch only rises."""

    vm: str
    epoch: int
    node: str | None = None
    incarnation: str | None = None
    origin: Origin = Origin.NONE
    migration_id: str = ""

    @property
    def key(self) -> str:
        """Key in the store."""
        return f"owner/{self.vm}"


@dataclass(frozen=True, slots=True)
class RaisedEpoch:
    """The array's part (rule D4): no epoch below this one may run or write any more."""

    vm: str
    epoch: int

    @property
    def key(self) -> str:
        """Key in the store."""
        return f"raised/{self.vm}"


@dataclass(frozen=True, slots=True)
class EpochFloor:
    """Highest epoch of any removed VM: a new VM of an old name starts above what any host may remember."""

    epoch: int

    @property
    def key(self) -> str:
        """Key in the store."""
        return "epoch-floor"


@dataclass(frozen=True, slots=True)
class QuorumRecord:
    """The vote set in effect, and what an admin has chosen.

    ``voters``: UUIDs of the hosts with a vote, sorted. ``voting_witness``: address of the witness if it has
    one, else empty. ``highest``: the highest number that any vote set was ever proposed under (rule Q5).
    """

    number: int = 0
    voters: tuple[str, ...] = ()
    voting_witness: str = ""
    highest: int = 0
    witness: str = ""
    dynamic: bool = True

    @property
    def key(self) -> str:
        """Key in the store."""
        return "quorum"

    @property
    def votes(self) -> frozenset[str]:
        """The votes' names."""
        names = frozenset(self.voters)
        return names | {WITNESS} if self.voting_witness else names


@dataclass(frozen=True, slots=True)
class MigrationRecord:
    """One move, from request to end. ``epoch`` is the source's; a commit or an abort raises it."""

    id: str
    vm: str
    source: str
    target: str
    epoch: int
    token: str
    options: MigrationOptions
    state: MigrationState
    memory_bytes: int
    requested_at_us: int
    reason: str = ""
    figures: MigrationFigures | None = None
    total_s: float | None = None

    @property
    def number(self) -> int:
        """Rises with each request."""
        return int(self.id.removeprefix("m"))

    @property
    def key(self) -> str:
        """Key in the store."""
        return f"migration/{self.id}"


Record = NodeRecord | VmRecord | Ownership | RaisedEpoch | EpochFloor | QuorumRecord | MigrationRecord

RECORD_TYPES: dict[str, type[Record]] = {
    "node": NodeRecord,
    "vm": VmRecord,
    "owner": Ownership,
    "raised": RaisedEpoch,
    "epoch-floor": EpochFloor,
    "quorum": QuorumRecord,
    "migration": MigrationRecord,
}
"""First part of a key -> type of its value."""
