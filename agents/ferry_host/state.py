"""All that the host core knows; it lives and dies with the agent process.

An image's phases::

    StartVm -> BOOTING -> RAISING -> RUNNING -> STOPPING -> gone                   (a stop may come earlier)
                                     RUNNING -> SWITCHING -> AWAITING -> gone      (source of a move)
                                     RUNNING <- SWITCHING                          (failed before final copy)
                          RAISING <- SWITCHING, AWAITING                           (abort or take-back)
    PrepareIncoming -> PREPARING -> RECEIVING -> READY -> RAISING -> RUNNING       (target of a move)
"""

from dataclasses import dataclass, field

from ferry_types.errors import Refusal
from ferry_types.messages import ImageReport, RaiseEpoch, SourceReleased, VmRunning
from ferry_types.migrations import HandOffTimes
from ferry_types.networks import NicFault
from ferry_types.profiles import LeaseTiming
from ferry_types.quorum import NO_VOTES, Claim, VoteSet, VotingRecord
from ferry_types.vms import Capacity, ImagePhase, VmSpec

INCOMING = frozenset({ImagePhase.PREPARING, ImagePhase.RECEIVING, ImagePhase.READY})

PHASE_TRANSITIONS: frozenset[tuple[ImagePhase, ImagePhase]] = frozenset(
    {
        (ImagePhase.BOOTING, ImagePhase.RAISING),
        (ImagePhase.BOOTING, ImagePhase.STOPPING),
        (ImagePhase.RAISING, ImagePhase.RUNNING),
        (ImagePhase.RAISING, ImagePhase.STOPPING),
        (ImagePhase.RUNNING, ImagePhase.SWITCHING),
        (ImagePhase.RUNNING, ImagePhase.RAISING),
        (ImagePhase.RUNNING, ImagePhase.STOPPING),
        (ImagePhase.SWITCHING, ImagePhase.RUNNING),
        (ImagePhase.SWITCHING, ImagePhase.AWAITING),
        (ImagePhase.SWITCHING, ImagePhase.RAISING),
        (ImagePhase.AWAITING, ImagePhase.RAISING),
        (ImagePhase.PREPARING, ImagePhase.RECEIVING),
        (ImagePhase.RECEIVING, ImagePhase.READY),
        (ImagePhase.READY, ImagePhase.RAISING),
    }
)
"""Every legal step of an image; besides, any image may be destroyed."""


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who this host is (rule O3)."""

    name: str
    uuid: str
    incarnation: str
    address: str
    echo_address: str
    capacity: Capacity
    version: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An attempt to move a VM away. ``broken``: its streams ended after the final copy was sent."""

    migration_id: str
    switch_due: bool = False
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """A VM image on this host.

    ``held``: the lease ran out since; it goes on only when told that its epoch still stands (rule L4).
    ``arrived_by``: the move that brought it. ``ran_at_s``: its last first quantum, once that has run.
    ``unless_raised``: taken back from a target; void if that has raised this epoch.
    ``ready_at_s``: when all of it had arrived; ``hand_off``: its hand-off, once the move is committed.
    """

    spec: VmSpec
    epoch: int
    phase: ImagePhase
    held: bool = False
    arrived_by: str = ""
    outgoing: Outgoing | None = None
    ran_at_s: float | None = None
    unless_raised: int = 0
    ready_at_s: float = 0.0
    hand_off: HandOffTimes | None = None

    @property
    def name(self) -> str:
        """The VM's name."""
        return self.spec.name

    @property
    def migration_id(self) -> str:
        """The move under way that it is part of, or empty."""
        if self.outgoing is not None:
            return self.outgoing.migration_id
        return self.arrived_by if self.phase in INCOMING else ""

    def raise_epoch(self) -> RaiseEpoch:
        """What it needs of the storage before it may run."""
        return RaiseEpoch(self.name, self.epoch, self.unless_raised)

    def running(self, ran_at_s: float) -> VmRunning:
        """That it runs, since then."""
        return VmRunning(self.name, self.epoch, self.arrived_by, ran_at_s, self.hand_off)

    def report(self) -> ImageReport:
        """Its line in the inventory."""
        return ImageReport(self.name, self.epoch, self.phase, self.migration_id)


@dataclass(frozen=True, slots=True)
class Poll:
    """A round of requests for promises. ``given``: votes that have promised.

    ``tried``: the last revision that the witness's record was to be replaced by.
    """

    number: int
    sent_at_s: float
    claim: Claim
    votes: VoteSet
    given: frozenset[str] = frozenset()
    tried: int = 0


@dataclass(slots=True)
class HostState:
    """The state machine's state."""

    identity: HostIdentity
    session: int = 0
    term: int = 0
    """The highest that this host has seen."""
    timing: LeaseTiming | None = None
    connected: bool = False
    welcome: bool = False
    deadline_s: float | None = None
    """Monotonic; None: no lease in this session yet."""
    paused_because: str = ""
    """Why the last lease ran out, if that was for want of coordinator and majority."""
    next_seq: int = 1
    sent_at: dict[int, float] = field(default_factory=dict)
    """Renewals of this session that are not answered -> when they were sent."""
    images: dict[str, Image] = field(default_factory=dict)
    refused: dict[str, tuple[int, Refusal]] = field(default_factory=dict)
    """VM -> highest epoch that this host will never run, and why (rule O2)."""
    ended_moves: dict[str, Refusal | SourceReleased] = field(default_factory=dict)
    """Moves that ended here -> what was reported, to repeat it; the oldest are forgotten."""

    nics_down: tuple[NicFault, ...] = ()

    vote_set: VoteSet | None = None
    claim: Claim | None = None
    """What the last grant lets this host show to voters; None before the first of its session."""
    extended_from_s: float = 0.0
    """When whatever extended the lease last was sent."""
    poll: Poll | None = None
    next_poll: int = 1
    votes: VotingRecord = NO_VOTES
    """As this host acts by it; ``votes_kept`` has survived being written."""
    votes_kept: VotingRecord = NO_VOTES
    promised: dict[str, float] = field(default_factory=dict)
    """Node -> when the promise to it has run out."""
    quiet_until_s: float | None = 0.0
    """Before then a restarted voter acknowledges nothing (rule Q3); None: not known yet."""

    def copy(self) -> "HostState":
        """An independent state with the same values."""
        copied = HostState(self.identity)
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(copied, name, value.copy() if isinstance(value, dict) else value)
        return copied

    def fingerprint(self) -> str:
        """Equal for equal states, whatever order they were built in."""
        parts = []
        for name in self.__slots__:
            value = getattr(self, name)
            parts.append(f"{name}={sorted(value.items()) if isinstance(value, dict) else value!r}")
        return "\n".join(parts)

    def incoming(self, migration_id: str) -> Image | None:
        """The arriving image of a move."""
        return next(
            (i for i in self.images.values() if i.phase in INCOMING and i.arrived_by == migration_id), None
        )

    def leaving(self, migration_id: str) -> Image | None:
        """The image that a move takes away."""
        return next(
            (i for i in self.images.values() if i.outgoing and i.outgoing.migration_id == migration_id),
            None,
        )

    def memory_used_bytes(self) -> int:
        """Of all images."""
        return sum(image.spec.memory_bytes for image in self.images.values())
