"""What a network link carries: the classes of traffic on it, and how much of its rate is payload."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

MTU_STANDARD: Final = 1500
"""Bytes of an IP packet on Ethernet (IEEE 802.3, clause 3.2.7)."""

MTU_MIN: Final = 576
"""Every IPv4 host takes packets of this size (RFC 791, section 3.1)."""

MTU_MAX: Final = 9216
"""What switches of data centres take at most. Jumbo frames usually mean 9000."""

_SEGMENT_HEADER_BYTES: Final = 20 + 20 + 12
"""IPv4 (RFC 791), TCP (RFC 9293) and its time stamps (RFC 7323, which every current system uses)."""

_FRAME_OVERHEAD_BYTES: Final = 8 + 14 + 4 + 12
"""Preamble, Ethernet header, check sequence and the gap between frames (IEEE 802.3, 3.1 and 4.4.2)."""

LINK_SHARE_FROM_BYTES_PER_S: Final = 10e9 / 8
"""Of links from 10 Gbit/s on early eras leave a part unused (``EraRules.migration_link_share``)."""


class TrafficClass(StrEnum):
    """What traffic is for; limits and weights are given to classes."""

    MIGRATION = "migration"
    CSV = "csv"
    CLUSTER = "cluster"
    STORAGE = "storage"
    CLIENT = "client"
    MANAGEMENT = "management"


def goodput_bytes_per_s(rate_bytes_per_s: float, mtu_bytes: int) -> float:
    """Payload that one TCP stream gets through a link of this rate when all its packets are full.

    Of every ``mtu + 38`` bytes on the wire, ``mtu - 52`` are payload: 94.15 % at 1500 and 99.00 % at 9000.
    Where the ends differ, the smaller MTU counts, because TCP agrees on it. Raises ValueError for an MTU out
    of bounds.
    """
    return rate_bytes_per_s * payload_share(mtu_bytes)


def payload_share(mtu_bytes: int) -> float:
    """The part of a link's rate that is payload, between 0 and 1; see ``goodput_bytes_per_s``."""
    if not MTU_MIN <= mtu_bytes <= MTU_MAX:
        raise ValueError(f"an MTU of {mtu_bytes} is not between {MTU_MIN} and {MTU_MAX} bytes")
    return (mtu_bytes - _SEGMENT_HEADER_BYTES) / (mtu_bytes + _FRAME_OVERHEAD_BYTES)


def joint_rate_bytes_per_s(rates_bytes_per_s: Iterable[float]) -> float:
    """The rate of several NICs together; 0, which is without bound, if one of them has none."""
    rates = list(rates_bytes_per_s)
    return sum(rates) if all(rates) else 0.0


def migration_rate_bytes_per_s(rate_bytes_per_s: float, share: float) -> float:
    """What live migration may use of a NIC's rate, or of that of a team's NICs together; 0: without bound.

    ``share``: the era's, which goes for links from 10 Gbit/s on. A team is one link: that is ours.
    """
    return share * rate_bytes_per_s if rate_bytes_per_s >= LINK_SHARE_FROM_BYTES_PER_S else rate_bytes_per_s
