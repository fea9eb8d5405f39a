"""Which connections an attempt uses: how many, and over which routes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from ferry_types.links import MTU_STANDARD
from ferry_types.messages import Route
from ferry_types.migrations import TransportOption, lane_count


@dataclass(frozen=True, slots=True)
class LanePlan:
    """One connection to be made. ``address``: where the target's gRPC server listens (host:port)."""

    number: int
    source_nic: str
    target_nic: str
    address: str
    mtu: int


def plan_lanes(option: TransportOption, routes: Sequence[Route], target_address: str) -> tuple[LanePlan, ...]:
    """The lanes of an attempt, numbered from 0: every route gets one before any gets a second.

    Without routes all go over one that has no name, to ``target_address``.
    """
    ways = tuple(routes) or (Route("", "", target_address),)
    count = lane_count(option, len(ways))
    turns = chain.from_iterable(repeat(ways))
    return tuple(
        LanePlan(number, way.source_nic, way.target_nic, way.address, way.mtu or MTU_STANDARD)
        for number, way in zip(range(count), turns, strict=False)
    )
