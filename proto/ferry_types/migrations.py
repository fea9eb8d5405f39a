"""Live migrations: options, states and figures."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ferry_types.limits import (
    BLACKOUT_ALLOWED_S_DEFAULT,
    BLACKOUT_ALLOWED_S_MAX,
    HELPED_PASSES_MIN,
    PASS_LIMIT_DEFAULT,
    PASS_LIMIT_MAX,
)

BEST = "best"
"""The target that leaves the choice to the cluster."""

LANES_MAX: Final = 8
"""Connections of one attempt: with a frame on its way and one behind it on each, the window is full."""

SMB_LANES_PER_ROUTE: Final = 2
"""Two keep both processors of a small machine busy. (SMB: four for a NIC with receive-side scaling.)"""

DIRECT_LANES_MAX: Final = 2
"""One a route: it keeps a processor busy at either end. On a machine of two, a second one over the same route
costs more than it brings (1 GiB: 0.32 instead of 0.27 s), because its threads take turns with the first's."""


class MigrationState(StrEnum):
    """A move's life: queued, preparing, copying, switching, then one of the three ends."""

    QUEUED = "queued"
    PREPARING = "preparing"
    COPYING = "copying"
    SWITCHING = "switching"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({MigrationState.COMPLETED, MigrationState.FAILED, MigrationState.CANCELLED})


class MigrationType(StrEnum):
    """How a VM moves."""

    LIVE = "live"


class TransportOption(StrEnum):
    """Performance options of a live migration, as Windows Server 2012 R2 has them."""

    TCPIP = "tcpip"
    """One connection."""
    COMPRESSION = "compression"
    """One connection; pages are compressed with what the guests leave of the processors."""
    SMB = "smb"
    """SMB multichannel: several connections, over one or more networks; a dead one's share is taken over."""
    DIRECT = "direct"
    """The emulated RDMA path: from guest memory to guest memory, without copies in between."""


def lane_count(option: TransportOption, routes: int) -> int:
    """Connections of one attempt that has so many routes, at least one.

    They take the routes in turn, so no more routes are used than there are connections.
    """
    match option:
        case TransportOption.SMB:
            return min(SMB_LANES_PER_ROUTE * routes, LANES_MAX)
        case TransportOption.DIRECT:
            return min(routes, DIRECT_LANES_MAX)
        case TransportOption.TCPIP | TransportOption.COMPRESSION:
            return 1


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """What a user may choose for one move.

    ``throttle``, ``switch_at_minimum``, ``abort_over_blackout``: help for guests that dirty pages faster than
    the wire carries them, which Hyper-V does not have; ``ferry_host.convergence`` has the rules. ``option``
    None: what the source host prefers.
    """

    type: MigrationType = MigrationType.LIVE
    option: TransportOption | None = None
    verify: bool = False
    pass_limit: int = PASS_LIMIT_DEFAULT
    blackout_allowed_s: float = BLACKOUT_ALLOWED_S_DEFAULT
    throttle: bool = False
    switch_at_minimum: bool = False
    abort_over_blackout: bool = False

    def validate(self) -> None:
        """Raise ValueError if a field is out of range, or if two contradict each other."""
        if not 1 <= self.pass_limit <= PASS_LIMIT_MAX:
            raise ValueError(f"pass limit {self.pass_limit} is out of range: from 1 to {PASS_LIMIT_MAX}")
        if not 0 <= self.blackout_allowed_s <= BLACKOUT_ALLOWED_S_MAX:
            raise ValueError(
                f"allowed black-out of {self.blackout_allowed_s} s is out of range: "
                f"from 0 to {BLACKOUT_ALLOWED_S_MAX:.0f} s"
            )
        self._validate_help()

    def _validate_help(self) -> None:
        if self.switch_at_minimum and self.abort_over_blackout:
            raise ValueError(
                "--switch-at-minimum and --abort-over-blackout contradict each other: the one switches over "
                "with more left than the allowed black-out takes, the other never does"
            )
        for chosen, option in (
            (self.throttle, "--throttle"),
            (self.switch_at_minimum, "--switch-at-minimum"),
        ):
            if chosen and self.pass_limit < HELPED_PASSES_MIN:
                raise ValueError(
                    f"{option} goes by what passes leave dirty and needs a pass limit of at least "
                    f"{HELPED_PASSES_MIN}, not {self.pass_limit}"
                )
        if self.abort_over_blackout and self.blackout_allowed_s == 0:
            raise ValueError(
                "--abort-over-blackout with an allowed black-out of 0 s would give up every move of a guest "
                "that writes: allow more"
            )


@dataclass(frozen=True, slots=True)
class PassFigures:
    """One pass over memory; index 0 is the last copy in the pause. Pages are of 4096 bytes.

    ``throttle_percent``: by how much the guest was slowed meanwhile.
    """

    index: int
    pages_sent: int
    zero_pages: int
    bytes_sent: int
    duration_s: float
    dirty_pages_after: int
    compressed_pages: int = 0
    """Of ``pages_sent``, those that travelled compressed."""
    compressed_bytes: int = 0
    """What they were compressed to."""
    throttle_percent: int = 0


@dataclass(frozen=True, slots=True)
class WireFigures:
    """What was measured between two hosts before a move.

    ``rate_bytes_per_s``: pages of memory over time, however they travel. ``blackout_floor_s``: how long a
    guest is paused even with nothing left to send: round trips, commits, the first quantum.
    """

    rate_bytes_per_s: float
    blackout_floor_s: float = 0.0

    def validate(self) -> None:
        """Raise ValueError if a field is out of range."""
        if not self.rate_bytes_per_s > 0:
            raise ValueError(f"a wire rate of {self.rate_bytes_per_s} bytes per second carries nothing")
        if not self.blackout_floor_s >= 0:
            raise ValueError(f"a black-out floor of {self.blackout_floor_s} s is out of range")


@dataclass(frozen=True, slots=True)
class MoveEstimate:
    """What a move was expected to take, from what was measured before it.

    ``rate_bytes_per_s``: assumed of the wire. ``write_bytes_per_s``: measured of the guest; a page that it
    writes twice counts twice. ``blackout_s``: None if the move was expected to be given up.
    ``explanation``: why copying would stop when it does, in words.
    """

    passes: int
    brownout_s: float
    blackout_s: float | None
    bytes_sent: int
    rate_bytes_per_s: float
    write_bytes_per_s: float
    explanation: str


@dataclass(frozen=True, slots=True)
class HandOffTimes:
    """Moments of a hand-off in seconds of the target's monotonic clock.

    ``ready_at_s``: it had checked all and said READY; ``run_at_s``: it heard that the move is committed.
    """

    ready_at_s: float
    run_at_s: float


@dataclass(frozen=True, slots=True)
class BlackoutParts:
    """Where a black-out's time went, part after part, in seconds; together they are the black-out.

    Last pages: from the pause until the last page and Final were handed to the transport. Ready: until the
    target had checked all and said READY. Commit: until it heard that the move is committed. Resume: until
    its first quantum began, the raise of its epoch included.
    """

    last_pages_s: float
    ready_s: float
    commit_s: float
    resume_s: float


@dataclass(frozen=True, slots=True)
class MigrationFigures:
    """What the source measured of one attempt, and what it expected before. Unknown is None.

    ``blackout``: the parts of ``blackout_s``.
    """

    passes: tuple[PassFigures, ...] = ()
    final: PassFigures | None = None
    brownout_s: float = 0.0
    blackout_s: float | None = None
    bytes_sent: int = 0
    verified: bool | None = None
    explanation: str = ""
    compression: str = ""
    """How much was compressed and why the rest was not, in words; empty if it was not asked for."""
    estimate: MoveEstimate | None = None
    blackout: BlackoutParts | None = None
