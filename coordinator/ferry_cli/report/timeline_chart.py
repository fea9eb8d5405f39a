"""Moves side by side in time, a row a move, by source and target."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from ferry_cli.report.svg import FONT, Plot, box, drawing, duration_unit, from_zero, words
from ferry_cli.report.timelines import Phase, Timeline
from ferry_cli.views import rfc3339
from ferry_types.migrations import MigrationState
from ferry_types.units import format_duration

WIDTH: Final = 960
_LEFT: Final = 190
_RIGHT: Final = WIDTH - 90
_ROW: Final = 20
_HEAD: Final = 26
_BAR: Final = 12
_FOOT: Final = 42

VISIBLE: Final = 1.5
"""Width below which a black-out would be lost to the eye; it ends where it ends, and begins earlier."""

PAUSE_US_MIN: Final = 10_000_000
NAME_MAX: Final = 22

CSS: Final = {phase: f"phase-{phase.name.lower()}" for phase in Phase}


def bursts(timelines: Sequence[Timeline]) -> list[list[Timeline]]:
    """Timelines with a known time, oldest first, cut where nothing was moved for long.

    Long is ten seconds, and longer than all of the burst before: its bars would shrink to nothing.
    """
    found: list[list[Timeline]] = []
    begin_us = end_us = 0
    for timeline in sorted((each for each in timelines if each.segments), key=lambda each: each.begin_us):
        if not found or timeline.begin_us - end_us > max(PAUSE_US_MIN, end_us - begin_us):
            found.append([])
            begin_us = end_us = timeline.begin_us
        found[-1].append(timeline)
        end_us = max(end_us, timeline.end_us)
    return found


def timeline_chart(timelines: Sequence[Timeline], label: str) -> str:
    """The timeline of moves that all have segments, as SVG. ``label`` says in words what it shows."""
    begin_us = min(timeline.begin_us for timeline in timelines)
    last_s = max(timeline.end_us - begin_us for timeline in timelines) / 1e6
    groups = [
        (f"{source} → {target}", sorted(found, key=lambda each: each.begin_us))
        for (source, target), found in groupby(sorted(timelines, key=_way), key=_way)
    ]
    height = 8 + len(groups) * _HEAD + len(timelines) * _ROW + _FOOT
    plot = Plot(_LEFT, 4, _RIGHT, height - _FOOT)
    unit, factor = duration_unit(last_s)
    scale = from_zero(last_s * factor, _LEFT, _RIGHT)
    parts = [plot.bottom_axis(scale, f"time since {rfc3339(begin_us)} ({unit})")]
    y = plot.top
    for name, found in groups:
        y += _HEAD
        parts.append(words(_short(name, 2 * NAME_MAX + 3), 4, y - 8, css="group"))
        for timeline in found:
            title = f"{_short(timeline.move.vm, NAME_MAX)} {timeline.move.id or ''}".strip()
            parts.append(words(title, _LEFT - 8, y + _BAR - 2, "end"))
            spans = [
                (scale.at((each.begin_us - begin_us) / 1e6 * factor), each) for each in timeline.segments
            ]
            for x, each in spans:
                lasted_s = (each.end_us - each.begin_us) / 1e6
                end = scale.at((each.end_us - begin_us) / 1e6 * factor)
                begin = min(x, end - VISIBLE) if each.phase is Phase.BLACKOUT else x
                hint = f"{timeline.move.vm}: {each.phase} for {format_duration(lasted_s)}"
                parts.append(box(begin, y, end - begin, _BAR, CSS[each.phase], hint))
            end = scale.at((timeline.end_us - begin_us) / 1e6 * factor)
            parts.extend(words(mark, end + 5, y + FONT - 2, css="fate") for mark in _mark(timeline))
            y += _ROW
    return drawing(WIDTH, height, label, *parts, css="timeline")


def _way(timeline: Timeline) -> tuple[str, str]:
    return timeline.move.source, timeline.move.target


def _mark(timeline: Timeline) -> Iterator[str]:
    if timeline.is_open:
        yield "… under way"
    elif timeline.move.state is not MigrationState.COMPLETED:
        yield f"✕ {timeline.move.state}"


def _short(name: str, characters: int) -> str:
    return name if len(name) <= characters else name[: characters - 1] + "…"
