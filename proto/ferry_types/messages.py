"""What a host and the coordinator say to each other.

Both pure cores speak in these values; ``ferry_wire.conversion`` maps each to the message of the same
name in ``ferry/v1/membership.proto``, where fields are explained.
"""

from dataclasses import dataclass

from ferry_types.errors import Refusal
from ferry_types.links import MTU_STANDARD
from ferry_types.migrations import HandOffTimes, MigrationFigures, MigrationOptions, WireFigures
from ferry_types.networks import Network, NicFault
from ferry_types.quorum import VoteSet
from ferry_types.vms import Capacity, ImagePhase, VmSpec


@dataclass(frozen=True, slots=True)
class ImageReport:
    """One VM image that a host holds."""

    vm: str
    epoch: int
    phase: ImagePhase
    migration_id: str = ""


# --- host to coordinator ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Join:
    """The host's identity and inventory, when the stream opens and when a session begins.

    ``nics_down``: those of its NICs that are down.
    """

    name: str
    uuid: str
    address: str
    echo_address: str
    capacity: Capacity
    version: str
    images: tuple[ImageReport, ...]
    paused_because: str = ""
    nics_down: tuple[NicFault, ...] = ()


@dataclass(frozen=True, slots=True)
class Renewal:
    """Asks for another stretch of lease."""

    seq: int


@dataclass(frozen=True, slots=True)
class VmRunning:
    """The first quantum under this epoch has run. ``hand_off``: if a move has brought it."""

    vm: str
    epoch: int
    migration_id: str
    first_quantum_at_s: float
    hand_off: HandOffTimes | None = None


@dataclass(frozen=True, slots=True)
class VmStopped:
    """The VM is turned off; its image is gone."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class OrderRefused:
    """The host will never run this VM under this epoch (rule O2)."""

    vm: str
    epoch: int
    reason: Refusal


@dataclass(frozen=True, slots=True)
class RaiseEpoch:
    """Asks for the VM's raised epoch to be compared and raised (rules D2, D4).

    ``unless_raised``: not if this epoch or a later one was raised before; 0: no matter.
    """

    vm: str
    epoch: int
    unless_raised: int = 0


@dataclass(frozen=True, slots=True)
class IncomingPrepared:
    """The target has memory for the VM and awaits the source."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """How far the source is."""

    migration_id: str
    pass_index: int
    pages_done: int
    pages_total: int
    dirty_pages: int
    rate_bytes_per_s: float
    figures: MigrationFigures


@dataclass(frozen=True, slots=True)
class ArmHandOff:
    """The source would pause now."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class TargetReady:
    """All pages and the device state are at the target and were checked."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class ProposeAbort:
    """A source that sent its last copy asks for the outcome; to ask is to propose abort."""

    migration_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class MigrationFailed:
    """The attempt is over at this side, and the side is still free to say so."""

    migration_id: str
    reason: Refusal


@dataclass(frozen=True, slots=True)
class SourceReleased:
    """The source has deleted its image after "target runs"."""

    migration_id: str
    figures: MigrationFigures


@dataclass(frozen=True, slots=True)
class LossAcknowledged:
    """This voter's answer in a failover round against a node; durable (rules Q2, Q3)."""

    node: str
    incarnation: str
    term: int
    round: int


@dataclass(frozen=True, slots=True)
class VotesRecorded:
    """This voter gives no promise under vote sets before this one; durable (rule Q5)."""

    number: int


@dataclass(frozen=True, slots=True)
class NicsChanged:
    """NICs of the host went down or came up; ``down``: all that are down now."""

    down: tuple[NicFault, ...]


FromHost = (
    Join
    | Renewal
    | VmRunning
    | VmStopped
    | OrderRefused
    | RaiseEpoch
    | IncomingPrepared
    | MigrationProgress
    | ArmHandOff
    | TargetReady
    | ProposeAbort
    | MigrationFailed
    | SourceReleased
    | LossAcknowledged
    | VotesRecorded
    | NicsChanged
)


@dataclass(frozen=True, slots=True)
class HostEnvelope:
    """A message of a host, with the life and the session it was sent in."""

    incarnation: str
    session: int
    body: FromHost


# --- coordinator to host ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Welcome:
    """Renewals may begin. ``networks``: those of the cluster."""

    cluster: str
    beat_s: float
    lease_s: float
    era: str
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """The host stays in state joining, for this reason; its vote counts all the same."""

    reason: str
    lease_s: float


@dataclass(frozen=True, slots=True)
class Grant:
    """The lease is extended, counted from the sending of that renewal.

    ``abandoned_round``: no failover round of this term up to this one goes on against the host.
    ``votes``: the vote set of that number, when it is new to this stream, or a voter's address is.
    """

    seq: int
    abandoned_round: int = 0
    votes_number: int = 0
    votes: VoteSet | None = None


@dataclass(frozen=True, slots=True)
class StartVm:
    """Boot a VM under this epoch."""

    spec: VmSpec
    epoch: int


@dataclass(frozen=True, slots=True)
class StopVm:
    """Turn a VM off."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class GoOn:
    """In a new session: the epoch of this held VM still stands (rule L4)."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class DiscardVm:
    """Destroy the image held under this epoch or an older one: it has been overtaken, or the VM is gone."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class EpochRaised:
    """Answer to RaiseEpoch; not raised means the epoch has been overtaken."""

    vm: str
    epoch: int
    raised: bool


@dataclass(frozen=True, slots=True)
class PrepareIncoming:
    """Reserve memory for a VM that will arrive."""

    migration_id: str
    token: str
    spec: VmSpec
    epoch: int
    source: str


@dataclass(frozen=True, slots=True)
class Route:
    """A way from the source to the target: between which NICs, and where the target listens (host:port).

    ``mtu``: bytes of a packet that both ends and what is between them take.
    """

    source_nic: str
    target_nic: str
    address: str
    mtu: int = MTU_STANDARD


@dataclass(frozen=True, slots=True)
class BeginOutgoing:
    """Copy a running VM to the target, over ``routes``, the best first; none: over its own address.

    ``wire``: what is known of it, for an estimate; None if nothing is.
    """

    migration_id: str
    token: str
    vm: str
    epoch: int
    target: str
    target_address: str
    options: MigrationOptions
    routes: tuple[Route, ...] = ()
    wire: WireFigures | None = None


@dataclass(frozen=True, slots=True)
class Armed:
    """The hand-off is armed: the source may pause."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class CancelMigration:
    """Drop the attempt; the source runs on."""

    migration_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunVm:
    """To the target: the move is committed, it owns this epoch."""

    migration_id: str
    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class TargetRuns:
    """To the source: the VM runs elsewhere, under this epoch, and the image may go.

    ``echo_address``: where the guest answers now; empty if that is not known.
    """

    migration_id: str
    vm: str
    epoch: int
    first_quantum_at_s: float
    hand_off: HandOffTimes | None = None
    echo_address: str = ""


@dataclass(frozen=True, slots=True)
class ResumeSource:
    """To the source: the abort or the take-back is committed, it owns this epoch.

    ``unless_raised``: of a take-back, the target's epoch; its raise is to fail if that was raised.
    """

    migration_id: str
    vm: str
    epoch: int
    unless_raised: int = 0


@dataclass(frozen=True, slots=True)
class AcknowledgeLoss:
    """A failover round against a life of a node asks for this voter's word."""

    node: str
    incarnation: str
    round: int


@dataclass(frozen=True, slots=True)
class RecordVotes:
    """A vote set of this number is to take effect."""

    number: int


ToHost = (
    Welcome
    | Wait
    | Grant
    | StartVm
    | StopVm
    | GoOn
    | DiscardVm
    | EpochRaised
    | PrepareIncoming
    | BeginOutgoing
    | Armed
    | CancelMigration
    | RunVm
    | TargetRuns
    | ResumeSource
    | AcknowledgeLoss
    | RecordVotes
)


@dataclass(frozen=True, slots=True)
class DeathCertificate:
    """From the parent of a node's agent, which has reaped it and all that could run its VMs (rule C1).

    It is about that incarnation and no other; ``cause`` says in words how it ended. ``ordered``: it was told
    to.
    """

    node: str
    incarnation: str
    cause: str
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class HostOrder:
    """A message to one session of one incarnation, sent in one reign of a coordinator."""

    term: int
    incarnation: str
    session: int
    body: ToHost
