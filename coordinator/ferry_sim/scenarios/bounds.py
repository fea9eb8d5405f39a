"""Bounds of measured figures, as people write them.

::

    about 16 within 5 %    14 to 17    at most 36    at least 3    3
    within 15 %            within 15 % or 0.05          of an estimate: from what came of it
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_NUMBER: Final = r"([0-9]+(?:\.[0-9]+)?)"
_PERCENT: Final = rf"{_NUMBER} ?%"

EXAMPLES: Final = ("about 16 within 5 %", "14 to 17", "at most 36", "at least 3", "3")
NEARNESS_EXAMPLES: Final = ("within 15 %", "within 0.05", "within 15 % or 0.05")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure may be. ``least`` or ``most`` None: without end. ``text``: as it was written."""

    text: str
    least: float | None = None
    most: float | None = None

    def allows(self, value: float) -> bool:
        """Whether the figure may be this."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def words(self) -> str:
        """What was written, with its ends where they are not what was written."""
        if self.least is None or self.most is None or not self.text.startswith("about"):
            return self.text
        return f"{self.text} ({self.least:.6g} to {self.most:.6g})"


@dataclass(frozen=True, slots=True)
class Nearness:
    """How far an estimate may be from what came of it: a share of that, or so much if that is more."""

    text: str
    share: float
    by: float

    def allows(self, estimated: float, measured: float) -> bool:
        """Whether they are near enough."""
        return abs(estimated - measured) <= max(self.share * abs(measured), self.by)


def parse_bound(text: str) -> Bound:
    """Raises ValueError, which says what would be right."""
    for pattern, make in _BOUNDS.items():
        found = re.fullmatch(pattern, text.strip())
        if found is not None:
            bound = make(text.strip(), *map(float, found.groups()))
            if bound.least is not None and bound.most is not None and bound.least > bound.most:
                raise ValueError(f"{text!r} ends before it begins")
            return bound
    raise ValueError(f"{text!r} is not a bound: write for example {', '.join(EXAMPLES)}")


def parse_nearness(text: str) -> Nearness:
    """Raises ValueError, which says what would be right."""
    found = re.fullmatch(rf"within (?:{_PERCENT}(?: or {_NUMBER})?|{_NUMBER})", text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not how near: write for example {', '.join(NEARNESS_EXAMPLES)}")
    percent, other, by = found.groups()
    return Nearness(text.strip(), float(percent or 0) / 100, float(by or other or 0))


def _about(text: str, value: float, percent: float) -> Bound:
    return Bound(text, value * (1 - percent / 100), value * (1 + percent / 100))


_BOUNDS: Final[dict[str, Callable[..., Bound]]] = {
    rf"about {_NUMBER} within {_PERCENT}": _about,
    rf"{_NUMBER} to {_NUMBER}": Bound,
    rf"at most {_NUMBER}": lambda text, most: Bound(text, None, most),
    rf"at least {_NUMBER}": lambda text, least: Bound(text, least, None),
    _NUMBER: lambda text, value: Bound(text, value, value),
}


def _bound(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    return parse_bound(str(value))


def _nearness(value: object) -> object:
    return parse_nearness(value) if isinstance(value, str) else value


BoundOf = Annotated[
    Bound,
    BeforeValidator(_bound),
    PlainSerializer(lambda bound: bound.text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": f"^({'|'.join(_BOUNDS)})$"},
                {"type": "number", "minimum": 0},
            ],
            "description": "what a figure may be",
            "examples": list(EXAMPLES),
        }
    ),
]
NearnessOf = Annotated[
    Nearness,
    BeforeValidator(_nearness),
    PlainSerializer(lambda nearness: nearness.text),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^within ({_PERCENT}( or {_NUMBER})?|{_NUMBER})$",
            "description": "how far an estimate may be from what came of it",
            "examples": list(NEARNESS_EXAMPLES),
        }
    ),
]
