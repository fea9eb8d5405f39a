"""What a test finds: pass, warning or failure, in words, and what to do about it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

SHOWN_MAX = 50
"""Things that one test lists before it only counts: a cluster of 64 nodes has 4,032 paths."""


class Category(StrEnum):
    """Kinds of tests, in the order of the report."""

    INVENTORY = "inventory"
    NETWORK = "network"
    STORAGE = "storage"
    SYSTEM = "system"
    CLUSTER = "cluster"


class Outcome(StrEnum):
    """How a test ends."""

    PASS = "pass"  # noqa: S105 - an outcome, no password
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a test function returns. ``found``: a thing each; ``advice``: empty if there is nothing to do."""

    outcome: Outcome
    found: tuple[str, ...]
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict under the name of its test."""

    category: Category
    test: str
    outcome: Outcome
    found: tuple[str, ...]
    advice: str


def judge(
    fine: str | Sequence[str],
    *,
    failures: Sequence[str] = (),
    warnings: Sequence[str] = (),
    advice: str = "",
) -> Verdict:
    """A failure if there is one, else a warning if there is one, else a pass.

    ``fine`` is told of a pass, or if it is a list, whatever the outcome; ``advice`` unless it is a pass.
    """
    listed = [] if isinstance(fine, str) else list(fine)
    wrong = [*failures, *warnings]
    if not wrong:
        return Verdict(Outcome.PASS, _bounded(listed or [str(fine)]))
    return Verdict(Outcome.FAILURE if failures else Outcome.WARNING, _bounded([*wrong, *listed]), advice)


def odd_ones(values: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """What most have (of equally many, what comes first), and those who have something else, by name."""
    counts = Counter(values.values())
    usual = max(counts, key=lambda value: counts[value], default="")
    return usual, {name: value for name, value in values.items() if value != usual}


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 node``, ``3 nodes``."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def listed(names: Iterable[str]) -> str:
    """``a, b and c``."""
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _bounded(found: Sequence[str]) -> tuple[str, ...]:
    if len(found) <= SHOWN_MAX:
        return tuple(found)
    return (*found[:SHOWN_MAX], f"and {len(found) - SHOWN_MAX} more")
