"""What the coordinator keeps in the store: one frozen value per key.

Everything that a decision rests on after a restart is here; what a restart may forget is in
``ferry_cluster.state``.
"""

from dataclasses import dataclass
from enum import StrEnum

from ferry_types.drains import DrainState, Stuck
from ferry_types.migrations import MigrationFigures, MigrationOptions, MigrationState
from ferry_types.networks import NicFault
from ferry_types.quorum import WITNESS
from ferry_types.roles import NO_RULES, RoleRules
from ferry_types.vms import Capacity, VmSpec


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A member: its identity and the last life that was admitted.

    ``paused``: it runs what it has, and gets nothing more. ``losses_us``: when it was lost of late, and until
    when it is kept out for that; Unix time, microseconds. ``away``: it has left unasked, which was counted.
    ``nics_down``: those of its NICs that it last said were down.
    """

    name: str
    uuid: str
    incarnation: str
    address: str
    echo_address: str
    capacity: Capacity
    version: str
    up: bool
    paused: bool = False
    losses_us: tuple[int, ...] = ()
    quarantined_until_us: int = 0
    away: bool = False
    nics_down: tuple[NicFault, ...] = ()

    @property
    def key(self) -> str:
        """Key in the store."""
        return f"node/{self.name}"


@dataclass(frozen=True, slots=True)
class VmRecord:
    """A VM and whether it is wanted to run.

    ``unproven`` until its first start succeeded: a refused first start takes the VM back.
    ``reason`` says why a wanted VM does not run. ``failovers_us``: when it was failed over of late, Unix
    time, microseconds. ``failed_over``: it is not where somebody has put it. ``starts_at_us``: no earlier;
    0: at once. ``ousted``: why it is being turned off although it is wanted; it then starts elsewhere.
    ``given_up``: it has failed over too often, and waits for an admin.
    """

    spec: VmSpec
    wanted: bool
    unproven: bool = False
    reason: str = ""
    rules: RoleRules = NO_RULES
    failovers_us: tuple[int, ...] = ()
    failed_over: bool = False
    starts_at_us: int = 0
    ousted: str = ""
    given_up: bool = False

    @property
    def stops(self) -> bool:
        """Whether its owner is to turn it off."""
        return not self.wanted or bool(self.ousted)

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
    """One move, from request to end. ``epoch`` is the source's; a commit or an abort raises it.

    ``cause``: what asked for it if no admin did (drain, failback). ``network``: over which its pages go, once
    they do; empty also if one of its hosts has no NICs. ``option_reason``: why its option is not the one that
    was wished.
    """

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
    cause: str = ""
    figures: MigrationFigures | None = None
    total_s: float | None = None
    network: str = ""
    option_reason: str = ""

    @property
    def number(self) -> int:
        """Rises with each request."""
        return int(self.id.removeprefix("m"))

    @property
    def key(self) -> str:
        """Key in the store."""
        return f"migration/{self.id}"


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a drain has tried to move a VM in vain."""

    vm: str
    count: int


@dataclass(frozen=True, slots=True)
class DrainRecord:
    """A node is to be emptied by live migration. ``to``: onto which host; empty: the best for each VM.

    ``until_us``: Unix time, microseconds; 0: without deadline. ``taken``: VMs that were on the node, which a
    failback brings home.
    """

    node: str
    to: str
    until_us: int
    stuck: Stuck
    state: DrainState = DrainState.ACTIVE
    reason: str = ""
    taken: tuple[str, ...] = ()
    attempts: tuple[Attempts, ...] = ()

    @property
    def key(self) -> str:
        """Key in the store."""
        return f"drain/{self.node}"

    def is_late(self, wall_us: int) -> bool:
        """Whether its deadline has passed at this Unix time (microseconds)."""
        return 0 < self.until_us <= wall_us


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """What an admin has chosen for the whole cluster.

    ``enforced_anti_affinity``: a VM stays off rather than share a host with one of its classes. A node that
    is lost ``quarantine_threshold`` times within ``quarantine_period_s`` is kept out for ``quarantine_s``;
    a threshold of 0: never (era 2016). ``era`` and ``lease_s`` are those of the last reign: hosts may hold
    leases of it.
    """

    enforced_anti_affinity: bool = False
    quarantine_threshold: int = 3
    quarantine_period_s: float = 3600.0
    quarantine_s: float = 7200.0
    era: str = ""
    lease_s: float = 0.0

    @property
    def key(self) -> str:
        """Key in the store."""
        return "policy"


Record = (
    NodeRecord
    | VmRecord
    | Ownership
    | RaisedEpoch
    | EpochFloor
    | QuorumRecord
    | MigrationRecord
    | DrainRecord
    | PolicyRecord
)


RECORD_TYPES: dict[str, type[Record]] = {
    "node": NodeRecord,
    "vm": VmRecord,
    "owner": Ownership,
    "raised": RaisedEpoch,
    "epoch-floor": EpochFloor,
    "quorum": QuorumRecord,
    "migration": MigrationRecord,
    "drain": DrainRecord,
    "policy": PolicyRecord,
}
"""First part of a key -> type of its value."""
