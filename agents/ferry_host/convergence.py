"""When pre-copy ends: continue copying while the guest runs, or pause it and switch over.

The rules are Hyper-V's: nothing is dirty any more, or what is left fits into the black-out that is allowed,
or the pass limit is reached. The decision is explained in words, because "why did it stop there?" is the
first question about any live migration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import PassFigures
from ferry_types.units import format_duration, format_rate, format_size


class Action(StrEnum):
    """What the source does next."""

    CONTINUE = "continue"
    SWITCH_OVER = "switch over"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user allowed: passes over memory, and seconds that the last copy may take."""

    pass_limit: int
    blackout_allowed_s: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next, and why, for a person to read."""

    action: Action
    explanation: str


def decide(
    history: Sequence[PassFigures], dirty_pages: int, rate_bytes_per_s: float, policy: Policy
) -> Decision:
    """Decide after the last pass of ``history`` (at least one), with so many pages dirty now.

    ``rate_bytes_per_s`` is what the wire was measured to carry; 0 means that it is not known yet, and then
    nothing is said to fit.
    """
    last = history[-1]
    left = f"{_counted(dirty_pages, 'dirty page')} ({format_size(dirty_pages * PAGE_SIZE)})"
    allowed = f"the allowed {format_duration(policy.blackout_allowed_s)}"
    if dirty_pages == 0:
        return Decision(Action.SWITCH_OVER, f"switched after pass {last.index}: no page was dirty any more")
    copy_s = copy_time_s(dirty_pages, rate_bytes_per_s)
    if copy_s is not None and copy_s <= policy.blackout_allowed_s:
        verb = "fits" if dirty_pages == 1 else "fit"
        return Decision(
            Action.SWITCH_OVER,
            f"switched after pass {last.index}: {left} {verb} into {allowed} "
            f"at {format_rate(rate_bytes_per_s)}",
        )
    if len(history) >= policy.pass_limit:
        return Decision(Action.SWITCH_OVER, _explain_limit(last, dirty_pages, rate_bytes_per_s, policy))
    needed = (
        "at a rate that is not known yet"
        if copy_s is None
        else f"need {format_duration(copy_s)} at {format_rate(rate_bytes_per_s)}, {allowed} are less"
    )
    return Decision(Action.CONTINUE, f"pass {last.index + 1} follows: {left} {needed}")


def dirty_rate_bytes_per_s(last: PassFigures, dirty_pages: int) -> float:
    """How fast the guest dirtied pages during a pass; a page written many times counts once."""
    return dirty_pages * PAGE_SIZE / last.duration_s if last.duration_s > 0 else 0.0


def copy_time_s(pages: int, rate_bytes_per_s: float) -> float | None:
    """Seconds that copying so many pages takes, for decisions and progress; None while no rate is known."""
    return pages * PAGE_SIZE / rate_bytes_per_s if rate_bytes_per_s > 0 else None


def _explain_limit(last: PassFigures, dirty_pages: int, rate_bytes_per_s: float, policy: Policy) -> str:
    return (
        f"switched at the limit of {_counted(policy.pass_limit, 'pass', 'passes')}: the guest dirtied "
        f"{format_rate(dirty_rate_bytes_per_s(last, dirty_pages))}, "
        f"the wire carried {format_rate(rate_bytes_per_s)}, "
        f"so {format_size(dirty_pages * PAGE_SIZE)} were left"
    )


def _counted(count: int, singular: str, plural: str | None = None) -> str:
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
