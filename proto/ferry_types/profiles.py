"""Heartbeat and lease timing, and the margins that keep two clocks from disagreeing."""

from dataclasses import dataclass

DRIFT_RATE = 0.01
"""Bound on the difference in rate of any two monotonic clocks: 1 %."""

STOP_MARGIN_S = 0.1
"""Bound on the time that a host needs to pause its VMs once its deadline has come."""

STALL_AFTER_BEATS = 2
"""A coordinator that did not look at its clock for so many beats has stalled, and waits before it judges
anyone (rule L5)."""


PROMISE_AFTER_BEATS = 2.5
"""A host that was granted nothing it asked for within so many beats asks the voters: the present grant was
late, and two more rounds fit into what is left of it."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """How often a host renews, and how long a grant holds."""

    name: str
    beat_s: float
    lease_s: float

    @property
    def host_span_s(self) -> float:
        """By then, counted from *sending* the renewal, a host has paused its VMs: ``L(1-e)`` (rule L1)."""
        return self.lease_s * (1 - DRIFT_RATE) - STOP_MARGIN_S

    @property
    def coordinator_span_s(self) -> float:
        """No earlier, counted from *receiving* it, the coordinator acts: ``L(1+e)`` (rule L1)."""
        return self.lease_s * (1 + DRIFT_RATE) + STOP_MARGIN_S


PROFILES: dict[str, LeaseTiming] = {
    "fast": LeaseTiming("fast", beat_s=0.25, lease_s=2.0),
    "windows": LeaseTiming("windows", beat_s=1.0, lease_s=5.0),
}
"""``windows``: a heartbeat every second, lost after five missed, as Failover Clustering's defaults."""
