"""A report as one HTML page: charts, a sentence on each, and tables with the same numbers."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Final

from ferry_cli import pages
from ferry_cli.pages import escaped
from ferry_cli.report.distribution_chart import MICROSOFT_S, Series, colour, cumulative, histogram, swatch
from ferry_cli.report.documents import Bench, Move, Pass
from ferry_cli.report.figures import Part, Report, blackout_reading, burst_reading, pass_reading
from ferry_cli.report.pass_chart import pass_chart
from ferry_cli.report.style import STYLE
from ferry_cli.report.timeline_chart import CSS, timeline_chart
from ferry_cli.report.timelines import Phase, Timeline
from ferry_cli.tables import UNKNOWN
from ferry_cli.views import rfc3339
from ferry_types.units import format_duration, format_rate, format_size

PASS_CHARTS_MAX: Final = 40
"""Moves of one run that are drawn pass by pass, the newest."""

TIMELINES_MAX: Final = 20
"""Timelines of one run, the newest."""

_RUN_COLUMNS: Final = ("Run", "Moves", "Shortest", "Median", "95th percentile", "Longest", "Floor")
_BENCH_COLUMNS: Final = ("Run", "Moved", "Median time", "Rate", "Beside peers", "Machine")
_MOVE_COLUMNS: Final = (
    *("Move", "VM", "From", "To", "State", "Requested", "Queued", "Preparing", "Brown-out", "Black-out"),
    "Total",
)
_PASS_COLUMNS: Final = ("Pass", "Pages sent", "Zero pages", "Sent", "Time", "Dirty afterwards", "Rate")

_PHASE_WORDS: Final = {
    Phase.QUEUED: "queued",
    Phase.PREPARING: "preparing",
    Phase.COPYING: "copying (brown-out)",
    Phase.BLACKOUT: "switching: black-out",
    Phase.SWITCHING: "switching: the source lets go",
    Phase.UNKNOWN: "phases unknown",
}

_HOW_PHASES_ARE_KNOWN: Final = (
    "Slots and ends are the event log's. The black-out is placed to end when the log says that the guest ran "
    "on the target, which the coordinator learns a little later; copying is placed to end where it begins. A "
    "dashed bar is a time of which neither record nor log tells more."
)


def render(report: Report) -> str:
    """One HTML file: no script, and nothing from elsewhere."""
    body = [
        '<div class="sum">',
        *([] if report.cluster is None else [f"<span>Cluster: {escaped(report.cluster)}</span>"]),
        f"<span>Made: {rfc3339(report.made_us)}</span>",
        f"<span>Hyperferry {escaped(report.version)}</span>\n</div>",
        f'<p class="command"><code>{escaped(report.command)}</code></p>',
        *(f'<p class="warning">{escaped(note)}.</p>' for note in report.notes),
        *_blackouts(report.series),
        *_benches(report.parts),
    ]
    for part in report.parts:
        body += _timelines(part)
        body += _passes(part)
    return pages.page(report.title, body, STYLE)


# --- black-outs -----------------------------------------------------------------------------------


def _blackouts(found: Sequence[Series]) -> Iterator[str]:
    yield "<h2>Black-out</h2>"
    if not found:
        yield "<p>No move has got as far as a black-out.</p>"
        return
    readings = [(each.name, blackout_reading(each)) for each in found]
    label = "; ".join(f"{name}: {reading}" for name, reading in readings)
    for number, (name, reading) in enumerate(readings):
        sign = swatch(f"key {colour(number)}")
        yield f'<p class="reading">{sign} <strong>{escaped(name)}</strong>: {escaped(reading)}.</p>'
    yield '<div class="pair">'
    yield _figure(histogram(found, f"Histogram of black-outs. {label}"), "How many moves paused how long.")
    what = "How many paused at most that long; the dots are the median and the 95th percentile."
    yield _figure(cumulative(found, f"Cumulative curve of black-outs. {label}"), what)
    yield "</div>"
    marks = f"Dashed: the {format_duration(MICROSOFT_S)} that Microsoft claims"
    if any(each.floor_s for each in found):
        marks += (
            "; fine, in a run's colour: its floor (one agent round trip, one coordinator round trip and one "
            "durable commit, measured in the run) and twice that"
        )
    yield f'<p class="note">{marks}.</p>'
    yield pages.table(_RUN_COLUMNS, map(_blackout_row, found))


def _blackout_row(found: Series) -> str:
    floor = UNKNOWN
    if found.floor_s is not None:
        median, p95 = found.median_s / found.floor_s, found.p95_s / found.floor_s
        floor = f"{format_duration(found.floor_s)} (median {median:.1f} times, 95th percentile {p95:.1f})"
    shown = (found.values_s[0], found.median_s, found.p95_s, found.values_s[-1])
    return _row((found.name, str(len(found.values_s)), *map(format_duration, shown), floor))


def _benches(parts: Sequence[Part]) -> Iterator[str]:
    rows = [_bench_row(part.run.name, part.run.bench) for part in parts if part.run.bench is not None]
    if rows:
        yield "<h2>Bench</h2>"
        yield pages.table(_BENCH_COLUMNS, rows)


def _bench_row(name: str, bench: Bench) -> str:
    times = sorted(run.total_s for run in bench.runs)
    rates = sorted(run.throughput_bytes_per_s for run in bench.runs)
    what = f"{format_size(bench.memory_bytes)} ({bench.fill}), {bench.workload}, {bench.option}"
    peers = "; ".join(
        f"{peer}: {found.ratio:.2f} of it" if found.ratio is not None else f"{peer}: not measured"
        for peer, found in bench.peers.items()
    )
    machine = bench.machine
    where = f"{machine.cpu}, {machine.cores} cores, Linux {machine.kernel}" if machine else UNKNOWN
    return _row(
        (name, what, format_duration(median(times)), format_rate(median(rates)), peers or UNKNOWN, where)
    )


# --- timelines ------------------------------------------------------------------------------------


def _timelines(part: Part) -> Iterator[str]:
    if not part.timelines:
        return
    yield f"<h2>Moves: {escaped(part.run.name)}</h2>"
    shown = part.bursts[-TIMELINES_MAX:]
    if left_out := len(part.bursts) - len(shown):
        yield f'<p class="warning">The newest {len(shown)} timelines are drawn; {left_out} are not.</p>'
    present = {each.phase for found in shown for timeline in found for each in timeline.segments}
    if present:
        signs = (
            f"<span>{swatch(CSS[phase])} {_PHASE_WORDS[phase]}</span>" for phase in Phase if phase in present
        )
        yield f'<div class="legend">{"".join(signs)}</div>'
    for found in shown:
        reading = burst_reading(found)
        yield _figure(timeline_chart(found, f"Timeline. {reading}"), f"{reading}.", wide=True)
    if present:
        yield f'<p class="note">{_HOW_PHASES_ARE_KNOWN}</p>'
    if untimed := sum(not timeline.segments for timeline in part.timelines):
        yield f'<p class="note">The times of {untimed} of the moves are not known: they are not drawn.</p>'
    yield pages.table(_MOVE_COLUMNS, map(_move_row, part.timelines))


def _move_row(timeline: Timeline) -> str:
    move = timeline.move
    known = {each.phase: (each.end_us - each.begin_us) / 1e6 for each in timeline.segments}
    queued, preparing = (known.get(phase) for phase in (Phase.QUEUED, Phase.PREPARING))
    requested = move.requested_at
    if requested is None and timeline.segments:
        requested = rfc3339(timeline.begin_us)
    cells = (
        *(move.id or UNKNOWN, move.vm, move.source, move.target),
        move.state + (f" ({move.cause})" if move.cause else ""),
        requested or UNKNOWN,
        *map(_seconds, (queued, preparing, move.brownout_s, move.blackout_s, move.total_s)),
    )
    if not move.reason:
        return _row(cells)
    why = f'<td colspan="{len(_MOVE_COLUMNS)}">{escaped(move.reason)}</td>'
    return f'{_row(cells)}<tr class="why">{why}</tr>'


# --- passes ---------------------------------------------------------------------------------------


def _passes(part: Part) -> Iterator[str]:
    moves = [timeline.move for timeline in part.timelines if timeline.move.passes or timeline.move.final]
    if not moves:
        return
    yield f"<h2>Passes: {escaped(part.run.name)}</h2>"
    shown = moves[-PASS_CHARTS_MAX:]
    if len(shown) < len(moves):
        left_out = len(moves) - len(shown)
        words = f"The newest {len(shown)} moves are drawn, {left_out} are not: name a move to see it."
        yield f'<p class="warning">{words}</p>'
    yield (
        f'<div class="legend"><span>{swatch("dirty")} dirty after the pass</span>'
        f"<span>{swatch('last')} sent in the pause</span><span>{swatch('rate-key')} rate</span></div>"
    )
    yield '<div class="pair">'
    for move in shown:
        yield _move_passes(move)
    yield "</div>"


def _move_passes(move: Move) -> str:
    reading = pass_reading(move) or "no pass was finished"
    name = f"{move.id or ''} {move.vm}: {move.source} → {move.target}, {move.state}".strip()
    facts = [
        ("brown-out", _seconds(move.brownout_s)),
        ("black-out", _seconds(move.blackout_s)),
        ("total", _seconds(move.total_s)),
        ("memory", _size(move.memory_bytes)),
        ("sent", _size(move.bytes_sent)),
        ("option", move.option or UNKNOWN),
        ("verified", {None: "not asked for", True: "equal", False: "DIFFERED"}[move.verified]),
    ]
    chart = pass_chart(move.passes, move.final, f"Passes of {name}. {reading}")
    said = "".join(f"<span>{escaped(what)} {escaped(value)}</span>" for what, value in facts)
    last = () if move.final is None else (_pass_row("pause", move.final),)
    return "\n".join(
        (
            f"<figure><h3>{escaped(name)}</h3>",
            chart,
            f'<figcaption>{escaped(reading)}.<div class="facts">{said}</div>',
            *([f'<div class="why">{escaped(move.reason)}</div>'] if move.reason else []),
            "</figcaption>",
            pages.table(_PASS_COLUMNS, (*(_pass_row(str(each.index), each) for each in move.passes), *last)),
            "</figure>",
        )
    )


def _pass_row(name: str, found: Pass) -> str:
    rate = found.rate_bytes_per_s
    return _row(
        (
            *(name, str(found.pages_sent), str(found.zero_pages), format_size(found.bytes_sent)),
            *(format_duration(found.duration_s), str(found.dirty_pages_after)),
            UNKNOWN if rate is None else format_rate(rate),
        )
    )


# --- HTML -----------------------------------------------------------------------------------------


def _figure(chart: str, caption: str, *, wide: bool = False) -> str:
    inside = f'<div class="wide">{chart}</div>' if wide else chart
    return f"<figure>{inside}<figcaption>{escaped(caption)}</figcaption></figure>"


def _row(cells: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in cells)}</tr>"


def _seconds(value_s: float | None) -> str:
    return UNKNOWN if value_s is None else format_duration(value_s)


def _size(value: int | None) -> str:
    return UNKNOWN if value is None else format_size(value)
