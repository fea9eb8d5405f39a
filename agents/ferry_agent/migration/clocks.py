"""The offset between the monotonic clocks of source and target.

Black-out begins on the source's clock and ends on the target's. Processes of one machine share one monotonic
clock, which equal boot ids prove; between machines the offset is estimated from round trips, as NTP does
(RFC 5905, section 8: of several exchanges the one with the least delay has the least error).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ClockExchange:
    """One probe: seconds on the source's clock, but ``target_at_s`` on the target's."""

    source_sent_at_s: float
    target_at_s: float
    source_received_at_s: float

    @property
    def round_trip_s(self) -> float:
        """Time until the answer was there."""
        return self.source_received_at_s - self.source_sent_at_s

    @property
    def offset_s(self) -> float:
        """Target's clock minus source's, off by half the round trip at most."""
        return self.target_at_s - (self.source_sent_at_s + self.source_received_at_s) / 2


def estimate_offset_s(exchanges: Sequence[ClockExchange]) -> float:
    """Target's clock minus source's, by the exchange (of at least one) with the shortest round trip."""
    return min(exchanges, key=lambda exchange: exchange.round_trip_s).offset_s


def share_a_clock(boot_id: str, other_boot_id: str) -> bool:
    """Whether two processes live under one boot of one kernel; an unknown (empty) boot id proves nothing."""
    return bool(boot_id) and boot_id == other_boot_id


@cache
def machine_boot_id() -> str:
    """The kernel's boot id (man 5 proc); empty where there is none to read."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
