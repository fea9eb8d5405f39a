"""Pieces of charts as SVG text: elements, scales and axes. Lengths are in units of the drawing's view box."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ferry_cli.pages import escaped

Anchor = Literal["start", "middle", "end"]

TICKS_WANTED: Final = 5
FONT: Final = 12
"""Height of a chart's words."""


def element(tag: str, *children: str, **attributes: str | float) -> str:
    """An element. ``children`` are SVG already; values of attributes are escaped.

    Names are written the Python way: ``stroke_width``, ``class_``. Numbers are finite; raises ValueError.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"' for name, value in attributes.items()
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>" if children else f"<{tag}{written}/>"


def _value(value: str | float) -> str:
    if isinstance(value, str):
        return escaped(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} has no place in a drawing")
    return f"{value:.2f}".rstrip("0").rstrip(".")


def words(text: str, x: float, y: float, anchor: Anchor = "start", css: str = "", turn: float = 0) -> str:
    """A line of text; ``turn``: degrees about its own place."""
    more = {"transform": f"rotate({turn:g} {x:g} {y:g})"} if turn else {}
    kind = {"class_": css} if css else {}
    return element("text", escaped(text), x=x, y=y, text_anchor=anchor, **kind, **more)


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=css)


def box(x: float, y: float, width: float, height: float, css: str, hint: str = "") -> str:
    """A rectangle; ``hint`` is what a pointer over it shows."""
    inside = (element("title", escaped(hint)),) if hint else ()
    return element("rect", *inside, x=x, y=y, width=max(0.0, width), height=max(0.0, height), class_=css)


def path(points: Sequence[tuple[float, float]], css: str, hint: str = "") -> str:
    """Straight lines from point to point; there is at least one."""
    inside = (element("title", escaped(hint)),) if hint else ()
    way = "L".join(f"{_value(x)} {_value(y)}" for x, y in points)
    return element("path", *inside, d=f"M{way}", class_=css)


def drawing(width: float, height: float, label: str, *children: str, css: str = "") -> str:
    """A whole chart; ``label`` says in words what it shows."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=label,
        class_=f"chart {css}".strip(),
    )


@dataclass(frozen=True, slots=True)
class Scale:
    """From values between ``low`` and ``high`` to places between ``start`` and ``end``."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """The place of a value; beyond the ends for what is beyond them."""
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values on the scale."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= TICKS_WANTED else (1,)
            values = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        else:
            step = _round_up((self.high - self.low) / TICKS_WANTED)
            first, last = math.ceil(self.low / step), math.floor(self.high / step * (1 + 1e-9))
            values = [number * step for number in range(first, last + 1)]
        return [value for value in values if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]


def from_zero(high: float, start: float, end: float) -> Scale:
    """A linear scale from 0 to the next round value above ``high``; to 1 if that is 0."""
    if high <= 0:
        return Scale(0, 1, start, end)
    step = _round_up(high / TICKS_WANTED)
    return Scale(0, math.ceil(high / step * (1 - 1e-9)) * step, start, end)


def _round_up(step: float) -> float:
    """The next of 1, 2, 5, 10, 20 ..."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if step <= factor * power * (1 + 1e-9))


@dataclass(frozen=True, slots=True)
class Plot:
    """The rectangle of a chart that has the data in it; axes stand around it."""

    left: float
    top: float
    right: float
    bottom: float

    def bottom_axis(self, scale: Scale, title: str, factor: float = 1) -> str:
        """Ticks and title below; ticks are written in units of which ``factor`` make one of the scale's."""
        parts = [line(self.left, self.bottom, self.right, self.bottom, "axis")]
        for value in scale.ticks():
            x = scale.at(value)
            parts.append(line(x, self.top, x, self.bottom, "grid"))
            parts.append(words(f"{value * factor:.6g}", x, self.bottom + FONT + 4, "middle"))
        middle = (self.left + self.right) / 2
        return "".join([*parts, words(title, middle, self.bottom + 2 * FONT + 9, "middle", "title")])

    def left_axis(self, scale: Scale, title: str, factor: float = 1) -> str:
        """Ticks and title at the left, with lines across."""
        parts = []
        for value in scale.ticks():
            y = scale.at(value)
            parts.append(line(self.left, y, self.right, y, "grid"))
            parts.append(words(f"{value * factor:.6g}", self.left - 6, y + FONT / 3, "end"))
        middle = (self.top + self.bottom) / 2
        return "".join([*parts, words(title, FONT, middle, "middle", "title", turn=-90)])

    def right_axis(self, scale: Scale, title: str, width: float, factor: float = 1) -> str:
        """Ticks and title at the right of a drawing of that width."""
        parts = []
        for value in scale.ticks():
            y = scale.at(value)
            parts.append(line(self.right, y, self.right + 4, y, "axis"))
            parts.append(words(f"{value * factor:.6g}", self.right + 7, y + FONT / 3))
        middle = (self.top + self.bottom) / 2
        return "".join([*parts, words(title, width - FONT / 2, middle, "middle", "title", turn=-90)])


def duration_unit(high_s: float) -> tuple[str, float]:
    """The unit in which durations up to this are written on an axis, and how many make a second."""
    if high_s < 1:
        return "ms", 1e3
    return ("s", 1.0) if high_s < 300 else ("min", 1 / 60)


def rate_unit(high_bytes_per_s: float) -> tuple[str, float]:
    """The unit in which rates up to this are written on an axis, and how many make a byte per second."""
    for unit, size in (("GiB/s", 2**30), ("MiB/s", 2**20), ("KiB/s", 2**10)):
        if high_bytes_per_s >= size:
            return unit, 1 / size
    return "B/s", 1.0
