"""What a report says, before anything is drawn: runs put together, their figures, and sentences on them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from ferry_cli.bench.document import percentile
from ferry_cli.report.distribution_chart import Series
from ferry_cli.report.documents import Move, Run, unix_us
from ferry_cli.report.timeline_chart import bursts
from ferry_cli.report.timelines import Phase, Timeline, moves_of, timelines
from ferry_cli.validation.verdicts import counted
from ferry_cli.views import View, rfc3339
from ferry_types.units import format_duration

MOVES_MAX: Final = 1000
"""Moves of one run in a report, the newest: as many as a coordinator keeps."""

RUNS_MAX: Final = 16
"""Runs in one report: more could not be told apart in one chart."""

P95_MOVES: Final = 20
"""With so many moves, and more, some are beyond the 95th percentile."""

_SAME_MOVE_US: Final = 5_000_000
"""A record and the log name the same request within this time, if it is the same."""


@dataclass(frozen=True, slots=True)
class Part:
    """One run and what follows from it. ``bursts``: moves that belong together in time."""

    run: Run
    timelines: tuple[Timeline, ...]
    bursts: tuple[tuple[Timeline, ...], ...]
    blackouts: Series | None


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page shows. ``made_us``: Unix microseconds; ``cluster`` is None if none was asked."""

    cluster: str | None
    made_us: int
    version: str
    command: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Of the page."""
        others = len(self.parts) - (self.cluster is not None)
        if self.cluster is None:
            return f"Live migrations: {counted(others, 'run')}"
        return f"Live migrations of {self.cluster}" + (f" and {counted(others, 'run')}" if others else "")

    @property
    def series(self) -> list[Series]:
        """Black-outs of the runs that have some."""
        return [part.blackouts for part in self.parts if part.blackouts is not None]


def put_together(runs: Sequence[Run]) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """The parts of a report, and what is to be said about what it leaves out.

    A log (events without moves) completes the runs whose moves it tells of; if there are none, its moves are
    a run of their own.
    """
    logs = [run for run in runs if run.events and not run.moves and run.bench is None]
    parts, notes, completing = [], [], set[int]()
    for run in runs:
        if any(run is log for log in logs):
            continue
        telling = [] if run.events else [index for index, log in enumerate(logs) if _tells_of(log, run)]
        completing.update(telling)
        rows = (event for index in telling for event in logs[index].events)
        parts.append(replace(run, events=(*run.events, *rows)))
    for index, log in enumerate(logs):
        if index not in completing:
            parts.append(replace(log, moves=moves_of(log.events)))
    shown = []
    for number, run in enumerate(parts):
        if not run.moves and run.bench is None:
            notes.append(f"{run.name}: there is no move in it")
            continue
        if len(run.moves) > MOVES_MAX:
            notes.append(f"{run.name}: the newest {MOVES_MAX} of {len(run.moves)} moves are shown")
        twins = sum(other.name == run.name for other in parts[:number])
        name = f"{run.name} ({twins + 1})" if twins else run.name
        shown.append(_part(replace(run, name=name, moves=run.moves[-MOVES_MAX:])))
    return tuple(shown), tuple(notes)


def _tells_of(log: Run, run: Run) -> bool:
    known = {(move.vm, move.id): unix_us(move.requested_at) for move in run.moves if move.requested_at}
    for told in moves_of(log.events):
        asked_us = known.get((told.vm, told.id))
        if asked_us is None or told.requested_at is None:
            continue
        if abs(asked_us - unix_us(told.requested_at)) <= _SAME_MOVE_US:
            return True
    return False


def _part(run: Run) -> Part:
    found = timelines(run.moves, run.events, run.as_of_us)
    if run.bench is not None:
        values, floor_s = [each.blackout_s for each in run.bench.runs], run.bench.floor_s
    else:
        values, floor_s = [move.blackout_s for move in run.moves if move.blackout_s is not None], None
    return Part(run, tuple(found), tuple(map(tuple, bursts(found))), series(run.name, values, floor_s))


def series(name: str, values_s: Iterable[float], floor_s: float | None = None) -> Series | None:
    """Black-outs as a distribution; None if there are none."""
    ordered = tuple(sorted(values_s))
    if not ordered:
        return None
    return Series(name, ordered, median(ordered), percentile(ordered, 0.95), floor_s)


# --- in words -------------------------------------------------------------------------------------


def blackout_reading(found: Series) -> str:
    """``median 3.1 ms, 95 of 100 at most 5.2 ms``, and beside the floor."""
    count = len(found.values_s)
    if count == 1:
        text = f"one move, black-out {format_duration(found.values_s[0])}"
    else:
        # Of fewer, the 95th percentile is the longest.
        most = f"95 of 100 at most {format_duration(found.p95_s)}, " if count >= P95_MOVES else ""
        text = (
            f"median {format_duration(found.median_s)}, {most}"
            f"the longest {format_duration(found.values_s[-1])} ({count} moves)"
        )
    if found.floor_s is None:
        return text
    ratio = found.median_s / found.floor_s
    return f"{text}; the median is {ratio:.1f} times the floor of {format_duration(found.floor_s)}"


def pass_reading(move: Move) -> str:
    """What the passes did to the dirty pages; empty if there was none."""
    if not move.passes:
        return ""
    first, last = move.passes[0], move.passes[-1]
    text = (
        f"{counted(len(move.passes), 'pass', 'passes')} brought {first.pages_sent + first.zero_pages} pages "
        f"down to {last.dirty_pages_after} dirty ones"
    )
    if move.final is not None:
        text += f"; the last {move.final.pages_sent} were sent in the pause"
    if move.blackout_s is not None:
        text += f", black-out {format_duration(move.blackout_s)}"
    return text


def burst_reading(found: Sequence[Timeline]) -> str:
    """How many moves, how they ended, and how many at a time if the log tells."""
    span_s = (max(each.end_us for each in found) - min(each.begin_us for each in found)) / 1e6
    fates = Counter("under way" if each.is_open else each.move.state.value for each in found)
    ends = ", ".join(f"{count} {fate}" for fate, count in fates.items())
    text = f"{counted(len(found), 'move')} in {format_duration(span_s)}: {ends}"
    if at_once := _at_once(found):
        text += f"; at most {at_once} at a time"
    causes = Counter(each.move.cause for each in found if each.move.cause)
    asked = ", ".join(f"{count} by a {cause}" for cause, count in causes.items())
    unknown = sum(not each.is_whole for each in found)
    if asked:
        text += f"; asked for: {asked}"
    if unknown:
        text += f"; of {unknown} the times of all phases are not known"
    return text


def _at_once(found: Sequence[Timeline]) -> int:
    """Moves that had a slot at the same time; 0 if that is not known of all."""
    changes = []
    for timeline in found:
        if timeline.segments[0].phase is not Phase.QUEUED:
            return 0
        changes += [(each.begin_us, 1) for each in timeline.segments[1:2]]
        changes += [(timeline.end_us, -1)] * bool(timeline.segments[1:])
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


# --- for programs ---------------------------------------------------------------------------------


def document(report: Report) -> View:
    """The figures that the page shows."""
    return {
        "title": report.title,
        "cluster": report.cluster,
        "made": rfc3339(report.made_us),
        "version": report.version,
        "command": report.command,
        "notes": list(report.notes),
        "blackouts": [_blackout_view(found) for found in report.series],
        "runs": [_part_view(part) for part in report.parts],
    }


def _blackout_view(found: Series) -> View:
    floor_s = found.floor_s
    return {
        "run": found.name,
        "count": len(found.values_s),
        "shortest_s": found.values_s[0],
        "median_s": found.median_s,
        "p95_s": found.p95_s,
        "longest_s": found.values_s[-1],
        "floor_s": floor_s,
        "ratio_to_floor": floor_s and {"median": found.median_s / floor_s, "p95": found.p95_s / floor_s},
        "reading": blackout_reading(found),
    }


def _part_view(part: Part) -> View:
    bench = part.run.bench
    return {
        "name": part.run.name,
        "bench": None if bench is None else bench.model_dump(mode="json"),
        "readings": [burst_reading(found) for found in part.bursts],
        "moves": [_timeline_view(timeline) for timeline in part.timelines],
    }


def _timeline_view(timeline: Timeline) -> View:
    phases: list[dict[str, Any]] = [
        {"phase": each.phase.value, "begin": rfc3339(each.begin_us), "end": rfc3339(each.end_us)}
        for each in timeline.segments
    ]
    move = timeline.move.model_dump(mode="json")
    return {**move, "phases": phases, "reading": pass_reading(timeline.move) or None}
