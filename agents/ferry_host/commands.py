"""What the host core asks the agent to do, in the order of the list. None of it may block."""

from dataclasses import dataclass

from ferry_types.messages import BeginOutgoing, HostEnvelope
from ferry_types.migrations import HandOffTimes
from ferry_types.networks import Network
from ferry_types.quorum import PromiseRequest, Voter, VotingRecord, WitnessRecord
from ferry_types.vms import VmSpec


@dataclass(frozen=True, slots=True)
class Report:
    """Send to the coordinator if the stream is open; what matters is repeated after a rejoin."""

    envelope: HostEnvelope


@dataclass(frozen=True, slots=True)
class SetDeadline:
    """Guests may run while the monotonic clock is below this; None closes the gate at once (rule L1).

    ``because``: why there is none.
    """

    deadline_s: float | None
    because: str = ""


@dataclass(frozen=True, slots=True)
class SetBeat:
    """Send ``Beat`` this often, and at once. ``networks``: those of the cluster."""

    beat_s: float
    era: str
    cluster: str
    networks: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class BootImage:
    """Make memory and fill it; answers Booted or BootFailed."""

    spec: VmSpec
    epoch: int


@dataclass(frozen=True, slots=True)
class RunVcpu:
    """Start or resume the vCPU under this epoch; answers QuantumRan."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class HoldVcpu:
    """Pause the vCPU; memory stays."""

    vm: str


@dataclass(frozen=True, slots=True)
class HaltImage:
    """Stop the vCPU and free the memory; answers Halted."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class DestroyImage:
    """Stop the vCPU if there is one and free the memory; no answer."""

    vm: str


@dataclass(frozen=True, slots=True)
class AllocateIncoming:
    """Make memory for an arriving VM; answers IncomingAllocated or IncomingFailed."""

    migration_id: str
    token: str
    spec: VmSpec
    epoch: int


@dataclass(frozen=True, slots=True)
class DropIncoming:
    """Forget an arriving VM: end its streams, free its memory; no answer."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class AdoptIncoming:
    """The arrived image becomes a VM of this host, under this epoch, its vCPU not yet running."""

    migration_id: str
    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class StartOutgoing:
    """Copy a VM to the target; answers OutgoingProgress, SwitchDue, FinalCopyDue, OutgoingFailed."""

    order: BeginOutgoing


@dataclass(frozen=True, slots=True)
class SwitchOver:
    """The hand-off is armed: pause the guest and send its last pages."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class SendFinal:
    """The point of no return is passed: send the end of the final copy."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class StopOutgoing:
    """End the attempt's streams and forget it; no answer."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class ReleaseSource:
    """The target runs: delete the image; answers SourceGone. Then tell who asks where the guest answers now.

    Seconds and ``hand_off`` are on the target's monotonic clock. The guest answers at ``echo_address`` under
    ``epoch``; empty: nobody knows where.
    """

    migration_id: str
    vm: str
    epoch: int
    first_quantum_at_s: float
    hand_off: HandOffTimes | None
    echo_address: str


@dataclass(frozen=True, slots=True)
class AnnounceGuest:
    """Tell watchers that the guest has begun to run here under this epoch, and where it answers."""

    vm: str
    epoch: int


@dataclass(frozen=True, slots=True)
class KeepVotes:
    """Make the voting record durable; answers VotesKept, or nothing if it cannot be done."""

    record: VotingRecord


@dataclass(frozen=True, slots=True)
class AnswerPromise:
    """Answer a peer; an empty objection is a promise."""

    reply: int
    objection: str


@dataclass(frozen=True, slots=True)
class AskPromise:
    """Ask a voter; answers PromiseAnswered, or nothing."""

    poll: int
    voter: Voter
    request: PromiseRequest


@dataclass(frozen=True, slots=True)
class ReadWitness:
    """Ask the witness for its record; answers WitnessRead, or nothing."""

    poll: int
    address: str


@dataclass(frozen=True, slots=True)
class ReplaceWitness:
    """Replace the witness's record; answers WitnessReplaced, or nothing."""

    poll: int
    address: str
    record: WitnessRecord


Command = (
    Report
    | SetDeadline
    | SetBeat
    | BootImage
    | RunVcpu
    | HoldVcpu
    | HaltImage
    | DestroyImage
    | AllocateIncoming
    | DropIncoming
    | AdoptIncoming
    | StartOutgoing
    | SwitchOver
    | SendFinal
    | StopOutgoing
    | ReleaseSource
    | AnnounceGuest
    | KeepVotes
    | AnswerPromise
    | AskPromise
    | ReadWitness
    | ReplaceWitness
)
