"""All that the cluster core knows: the store's records and what may be forgotten at a restart.

Every value is frozen, so that ``copy`` is shallow and cheap.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from ferry_cluster.records import (
    DrainRecord,
    EpochFloor,
    MigrationRecord,
    NodeRecord,
    Origin,
    Ownership,
    PolicyRecord,
    QuorumRecord,
    RaisedEpoch,
    Record,
    VmRecord,
)
from ferry_types.eras import RULES, Era, EraRules
from ferry_types.messages import HostEnvelope, MigrationProgress, VmRunning
from ferry_types.migrations import ENDED, MigrationState
from ferry_types.networks import Network
from ferry_types.profiles import LeaseTiming
from ferry_types.quorum import VoteSet, WitnessPromise
from ferry_types.roles import Failback


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What an operator chose for the whole cluster."""

    cluster: str
    era: Era
    timing: LeaseTiming
    forced: bool = False
    """An admin has overridden quorum: unsafe, until this reign ends."""
    seed: str = ""
    """Random; tokens of moves that no admin has asked for are made from it."""
    networks: tuple[Network, ...] = ()

    @property
    def rules(self) -> EraRules:
        """Limits of the era."""
        return RULES[self.era]


EVERY_SESSION = 2**64 - 1
"""``Attendance.lost_session`` of a life that is certified dead (rule C1)."""


@dataclass(frozen=True, slots=True)
class Attendance:
    """A node's presence, as far as this reign knows it.

    ``lease_until``: the coordinator acts against the node no earlier (rule L1); None once it is lost.
    ``lost_session``: sessions up to this one have been judged lost and get no more grants.
    ``told``: the vote set that it was told of on this stream. ``isolated``: it is silent, but its lease has
    not run out (era 2016).
    """

    session: int = 0
    stream: int | None = None
    lease_until: float | None = None
    lost_session: int = 0
    told: VoteSet | None = None
    isolated: bool = False


@dataclass(frozen=True, slots=True)
class FailoverRound:
    """Voters are asked to acknowledge a node's loss (rule Q2). Numbers rise within a term."""

    number: int
    incarnation: str
    asked_at: float
    acknowledged: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Proposal:
    """A vote set that is to take effect once majorities of it and of the present one have recorded it."""

    number: int
    voters: tuple[str, ...]
    voting_witness: str
    asked_at: float
    recorded: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WitnessView:
    """What this reign knows of the witness, which it has asked ``address`` about.

    ``first_read_at``: promises in its record -> since when this reign has seen them (rule Q4).
    ``failing_since``: it has not answered since then; None: it has, or was not asked yet.
    """

    address: str = ""
    asked_at: float = float("-inf")
    awaits_answer: bool = False
    first_read_at: tuple[tuple[WitnessPromise, float], ...] = ()
    failing_since: float | None = None

    def is_silent(self, now: float, span_s: float) -> bool:
        """Whether it has not answered for so long."""
        return self.failing_since is not None and now - self.failing_since >= span_s


@dataclass(frozen=True, slots=True)
class Eviction:
    """A node is to go once it has no vote any more, and by force once its VMs are off.

    ``until``: then the request is refused. ``pauses``: it was not paused before.
    """

    request: int
    until: float
    force: bool = False
    pauses: bool = False


@dataclass(frozen=True, slots=True)
class PendingJoin:
    """A new life of a node whose former life may still be running (rule C1: it waits in joining).

    ``since``: when it asked, in the coordinator's monotonic seconds.
    """

    stream: int
    envelope: HostEnvelope
    since: float


@dataclass(slots=True)
class ClusterState:
    """The state machine's state. Only ``Turn`` writes it."""

    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    vms: dict[str, VmRecord] = field(default_factory=dict)
    owners: dict[str, Ownership] = field(default_factory=dict)
    raised: dict[str, RaisedEpoch] = field(default_factory=dict)
    migrations: dict[str, MigrationRecord] = field(default_factory=dict)
    under_way: dict[str, MigrationRecord] = field(default_factory=dict)
    """Those of ``migrations`` that have not ended, oldest request first."""
    epoch_floor: int = 0
    quorum: QuorumRecord = field(default_factory=QuorumRecord)
    drains: dict[str, DrainRecord] = field(default_factory=dict)
    policy: PolicyRecord = field(default_factory=PolicyRecord)

    attendance: dict[str, Attendance] = field(default_factory=dict)
    streams: dict[int, str] = field(default_factory=dict)
    pending: dict[str, PendingJoin] = field(default_factory=dict)
    running: dict[str, int] = field(default_factory=dict)
    """VM -> epoch under which its owner has reported it running."""
    held: frozenset[str] = frozenset()
    """VMs whose owner began a new session and has not reported them running since."""
    progress: dict[str, MigrationProgress] = field(default_factory=dict)
    accepted_at: dict[str, float] = field(default_factory=dict)
    target_runs: dict[str, VmRunning] = field(default_factory=dict)
    """Committed moves whose target runs -> what it has said of that."""
    refused_by: dict[str, frozenset[str]] = field(default_factory=dict)
    """VM -> nodes that refused to start it since it was last wanted."""
    waiting: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    """("on" or "off", VM) -> admin requests to answer."""
    wall_us: int = 0
    """Unix time at the last tick, microseconds."""
    delayed: frozenset[str] = frozenset()
    """VMs that are to start later."""
    displaced: frozenset[str] = frozenset()
    """VMs that have failed over and are to go back to an owner that they prefer."""
    judge_after: float = 0.0
    last_now: float = 0.0
    round_number: int = 0
    """Of the last failover round of this term."""
    rounds: dict[str, FailoverRound] = field(default_factory=dict)
    """Node -> the open round against it."""
    proposal: Proposal | None = None
    evicting: dict[str, Eviction] = field(default_factory=dict)
    witness: WitnessView = WitnessView()
    vote_set: VoteSet | None = None
    """The vote set in effect with its addresses, worked out when first asked for; None: anew."""
    network_metrics: tuple[tuple[int, Network], ...] | None = None
    """Networks with the metrics in effect, the lowest first, worked out when first asked for; None: anew."""

    @classmethod
    def from_records(cls, records: Iterable[Record]) -> "ClusterState":
        """The state after a start: what the store holds and nothing else."""
        state = cls()
        moves = []
        for record in records:
            if isinstance(record, MigrationRecord):
                moves.append(record)
            else:
                state.put(record)
        for move in sorted(moves, key=lambda move: move.number):
            state.put(move)
        return state

    def put(self, record: Record) -> None:
        """Place a record under its key."""
        match record:
            case NodeRecord():
                self.nodes[record.name] = record
                self.vote_set = None
                self.network_metrics = None
            case QuorumRecord():
                self.quorum = record
                self.vote_set = None
            case VmRecord():
                self._index(record)
            case Ownership():
                self.owners[record.vm] = record
            case RaisedEpoch():
                self.raised[record.vm] = record
            case MigrationRecord():
                self.migrations[record.id] = record
                if record.state in ENDED:
                    self.under_way.pop(record.id, None)
                else:
                    self.under_way[record.id] = record
            case DrainRecord():
                self.drains[record.node] = record
            case PolicyRecord():
                self.policy = record
            case EpochFloor():
                self.epoch_floor = record.epoch

    def _index(self, record: VmRecord) -> None:
        name = record.spec.name
        self.vms[name] = record
        if (record.starts_at_us > 0) != (name in self.delayed):
            self.delayed ^= {name}
        goes_back = record.failed_over and record.rules.failback is not Failback.OFF
        if goes_back != (name in self.displaced):
            self.displaced ^= {name}

    def forget_vm(self, name: str) -> None:
        """Remove a VM."""
        del self.vms[name]
        self.delayed -= {name}
        self.displaced -= {name}

    def copy(self) -> "ClusterState":
        """An independent state with the same values."""
        copied = ClusterState()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(copied, name, value.copy() if isinstance(value, dict) else value)
        return copied

    def fingerprint(self) -> str:
        """Equal for equal states, whatever order they were built in."""
        parts = []
        for name in self.__slots__:
            value = getattr(self, name)
            if isinstance(value, dict):
                parts.append(f"{name}={sorted(value.items(), key=lambda item: str(item[0]))!r}")
            elif isinstance(value, frozenset):
                parts.append(f"{name}={sorted(value)!r}")
            else:
                parts.append(f"{name}={value!r}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    # --- questions that several rules ask ---------------------------------------------------------

    def acknowledged_by(self, node: str) -> str:
        """How many have acknowledged a node's loss (``1 of 3 votes``); empty if nobody was asked."""
        known, votes = self.rounds.get(node), self.quorum.votes
        return "" if known is None else f"{len(known.acknowledged & votes)} of {len(votes)} votes"

    def active_migrations(self) -> list[MigrationRecord]:
        """Moves that have not ended, oldest request first."""
        return list(self.under_way.values())

    def migration_of(self, vm: str) -> MigrationRecord | None:
        """The VM's move that has not ended."""
        return next((move for move in self.active_migrations() if move.vm == vm), None)

    def is_committed(self, move: MigrationRecord) -> bool:
        """Whether the move's one commit point has been passed."""
        owner = self.owners.get(move.vm)
        return owner is not None and owner.origin is Origin.MOVE and owner.migration_id == move.id

    def owned_by(self, node: str) -> list[VmRecord]:
        """VMs whose owner is a life of this node, by name."""
        names = sorted(vm for vm, owner in self.owners.items() if owner.node == node and vm in self.vms)
        return [self.vms[name] for name in names]

    def owns(self, node: NodeRecord, vm: str, epoch: int) -> bool:
        """Whether this life of the node owns the VM under exactly this epoch."""
        owner = self.owners.get(vm)
        return owner is not None and (owner.node, owner.incarnation, owner.epoch) == (
            node.name,
            node.incarnation,
            epoch,
        )

    def runs(self, vm: str, epoch: int) -> bool:
        """Whether the VM is known to run under this epoch, and not to be held."""
        return self.running.get(vm) == epoch and vm not in self.held

    def is_live(self, node: str, now: float) -> bool:
        """Whether the node is up, connected, not isolated, and inside its lease."""
        present = self.attendance.get(node)
        record = self.nodes.get(node)
        return (
            record is not None
            and record.up
            and present is not None
            and present.stream is not None
            and not present.isolated
            and present.lease_until is not None
            and now < present.lease_until
        )

    def is_quarantined(self, node: NodeRecord) -> bool:
        """Whether the node is kept out because it came and went too often."""
        return node.quarantined_until_us > self.wall_us

    def memory_used_bytes(self) -> dict[str, int]:
        """Node -> memory of the VMs that it owns, and of those on their way to it or not yet gone from it."""
        used = dict.fromkeys(self.nodes, 0)
        for vm, owner in self.owners.items():
            if owner.node in used and vm in self.vms:
                used[owner.node] += self.vms[vm].spec.memory_bytes
        for move in self.active_migrations():
            other = move.source if self.is_committed(move) else move.target
            used[other] += move.memory_bytes
        return used

    def slots_used(self) -> dict[str, int]:
        """Node -> moves under way in which it takes part."""
        used = dict.fromkeys(self.nodes, 0)
        for move in self.active_migrations():
            if move.state is not MigrationState.QUEUED:
                for node in (move.source, move.target):
                    used[node] = used.get(node, 0) + 1
        return used
