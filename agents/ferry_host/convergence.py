"""When pre-copy ends: continue copying while the guest runs, pause it and switch over, or give up.

The rules are Hyper-V's: nothing is dirty any more, or what is left is tiny, or the pass limit is reached. And
what fits into the black-out that is allowed is copied in it once passes do not halve it any more: while they
do, all that follow take no more than twice the black-out that they spare. Three more, beyond Hyper-V, a user
has to ask for:

- *Throttle.* The guest is slowed after each pass that left more than half as much dirty as there was to
  send: by 20 %, then by 10 % more each time, by 99 % at most. These are the defaults of QEMU's auto-converge
  (``cpu-throttle-initial``, ``cpu-throttle-increment``, ``max-cpu-throttle`` and
  ``throttle-trigger-threshold`` in its ``migration/options.c``).
- *Switch at the minimum.* Once passes leave no less than those before them, the switch is made as soon as a
  pass leaves about as little as the best of the last few; for that it may even come after the pass limit,
  by a bounded number of passes.
- *Abort over black-out.* Where the pass limit would force the switch, the move is given up instead.

Every decision is explained in words, because "why did it stop there?" is the first question about any live
migration.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import MigrationOptions, PassFigures
from ferry_types.units import format_duration, format_rate, format_size

THROTTLE_INITIAL_PERCENT = 20
THROTTLE_STEP_PERCENT = 10
THROTTLE_MAX_PERCENT = 99

UNPRODUCTIVE_SHARE = 0.5
"""A pass is unproductive if it left more than this share of what it had to send; the guest is slowed then."""

TINY_S = 0.001
"""What is left is tiny if it is copied in this time: a hand-off takes longer, and no pass takes less."""

STALLED_PASSES = 2
STALLED_SHARE = 0.9
"""Passes have stalled if so many in a row left no less than this share of the least before them."""

MINIMUM_WINDOW_PASSES = 5
"""The latest passes, among which the minimum is looked for: a guest changes its habits."""

MINIMUM_NEARNESS = 1.1
"""What a pass leaves counts as the minimum up to so many times the least."""

MINIMUM_WAIT_PASSES = 5
"""So many passes beyond the limit, at most, are made for the sake of a better moment."""


class Action(StrEnum):
    """What the source does next."""

    CONTINUE = "continue"
    SWITCH_OVER = "switch over"
    GIVE_UP = "give up"


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user allowed: passes over memory, seconds that the last copy may take, and which help."""

    pass_limit: int
    blackout_allowed_s: float
    throttle: bool = False
    switch_at_minimum: bool = False
    abort_over_blackout: bool = False

    @classmethod
    def of(cls, options: MigrationOptions) -> "Policy":
        """The policy that the options of a move ask for."""
        return cls(
            options.pass_limit,
            options.blackout_allowed_s,
            options.throttle,
            options.switch_at_minimum,
            options.abort_over_blackout,
        )

    @property
    def is_choosy(self) -> bool:
        """Whether the moment of the switch matters more than that it comes at once."""
        return self.switch_at_minimum or self.abort_over_blackout


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next, and why, for a person to read; ``throttle_percent``: in the pass that follows."""

    action: Action
    explanation: str
    throttle_percent: int = 0


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
        return _switch(last, f"switched after pass {last.index}: no page was dirty any more")
    copy_s = copy_time_s(dirty_pages, rate_bytes_per_s)
    if copy_s is not None and copy_s <= policy.blackout_allowed_s:
        verb = "fits" if dirty_pages == 1 else "fit"
        fits = f"{left} {verb} into {allowed} at {format_rate(rate_bytes_per_s)}"
        if len(history) < policy.pass_limit and _pays(last.index, _pages_of(last), dirty_pages, copy_s):
            return _continue(history, f"{fits}, and one more pass leaves less", policy)
        return _switch(last, f"switched after pass {last.index}: {fits}")
    if policy.switch_at_minimum:
        if (reason := _minimum_reason(history, dirty_pages, policy)) is not None:
            return _switch(last, f"switched after pass {last.index} with {left}: {reason}")
    elif len(history) >= policy.pass_limit:
        why = _explain_limit(last, dirty_pages, rate_bytes_per_s, policy)
        if not policy.abort_over_blackout:
            return _switch(last, f"switched {why}")
        needed_s = "for a time that is not known" if copy_s is None else f"for {format_duration(copy_s)}"
        return Decision(Action.GIVE_UP, f"given up {why}, which pause the guest {needed_s}, over {allowed}")
    needed = (
        "at a rate that is not known yet"
        if copy_s is None
        else f"need {format_duration(copy_s)} at {format_rate(rate_bytes_per_s)}, {allowed} are less"
    )
    return _continue(history, f"{left} {needed}", policy)


def is_switch_near(
    pass_index: int, pass_pages: int, dirty_pages: int, rate_bytes_per_s: float, policy: Policy
) -> bool:
    """Whether the pass whose last pages are travelling will most likely be the one to switch after.

    ``pass_pages``: which it has to send. The guest writes on until they have arrived: half of what is allowed
    is left for that.
    """
    if policy.is_choosy:
        return False
    copy_s = copy_time_s(dirty_pages, rate_bytes_per_s)
    if copy_s is None:
        return dirty_pages == 0
    is_last = pass_index >= policy.pass_limit or not _pays(pass_index, pass_pages, dirty_pages, copy_s)
    return is_last and copy_s <= policy.blackout_allowed_s / 2


def next_throttle_percent(history: Sequence[PassFigures]) -> int:
    """By how much to slow the guest after the last pass of ``history`` (at least one)."""
    last = history[-1]
    percent = last.throttle_percent
    if _gets_on(last.index, _pages_of(last), last.dirty_pages_after):
        return percent
    if percent == 0:
        return THROTTLE_INITIAL_PERCENT
    return min(percent + THROTTLE_STEP_PERCENT, THROTTLE_MAX_PERCENT)


def have_stalled(history: Sequence[PassFigures]) -> bool:
    """Whether the last passes left no less than those before them, at the same speed of the guest."""
    alike = [figures for figures in history if figures.throttle_percent == history[-1].throttle_percent]
    if len(alike) <= STALLED_PASSES:
        return False
    least = min(figures.dirty_pages_after for figures in alike[:-STALLED_PASSES])
    return all(figures.dirty_pages_after >= STALLED_SHARE * least for figures in alike[-STALLED_PASSES:])


def dirty_rate_bytes_per_s(last: PassFigures, dirty_pages: int) -> float:
    """How fast the guest dirtied pages during a pass; a page written many times counts once."""
    return dirty_pages * PAGE_SIZE / last.duration_s if last.duration_s > 0 else 0.0


def copy_time_s(pages: int, rate_bytes_per_s: float) -> float | None:
    """Seconds that copying so many pages takes, for decisions and progress; None while no rate is known."""
    return pages * PAGE_SIZE / rate_bytes_per_s if rate_bytes_per_s > 0 else None


def _pays(pass_index: int, pass_pages: int, dirty_pages: int, copy_s: float) -> bool:
    """Whether one more pass is likely to leave much less than this one has, with so many pages dirty."""
    return copy_s > TINY_S and _gets_on(pass_index, pass_pages, dirty_pages)


def _gets_on(pass_index: int, pass_pages: int, dirty_pages: int) -> bool:
    """Whether a pass over ``pass_pages`` is not unproductive.

    The first has all memory to send, and tells nothing about those that follow: it gets the benefit.
    """
    return pass_index == 1 or dirty_pages <= UNPRODUCTIVE_SHARE * pass_pages


def _minimum_reason(history: Sequence[PassFigures], dirty_pages: int, policy: Policy) -> str | None:
    """Why now is the moment to switch, or None."""
    at_limit = len(history) >= policy.pass_limit
    if not at_limit and not have_stalled(history):
        return None
    window = history[-MINIMUM_WINDOW_PASSES:]
    least = min(figures.dirty_pages_after for figures in window)
    why = f"{_limit(policy)} was reached" if at_limit else "further passes did not pay"
    if dirty_pages <= least * MINIMUM_NEARNESS:
        return f"{why}, and this was about the least that the last {len(window)} passes had left"
    if len(history) >= policy.pass_limit + MINIMUM_WAIT_PASSES:
        return f"{why}, and {MINIMUM_WAIT_PASSES} more passes brought nothing near {_counted(least, 'page')}"
    return None


def _continue(history: Sequence[PassFigures], why: str, policy: Policy) -> Decision:
    percent = next_throttle_percent(history) if policy.throttle else 0
    slowed = f"; the guest is slowed by {percent} %" if percent else ""
    return Decision(Action.CONTINUE, f"pass {history[-1].index + 1} follows: {why}{slowed}", percent)


def _switch(last: PassFigures, explanation: str) -> Decision:
    slowed = f"; the guest was slowed by {last.throttle_percent} %" if last.throttle_percent else ""
    return Decision(Action.SWITCH_OVER, explanation + slowed)


def _explain_limit(last: PassFigures, dirty_pages: int, rate_bytes_per_s: float, policy: Policy) -> str:
    return (
        f"at {_limit(policy)}: the guest dirtied "
        f"{format_rate(dirty_rate_bytes_per_s(last, dirty_pages))}, "
        f"the wire carried {format_rate(rate_bytes_per_s)}, "
        f"so {format_size(dirty_pages * PAGE_SIZE)} were left"
    )


def _limit(policy: Policy) -> str:
    return f"the limit of {_counted(policy.pass_limit, 'pass', 'passes')}"


def _pages_of(figures: PassFigures) -> int:
    return figures.pages_sent + figures.zero_pages


def _counted(count: int, singular: str, plural: str | None = None) -> str:
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
