"""Events that the host core handles. The agent makes them."""

from dataclasses import dataclass

from ferry_types.errors import Refusal
from ferry_types.messages import HostOrder, MigrationProgress
from ferry_types.migrations import MigrationFigures
from ferry_types.networks import NicFault
from ferry_types.quorum import PromiseRequest, VotingRecord, WitnessRecord


@dataclass(frozen=True, slots=True)
class Connected:
    """A stream to the coordinator is open."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The stream to the coordinator ended. The lease goes on until it runs out."""


@dataclass(frozen=True, slots=True)
class OrderReceived:
    """Something came down the stream."""

    order: HostOrder


@dataclass(frozen=True, slots=True)
class NicsTurned:
    """NICs went down or came up; ``down``: all that are down now."""

    down: tuple[NicFault, ...]


@dataclass(frozen=True, slots=True)
class Beat:
    """Time to renew."""


@dataclass(frozen=True, slots=True)
class LeaseTimer:
    """The deadline may have come."""


@dataclass(frozen=True, slots=True)
class Booted:
    """The image's memory is filled; no quantum has run."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class BootFailed:
    """The image could not be made."""

    vm: str
    epoch: int
    reason: Refusal


@dataclass(frozen=True, slots=True)
class Halted:
    """A VM that was being stopped runs no more and its memory is gone."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class QuantumRan:
    """The first quantum since the vCPU was started or resumed; seconds on this host's monotonic clock."""

    vm: str
    epoch: int
    at_s: float


@dataclass(frozen=True, slots=True)
class GuestCrashed:
    """The guest's program failed in a running VM; its vCPU has ended and runs no more."""

    vm: str
    epoch: int
    reason: Refusal


@dataclass(frozen=True, slots=True)
class IncomingAllocated:
    """Memory for an arriving VM is there."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class IncomingComplete:
    """All pages and the device state arrived, and counts and checksums agree."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class IncomingFailed:
    """The attempt is over at the target."""

    migration_id: str
    reason: Refusal


@dataclass(frozen=True, slots=True)
class OutgoingProgress:
    """How far the copying is."""

    progress: MigrationProgress


@dataclass(frozen=True, slots=True)
class SwitchDue:
    """The source has copied enough and would pause."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class FinalCopyDue:
    """The guest is paused, its last pages are sent: the source asks to send the final copy's end."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class OutgoingFailed:
    """The attempt is over at the source, or its streams broke after the final copy."""

    migration_id: str
    reason: Refusal


@dataclass(frozen=True, slots=True)
class SourceGone:
    """The source's image is deleted after "target runs"."""

    migration_id: str
    figures: MigrationFigures


@dataclass(frozen=True, slots=True)
class PromiseAsked:
    """A peer asks for a promise; the answer goes to ``reply``."""

    reply: int
    request: PromiseRequest


@dataclass(frozen=True, slots=True)
class PromiseAnswered:
    """A voter has answered in a poll; an empty objection is a promise."""

    poll: int
    voter_uuid: str
    objection: str


@dataclass(frozen=True, slots=True)
class WitnessRead:
    """The witness's record, as it is now."""

    poll: int
    record: WitnessRecord


@dataclass(frozen=True, slots=True)
class WitnessReplaced:
    """What came of replacing the witness's record, and the record as it is now."""

    poll: int
    replaced: bool
    record: WitnessRecord


@dataclass(frozen=True, slots=True)
class VotesKept:
    """The voting record has been made durable."""

    record: VotingRecord


Event = (
    Connected
    | Disconnected
    | OrderReceived
    | NicsTurned
    | Beat
    | LeaseTimer
    | Booted
    | BootFailed
    | Halted
    | QuantumRan
    | GuestCrashed
    | IncomingAllocated
    | IncomingComplete
    | IncomingFailed
    | OutgoingProgress
    | SwitchDue
    | FinalCopyDue
    | OutgoingFailed
    | SourceGone
    | PromiseAsked
    | PromiseAnswered
    | WitnessRead
    | WitnessReplaced
    | VotesKept
)
