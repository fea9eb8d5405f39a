"""How long a silent node's VMs are left alone before it is given up: the lease, longer from era 2016 on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ferry_types.eras import RULES, Era
from ferry_types.profiles import PROFILES, LeaseTiming
from ferry_types.units import format_duration

RESILIENCY_PERIOD_S: Final[Mapping[str, float]] = {"fast": 60.0, "windows": 240.0}
"""By profile. Windows Server 2016's ``ResiliencyDefaultPeriod``, four minutes, is that of ``windows``."""

RESILIENCY_PERIOD_S_MAX: Final = 3600.0


def timing_of(profile: str, era: Era, resiliency_period_s: float | None) -> LeaseTiming:
    """Beat and lease of a cluster.

    ``resiliency_period_s``: what an operator has chosen, None for what profile and era say. Raises ValueError
    if the era has no such period, or if it is out of range.
    """
    timing = PROFILES[profile]
    if not RULES[era].resiliency:
        if resiliency_period_s is not None:
            raise ValueError(f"era {era} has no resiliency period; choose era {Era.WS2016}, or leave it out")
        return timing
    period_s = RESILIENCY_PERIOD_S[profile] if resiliency_period_s is None else resiliency_period_s
    if not timing.lease_s <= period_s <= RESILIENCY_PERIOD_S_MAX:
        raise ValueError(
            f"a resiliency period of {format_duration(period_s)} is out of range: from {timing.lease_s:g}s, "
            f"the lease of profile {profile}, to {RESILIENCY_PERIOD_S_MAX / 3600:g}h"
        )
    return replace(timing, lease_s=period_s)
