"""What is known of the wire between two hosts: what the latest moves between them have shown."""

from statistics import median

from ferry_cluster.records import MigrationRecord
from ferry_cluster.state import ClusterState
from ferry_types.migrations import MigrationFigures, MigrationState, PassFigures, TransportOption, WireFigures

MOVES_MAX = 5
"""Completed moves, the latest ones, that are gone by."""

TELLING_BYTES_MIN = 4 * 2**20
"""A pass that sent less says more about round trips than about the wire."""


def wire_figures(
    state: ClusterState, source: str, target: str, option: TransportOption
) -> WireFigures | None:
    """The wire between two hosts, for moves by this option, either way; None if no move has shown it."""
    moves = [move for move in state.migrations.values() if _tells(move, {source, target}, option)]
    latest = sorted(moves, key=lambda move: move.number)[-MOVES_MAX:]
    figures = [move.figures for move in latest if move.figures is not None]
    told = [one for figure in figures for one in _telling_passes(figure)]
    if not told:
        return None
    rate_bytes_per_s = _rate_bytes_per_s(told)
    floors_s = [floor_s for one in figures if (floor_s := _floor_s(one, rate_bytes_per_s)) is not None]
    return WireFigures(rate_bytes_per_s, median(floors_s) if floors_s else 0.0)


def _tells(move: MigrationRecord, hosts: set[str], option: TransportOption) -> bool:
    if move.state is not MigrationState.COMPLETED or {move.source, move.target} != hosts:
        return False
    return move.figures is not None and move.options.option == option


def _telling_passes(figures: MigrationFigures) -> list[PassFigures]:
    """Those in which sending took longer than looking for pages that are zero."""
    return [
        one
        for one in figures.passes
        if one.bytes_sent >= TELLING_BYTES_MIN and one.pages_sent >= one.zero_pages and one.duration_s > 0
    ]


def _rate_bytes_per_s(passes: list[PassFigures]) -> float:
    return sum(one.bytes_sent for one in passes) / sum(one.duration_s for one in passes)


def _floor_s(figures: MigrationFigures, rate_bytes_per_s: float) -> float | None:
    """What the black-out took besides its last pages; those of a move are sent at its own rate."""
    if figures.final is None or figures.blackout_s is None:
        return None
    told = _telling_passes(figures)
    rate = _rate_bytes_per_s(told) if told else rate_bytes_per_s
    return max(0.0, figures.blackout_s - figures.final.bytes_sent / rate)
