"""What classes of traffic get of a host's NICs, as an administrator sets it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ferry_types.errors import Refusal, refused
from ferry_types.links import TrafficClass
from ferry_types.networks import RATE_BYTES_PER_S_MAX, RATE_BYTES_PER_S_MIN

WEIGHT_SUM: Final = 100
"""Weights are per cent of the bandwidth: Windows recommends that they add up to this (New-NetQosPolicy)."""


@dataclass(frozen=True, slots=True)
class QosPolicy:
    """What a class of traffic gets of each NIC of a host, each team counting as one, in each direction.

    ``limit_bytes_per_s``: of the link's rate, headers included (ThrottleRateAction of New-NetQosPolicy,
    Set-SmbBandwidthLimit); 0: no limit. ``weight``: its minimum share in per cent
    (MinBandwidthWeightAction), from 1; 0: a part of what others leave.
    """

    traffic_class: TrafficClass
    limit_bytes_per_s: int = 0
    weight: int = 0

    def validate(self) -> None:
        """Raise ValueError if a field is out of range, or nothing is said."""
        limit = self.limit_bytes_per_s
        if limit and not RATE_BYTES_PER_S_MIN <= limit <= RATE_BYTES_PER_S_MAX:
            raise ValueError(
                f"limit of {limit} bytes per second of class {self.traffic_class} is out of range: "
                "from 8kbit/s to 400Gbit/s"
            )
        if not 0 <= self.weight <= WEIGHT_SUM:
            raise ValueError(
                f"weight {self.weight} of class {self.traffic_class} is out of range: from 1 to {WEIGHT_SUM}"
            )
        if not (limit or self.weight):
            raise ValueError(f"class {self.traffic_class} is given neither a limit nor a weight")


def limit_bytes_per_s(policies: Sequence[QosPolicy], traffic_class: TrafficClass) -> int:
    """The limit of a class, 0: none."""
    return next((each.limit_bytes_per_s for each in policies if each.traffic_class is traffic_class), 0)


def qos_problem(policies: Sequence[QosPolicy], *, has_nics: bool) -> Refusal | None:
    """What is against these policies of one host, each of which is valid by itself; or None."""
    classes = [each.traffic_class for each in policies]
    for traffic_class in classes:
        if classes.count(traffic_class) > 1:
            what = f"class {traffic_class} is there twice"
            return refused("qos classes", what, "say all of a class in one place")
    if (taken := sum(each.weight for each in policies)) > WEIGHT_SUM:
        what = (
            f"the weights of the classes add up to {taken}: at most {WEIGHT_SUM} per cent can be shared out"
        )
        return refused("qos weights", what, "lower some of them; a class without one has a part of the rest")
    if policies and not has_nics:
        what = f"class {classes[0]} has a limit or a weight, and the host no NIC that it could hold on"
        return refused("qos without nic", what, "give the host a NIC, or leave it out")
    return None
