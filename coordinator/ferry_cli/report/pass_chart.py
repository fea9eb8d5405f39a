"""Dirty pages and rate of a move, pass by pass."""

from collections.abc import Sequence
from typing import Final

from ferry_cli.report.documents import Pass
from ferry_cli.report.svg import TICKS_WANTED, Plot, box, drawing, element, from_zero, path, rate_unit, words
from ferry_types.units import format_rate

WIDTH: Final = 480
HEIGHT: Final = 250
_PLOT: Final = Plot(70, 22, WIDTH - 58, HEIGHT - 42)

LABELS_MAX: Final = 12
"""Bars that bear their number; above it every so many passes are named, and none bears its number."""


def pass_chart(passes: Sequence[Pass], final: Pass | None, label: str) -> str:
    """Bars: pages dirty after each pass, and those sent in the pause. Line: the rate. As SVG.

    There is a pass, or a last copy. ``label`` says in words what the chart shows.
    """
    columns = [(f"{each.index}", each, each.dirty_pages_after, "dirty") for each in passes]
    if final is not None:
        columns.append(("pause", final, final.pages_sent, "last"))
    rates = [each.rate_bytes_per_s for _, each, _, _ in columns]
    fastest = max((rate for rate in rates if rate is not None), default=0.0)
    unit, factor = rate_unit(fastest)
    most = max(TICKS_WANTED, *(count for _, _, count, _ in columns))
    pages = from_zero(most, _PLOT.bottom, _PLOT.top)
    # In the axis' own unit, so that its ticks are round.
    speed = from_zero(fastest * factor, _PLOT.bottom, _PLOT.top)
    step = (_PLOT.right - _PLOT.left) / len(columns)
    bar = min(48.0, step * 0.6)
    named_every = -(-len(columns) // LABELS_MAX)
    parts = [
        _PLOT.left_axis(pages, "dirty pages (4 KiB each)"),
        _PLOT.right_axis(speed, f"rate ({unit})", WIDTH),
        words("pass", (_PLOT.left + _PLOT.right) / 2, HEIGHT - 6, "middle", "title"),
    ]
    points: list[tuple[float, float]] = []
    for number, ((name, each, count, css), rate) in enumerate(zip(columns, rates, strict=True)):
        x, y = _PLOT.left + (number + 0.5) * step, pages.at(count)
        said = f"{count} pages {'dirty afterwards' if css == 'dirty' else 'sent in the pause'}"
        sent = f"{each.pages_sent} pages in {each.duration_s * 1000:.1f} ms"
        parts.append(box(x - bar / 2, y, bar, _PLOT.bottom - y, css, f"{name}: {sent}; {said}"))
        if named_every == 1:
            parts.append(words(f"{count}", x, y - 4, "middle", "number"))
        if number % named_every == 0 or name == "pause":
            parts.append(words(name, x, _PLOT.bottom + 16, "middle"))
        if rate is not None:
            points.append((x, speed.at(rate * factor)))
            dot = element("title", format_rate(rate))
            parts.append(element("circle", dot, cx=x, cy=points[-1][1], r=3.5, class_="rate-dot"))
    if len(points) > 1:
        parts.append(path(points, "rate"))
    return drawing(WIDTH, HEIGHT, label, *parts)
