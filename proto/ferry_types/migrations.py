"""Live migrations: options, states and figures."""

from dataclasses import dataclass
from enum import StrEnum

from ferry_types.limits import (
    BLACKOUT_ALLOWED_S_DEFAULT,
    BLACKOUT_ALLOWED_S_MAX,
    PASS_LIMIT_DEFAULT,
    PASS_LIMIT_MAX,
)


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
    SMB = "smb"
    """SMB multichannel: several connections, over one or more networks; a dead one's share is taken over."""
    DIRECT = "direct"
    """The emulated RDMA path: from guest memory to guest memory, without copies in between."""


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """What a user may choose for one move. ``option`` None: what the source host prefers."""

    type: MigrationType = MigrationType.LIVE
    option: TransportOption | None = None
    verify: bool = False
    pass_limit: int = PASS_LIMIT_DEFAULT
    blackout_allowed_s: float = BLACKOUT_ALLOWED_S_DEFAULT

    def validate(self) -> None:
        """Raise ValueError if a field is out of range."""
        if not 1 <= self.pass_limit <= PASS_LIMIT_MAX:
            raise ValueError(f"pass limit {self.pass_limit} is out of range: from 1 to {PASS_LIMIT_MAX}")
        if not 0 <= self.blackout_allowed_s <= BLACKOUT_ALLOWED_S_MAX:
            raise ValueError(
                f"allowed black-out of {self.blackout_allowed_s} s is out of range: "
                f"from 0 to {BLACKOUT_ALLOWED_S_MAX:.0f} s"
            )


@dataclass(frozen=True, slots=True)
class PassFigures:
    """One pass over memory; index 0 is the last copy in the pause. Pages are of 4096 bytes."""

    index: int
    pages_sent: int
    zero_pages: int
    bytes_sent: int
    duration_s: float
    dirty_pages_after: int


@dataclass(frozen=True, slots=True)
class MigrationFigures:
    """What the source measured of one attempt. Unknown is None."""

    passes: tuple[PassFigures, ...] = ()
    final: PassFigures | None = None
    brownout_s: float = 0.0
    blackout_s: float | None = None
    bytes_sent: int = 0
    verified: bool | None = None
    explanation: str = ""
