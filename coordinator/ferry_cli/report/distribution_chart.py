"""How black-outs are distributed: as a histogram, and as a cumulative curve."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ferry_cli.pages import escaped
from ferry_cli.report.svg import (
    FONT,
    Plot,
    Scale,
    box,
    drawing,
    duration_unit,
    element,
    from_zero,
    line,
    path,
    words,
)
from ferry_types.units import format_duration

WIDTH: Final = 480
HEIGHT: Final = 270
_PLOT: Final = Plot(56, 34, WIDTH - 14, HEIGHT - 42)

MICROSOFT_S: Final = 0.002
"""Black-out that Microsoft claims for a live migration of Hyper-V."""

LOG_FROM: Final = 20.0
"""With more than this between the shortest and the longest, the axis is logarithmic."""

BINS_MIN: Final = 8
BINS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Series:
    """Black-outs of one run, sorted, at least one. ``floor_s``: the least that one costs there, if known."""

    name: str
    values_s: tuple[float, ...]
    median_s: float
    p95_s: float
    floor_s: float | None = None


def histogram(series: Sequence[Series], label: str) -> str:
    """Share of the moves in each span of black-outs, a stepped outline a run, as SVG.

    ``label`` says in words what it shows.
    """
    scale = _scale(series)
    edges = _edges(scale, max(len(each.values_s) for each in series))
    shares = [_shares(each.values_s, edges) for each in series]
    up = from_zero(max(map(max, shares)) * 100, _PLOT.bottom, _PLOT.top)
    parts = [_frame(scale, up, "share of the moves (%)"), *_marks(series, scale)]
    for number, (each, heights) in enumerate(zip(series, shares, strict=True)):
        points = [(scale.at(edges[0]), _PLOT.bottom)]
        for index, share in enumerate(heights):
            y = up.at(share * 100)
            points += [(scale.at(edges[index]), y), (scale.at(edges[index + 1]), y)]
        points.append((scale.at(edges[-1]), _PLOT.bottom))
        parts.append(path(points, f"step {colour(number)}", each.name))
    return drawing(WIDTH, HEIGHT, label, *parts)


def cumulative(series: Sequence[Series], label: str) -> str:
    """Share of the moves whose black-out was at most so long, with median and 95th percentile, as SVG.

    ``label`` says in words what it shows.
    """
    scale = _scale(series)
    up = Scale(0, 100, _PLOT.bottom, _PLOT.top)
    parts = [_frame(scale, up, "moves at most that long (%)"), *_marks(series, scale)]
    for number, each in enumerate(series):
        count = len(each.values_s)
        points = [(scale.at(each.values_s[0]), _PLOT.bottom)]
        for index, value_s in enumerate(each.values_s):
            x = scale.at(value_s)
            points += [(x, up.at(index / count * 100)), (x, up.at((index + 1) / count * 100))]
        points.append((_PLOT.right, _PLOT.top))
        parts.append(path(points, f"curve {colour(number)}", each.name))
        for name, share, value_s in (("median", 50, each.median_s), ("95th percentile", 95, each.p95_s)):
            hint = element("title", escaped(f"{each.name}: {name} {format_duration(value_s)}"))
            parts.append(
                element(
                    "circle", hint, cx=scale.at(value_s), cy=up.at(share), r=4, class_=f"dot {colour(number)}"
                )
            )
    return drawing(WIDTH, HEIGHT, label, *parts)


COLOURS: Final = 8


def colour(number: int) -> str:
    """CSS classes of the run of that number: a colour, and dashes once all colours are used."""
    return f"s{number % COLOURS}" + (" dashed" if number >= COLOURS else "")


def swatch(css: str) -> str:
    """The sign of a run or phase in a legend."""
    return element("svg", box(0, 1, 14, 10, css), viewBox="0 0 14 12", class_="swatch", aria_hidden="true")


def _scale(series: Sequence[Series]) -> Scale:
    low = min(each.values_s[0] for each in series)
    high = max(each.values_s[-1] for each in series)
    marks = [MICROSOFT_S, *(2 * each.floor_s for each in series if each.floor_s)]
    floors = [MICROSOFT_S, *(each.floor_s for each in series if each.floor_s)]
    high = max(high, *marks) * 1.05
    low = min(low, *floors)
    if low > 0 and high / low > LOG_FROM:
        return Scale(low / 1.2, high * 1.1, _PLOT.left, _PLOT.right, is_log=True)
    return Scale(0, high, _PLOT.left, _PLOT.right)


def _edges(scale: Scale, count: int) -> list[float]:
    """Bounds of the histogram's spans, equally wide on the scale; the more values, the finer."""
    bins = min(BINS_MAX, max(BINS_MIN, 2 * math.ceil(math.sqrt(count))))
    if scale.is_log:
        ratio = scale.high / scale.low
        return [scale.low * ratio ** (index / bins) for index in range(bins + 1)]
    return [scale.low + (scale.high - scale.low) * index / bins for index in range(bins + 1)]


def _shares(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    counts = [0] * (len(edges) - 1)
    for value in values:
        counts[min(max(0, bisect_right(edges, value) - 1), len(counts) - 1)] += 1
    return [count / len(values) for count in counts]


def _frame(scale: Scale, up: Scale, title: str) -> str:
    unit, factor = duration_unit(scale.high)
    kind = ", logarithmic" if scale.is_log else ""
    return _PLOT.bottom_axis(scale, f"black-out ({unit}{kind})", factor) + _PLOT.left_axis(up, title)


def _marks(series: Sequence[Series], scale: Scale) -> Iterator[str]:
    """Upright lines: Microsoft's claim, and floors in their runs' colours; the words of one run's own."""
    x = scale.at(MICROSOFT_S)
    yield line(x, _PLOT.top - 4, x, _PLOT.bottom, "claim")
    yield words("2 ms", x, _PLOT.top - 8, "middle")
    floored = [(number, each.floor_s) for number, each in enumerate(series) if each.floor_s]
    for number, floor_s in floored:
        for factor, name in ((1, "floor"), (2, "2x floor")):
            x = scale.at(factor * floor_s)
            yield line(x, _PLOT.top, x, _PLOT.bottom, f"floor {colour(number)}")
            if len(floored) == 1:
                yield words(name, x, _PLOT.top - 8 - FONT, "middle")
