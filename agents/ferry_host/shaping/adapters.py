"""What a NIC or a team of NICs is like, and what classes of traffic get of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ferry_types.links import MTU_STANDARD, TrafficClass, payload_share

TEAM_MEMBERS_MAX: Final = 32
"""NICs in a team (Windows Server 2012 on)."""

WEIGHT_SUM: Final = 100
"""Weights are per cent of the bandwidth: Windows recommends that they add up to this (New-NetQosPolicy)."""


@dataclass(frozen=True, slots=True)
class NicSpec:
    """A NIC. Rates are those of the link, headers and gaps included; 0: as fast as the machine can.

    Raises ValueError for a negative or endless rate or latency, and for an MTU out of bounds.
    """

    name: str
    rate_bytes_per_s: float = 0
    latency_s: float = 0.0
    """What arrives here is so late; a round trip takes the latencies of both ends."""
    mtu_bytes: int = MTU_STANDARD
    rdma: bool = False

    def __post_init__(self) -> None:
        _check(f"the rate of {self.name}", self.rate_bytes_per_s)
        _check(f"the latency of {self.name}", self.latency_s)
        payload_share(self.mtu_bytes)


class Distribution(StrEnum):
    """How a team spreads its traffic over its members (LoadBalancingAlgorithm of New-NetLbfoTeam)."""

    STATIC = "static"
    """Each flow is hashed to a member (TransportPorts): one stream is never faster than one NIC."""
    DYNAMIC = "dynamic"
    """Flowlets, from era 2012r2 on: one transfer is spread over all members."""


@dataclass(frozen=True, slots=True)
class TeamSpec:
    """Several NICs as one.

    Raises ValueError if it has no members or more than 32, one of them twice, or one with RDMA: a team sees
    only what passes the network stack, which RDMA goes around.
    """

    name: str
    members: tuple[NicSpec, ...]
    distribution: Distribution

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not 1 <= len(names) <= TEAM_MEMBERS_MAX:
            raise ValueError(f"team {self.name} has {len(names)} NICs: give it 1 to {TEAM_MEMBERS_MAX}")
        if len(set(names)) < len(names):
            raise ValueError(f"team {self.name} names a NIC twice: {', '.join(names)}")
        direct = [member.name for member in self.members if member.rdma]
        if direct:
            raise ValueError(
                f"team {self.name} has RDMA on {', '.join(direct)}: leave these NICs out of the team, "
                "or switch their RDMA off"
            )

    @property
    def latency_s(self) -> float:
        """The slowest member's."""
        return max(member.latency_s for member in self.members)

    @property
    def mtu_bytes(self) -> int:
        """The smallest member's: a packet may take any of them."""
        return min(member.mtu_bytes for member in self.members)


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """What a class of traffic gets of a NIC or team. Raises ValueError for values out of bounds."""

    limit_bytes_per_s: float = 0
    """Of the link's rate, headers included (ThrottleRateAction of New-NetQosPolicy); 0: no limit."""
    weight: int = 0
    """Its minimum share in per cent (MinBandwidthWeightAction), 1 to 100; 0: a share of what others leave."""

    def __post_init__(self) -> None:
        _check("the limit of a class", self.limit_bytes_per_s)
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


def _check(what: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{what} is {value}: give a number of 0 or more")
