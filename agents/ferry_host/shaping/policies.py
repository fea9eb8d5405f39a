"""What classes of traffic get of a NIC or team."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ferry_types.links import TrafficClass
from ferry_types.qos import WEIGHT_SUM


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """What a class of traffic gets of a NIC or team. Raises ValueError for values out of bounds."""

    limit_bytes_per_s: float = 0
    """Of the link's rate, headers included (ThrottleRateAction of New-NetQosPolicy); 0: no limit."""
    weight: int = 0
    """Its minimum share in per cent (MinBandwidthWeightAction), 1 to 100; 0: a share of what others leave."""

    def __post_init__(self) -> None:
        check_limit(self.limit_bytes_per_s)
        if not 0 <= self.weight <= WEIGHT_SUM:
            raise ValueError(f"a weight of {self.weight} is not between 0 and {WEIGHT_SUM}")


def effective_weights(policies: Mapping[TrafficClass, ClassPolicy]) -> dict[TrafficClass, float]:
    """The weight of every class: its own, or an equal part of what is left of 100, and never nothing.

    Raises ValueError if the weights add up to more than 100.
    """
    taken = sum(policy.weight for policy in policies.values())
    if taken > WEIGHT_SUM:
        raise ValueError(
            f"the weights of the classes add up to {taken}: at most {WEIGHT_SUM} can be shared out"
        )
    given = {kind: policies[kind].weight if kind in policies else 0 for kind in TrafficClass}
    without = sum(weight == 0 for weight in given.values())
    rest = max(WEIGHT_SUM - taken, 1)
    return {kind: weight or rest / without for kind, weight in given.items()}


def check_limit(limit_bytes_per_s: float) -> None:
    """Raise ValueError for a limit that no class can have."""
    if not 0 <= limit_bytes_per_s < math.inf:
        raise ValueError(f"the limit of a class is {limit_bytes_per_s}: give a number of 0 or more")
