"""The tables of a whole bench, as rows of text: one for each group, one of targets."""

from collections.abc import Sequence

from ferry_cli.bench.results import GroupResult, OwnResult, PeerResult
from ferry_cli.bench.targets import Target
from ferry_types.units import format_duration, format_size

NOT_THERE = "-"

TARGET_COLUMNS = ("target", "asked", "measured", "")


def group_columns(group: GroupResult) -> list[str]:
    """Heads of ``group_rows``."""
    ratios = [f"/ {peer.name}" for peer in group.peers]
    return ["", "time", "rate", "spread", "black-out", "sent", "processors", *ratios]


def group_rows(group: GroupResult) -> list[list[str]]:
    """Our options with their ratios to the peers, then the peers."""
    return [_own_row(own, group.peers) for own in group.own] + [
        _peer_row(peer, group) for peer in group.peers
    ]


def group_title(group: GroupResult) -> str:
    """What its table is of."""
    kind = f", {len(group.own[0].runs_total_s)} moves" if group.is_distribution else ""
    return f"{group.wire}, {format_size(group.memory_bytes)} of {group.contents}, {group.guest} guest{kind}"


def target_rows(found: Sequence[Target]) -> list[list[str]]:
    """Bound, figure, and whether it is met."""
    return [
        [
            each.what,
            f"{'at least' if each.is_least else 'at most'} {each.asked:.2f}",
            f"{each.measured:.2f}",
            "met" if each.is_met else "not met",
        ]
        for each in found
    ]


def rate_of(rate_bytes_per_s: float) -> str:
    """``3.61 GB/s``: as links and memory are spoken of, in powers of ten."""
    return f"{rate_bytes_per_s / 1e9:.2f} GB/s"


def _own_row(own: OwnResult, peers: Sequence[PeerResult]) -> list[str]:
    source, target = own.processors
    return [
        own.option,
        format_duration(own.total_s),
        rate_of(own.throughput_bytes_per_s),
        f"{own.spread:.0%}",
        format_duration(own.blackout_s),
        format_size(own.bytes_sent),
        f"{source:.1f} + {target:.1f}",
        *(f"{own.ratios[peer.name]:.2f}" if peer.name in own.ratios else NOT_THERE for peer in peers),
    ]


def _peer_row(peer: PeerResult, group: GroupResult) -> list[str]:
    empty = [""] * (len(group_columns(group)) - 4)
    if peer.total_s is None or peer.throughput_bytes_per_s is None or peer.spread is None:
        return [peer.name, f"not measured: {peer.problem}", "", "", *empty]
    figures = [format_duration(peer.total_s), rate_of(peer.throughput_bytes_per_s), f"{peer.spread:.0%}"]
    return [peer.name, *figures, *empty]
