"""What is known of the wire between two hosts: what the latest moves between them have shown."""

from dataclasses import dataclass
from statistics import median

from ferry_cluster.records import MigrationRecord
from ferry_cluster.state import ClusterState
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import MigrationFigures, MigrationState, TransportOption, WireFigures

MOVES_MAX = 5
"""Completed moves, the latest ones, that are gone by; their median, so that one odd one does no harm."""

TELLING_BYTES_MIN = 4 * 2**20
"""A pass that sent less says more about round trips than about the wire."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """What one move has shown; ``floor_s``: its black-out but for the last pages, None if it is unknown."""

    number: int
    rate_bytes_per_s: float
    floor_s: float | None


def wire_figures(
    state: ClusterState, source: str, target: str, option: TransportOption
) -> WireFigures | None:
    """The wire between two hosts, for moves by this option, either way; None if no move has shown it."""
    hosts = {source, target}
    told = [
        shown
        for move in state.migrations.values()
        if {move.source, move.target} == hosts and (shown := _shown_by(move, option)) is not None
    ]
    if not told:
        return None
    latest = sorted(told, key=lambda shown: shown.number)[-MOVES_MAX:]
    floors_s = [shown.floor_s for shown in latest if shown.floor_s is not None]
    rate_bytes_per_s = median(shown.rate_bytes_per_s for shown in latest)
    return WireFigures(rate_bytes_per_s, median(floors_s) if floors_s else 0.0)


def _shown_by(move: MigrationRecord, option: TransportOption) -> _Shown | None:
    figures = move.figures
    if move.state is not MigrationState.COMPLETED or figures is None or option != move.options.option:
        return None
    # Those in which sending took longer than looking for pages that are zero.
    told = [
        one
        for one in figures.passes
        if one.bytes_sent >= TELLING_BYTES_MIN and one.pages_sent >= one.zero_pages and one.duration_s > 0
    ]
    if not told:
        return None
    pages_sent = sum(one.pages_sent for one in told)
    rate_bytes_per_s = pages_sent * PAGE_SIZE / sum(one.duration_s for one in told)
    return _Shown(move.number, rate_bytes_per_s, _floor_s(figures, rate_bytes_per_s))


def _floor_s(figures: MigrationFigures, rate_bytes_per_s: float) -> float | None:
    if figures.final is None or figures.blackout_s is None:
        return None
    return max(0.0, figures.blackout_s - figures.final.pages_sent * PAGE_SIZE / rate_bytes_per_s)
