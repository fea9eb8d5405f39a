"""When copying ends, and the words for it."""

from dataclasses import replace
from typing import Any

import pytest

from ferry_host.convergence import (
    Action,
    Decision,
    Policy,
    copy_time_s,
    decide,
    have_stalled,
    is_switch_near,
    next_throttle_percent,
)
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import MigrationOptions, PassFigures

MIB = 2**20
POLICY = Policy(pass_limit=10, blackout_allowed_s=0.05)


def passes(count: int, duration_s: float = 1.0) -> list[PassFigures]:
    return [PassFigures(index, 1000, 0, 4_096_000, duration_s, 500) for index in range(1, count + 1)]


def test_nothing_left() -> None:
    decision = decide(passes(1), 0, 820 * MIB, POLICY)
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation == "switched after pass 1: no page was dirty any more"


def test_what_is_left_fits() -> None:
    decision = decide(passes(3), 201, 820 * MIB, POLICY)
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation == (
        "switched after pass 3: 201 dirty pages (804 KiB) fit into the allowed 50.0 ms at 820 MiB/s"
    )


def test_one_page_is_worded_as_one() -> None:
    decision = decide(passes(3), 1, 820 * MIB, POLICY)
    assert "1 dirty page (4 KiB) fits into" in decision.explanation


@pytest.mark.parametrize(("dirty_pages", "action"), [(5000, Action.SWITCH_OVER), (5001, Action.CONTINUE)])
def test_the_border_is_the_allowed_blackout_at_the_measured_rate(dirty_pages: int, action: Action) -> None:
    assert decide(passes(2), dirty_pages, 100_000 * PAGE_SIZE, POLICY).action is action


@pytest.mark.parametrize(
    ("pass_index", "dirty_pages", "action"),
    [
        (2, 501, Action.SWITCH_OVER),  # the second pass left more than half of its 1000 pages
        (2, 500, Action.CONTINUE),
        (1, 501, Action.CONTINUE),  # the first had all memory to send, and says nothing about the next
        (2, 11, Action.CONTINUE),
        (2, 10, Action.SWITCH_OVER),  # a millisecond
        (1, 10, Action.SWITCH_OVER),
        (10, 500, Action.SWITCH_OVER),  # the pass limit
    ],
)
def test_what_fits_is_made_less_while_passes_leave_less_until_it_is_tiny(
    pass_index: int, dirty_pages: int, action: Action
) -> None:
    decision = decide(passes(pass_index), dirty_pages, 10_000 * PAGE_SIZE, Policy(10, 60.0))
    assert decision.action is action
    assert "fit into the allowed 60.000 s" in decision.explanation


def test_a_pass_that_is_made_for_less_says_so() -> None:
    assert decide(passes(2), 500, 10_000 * PAGE_SIZE, POLICY).explanation == (
        "pass 3 follows: 500 dirty pages (2.0 MiB) fit into the allowed 50.0 ms at 39.1 MiB/s, and one more "
        "pass leaves less"
    )


def test_a_guest_that_is_slowed_stays_so_while_passes_leave_less() -> None:
    history = leaving(5000, 1000, throttle_percent=40)
    assert decide(history, 1000, 100_000 * PAGE_SIZE, THROTTLE).throttle_percent == 40


def test_too_much_left_goes_on_and_says_how_much() -> None:
    decision = decide(passes(3), 51_200, 100 * MIB, POLICY)
    assert decision.action is Action.CONTINUE
    assert decision.explanation == (
        "pass 4 follows: 51200 dirty pages (200 MiB) need 2.000 s at 100 MiB/s, the allowed 50.0 ms are less"
    )


def test_the_limit_forces_the_switch_and_says_what_won() -> None:
    history = passes(10, duration_s=0.25)
    decision = decide(history, 41 * 256, 100 * MIB, POLICY)
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation == (
        "switched at the limit of 10 passes: the guest dirtied 164 MiB/s, the wire carried 100 MiB/s, "
        "so 41 MiB were left"
    )


def test_the_limit_of_one_pass() -> None:
    decision = decide(passes(1), 41 * 256, 100 * MIB, Policy(1, 0.0))
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation.startswith("switched at the limit of 1 pass: ")


def test_with_no_rate_known_nothing_fits() -> None:
    decision = decide(passes(1), 1, 0.0, POLICY)
    assert decision.action is Action.CONTINUE
    assert "at a rate that is not known yet" in decision.explanation


def test_with_no_blackout_allowed_every_dirty_page_counts() -> None:
    assert decide(passes(1), 1, 1000 * MIB, Policy(10, 0.0)).action is Action.CONTINUE


def test_copy_time() -> None:
    assert copy_time_s(256, MIB) == 1.0
    assert copy_time_s(0, MIB) == 0.0
    assert copy_time_s(256, 0.0) is None


# --- help to converge ---------------------------------------------------------------------------------

THROTTLE = Policy(10, 0.05, throttle=True)
MINIMUM = Policy(10, 0.05, switch_at_minimum=True)
ABORT = Policy(10, 0.05, abort_over_blackout=True)
SLOW = 10 * MIB


def leaving(*dirty_pages: int, throttle_percent: int = 0) -> list[PassFigures]:
    """Passes that left so many pages dirty; each but the first had what the one before it left to send."""
    to_send = (1_000_000, *dirty_pages)
    return [
        PassFigures(
            i + 1, to_send[i], 0, to_send[i] * PAGE_SIZE, 1.0, left, throttle_percent=throttle_percent
        )
        for i, left in enumerate(dirty_pages)
    ]


def after(history: list[PassFigures], policy: Policy) -> Decision:
    return decide(history, history[-1].dirty_pages_after, SLOW, policy)


@pytest.mark.parametrize(
    ("left", "before", "percent"),
    [(501, 0, 20), (501, 20, 30), (501, 90, 99), (501, 99, 99), (500, 0, 0), (500, 40, 40)],
)
def test_a_pass_that_leaves_more_than_half_slows_the_guest_further(
    left: int, before: int, percent: int
) -> None:
    assert next_throttle_percent(leaving(1000, left, throttle_percent=before)) == percent


def test_the_first_pass_slows_nobody() -> None:
    assert next_throttle_percent(leaving(999_999)) == 0


def test_zero_pages_were_to_be_looked_at_as_well() -> None:
    last = PassFigures(2, 100, 900, 409_600, 1.0, 500)
    assert next_throttle_percent([*leaving(1000), last]) == 0


def test_the_guest_is_slowed_only_if_that_was_asked_for() -> None:
    history = leaving(5000, 5000)
    assert after(history, THROTTLE).throttle_percent == 20
    assert after(history, THROTTLE).explanation.endswith("; the guest is slowed by 20 %")
    assert after(history, POLICY).throttle_percent == 0
    assert "slowed" not in after(history, POLICY).explanation


def test_the_switch_of_a_slowed_guest_says_so() -> None:
    decision = after(leaving(5000, 120, 100, throttle_percent=40), THROTTLE)
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation.endswith("; the guest was slowed by 40 %")


@pytest.mark.parametrize(
    ("dirty_pages", "stalled"),
    [
        ((5000, 5000), False),  # nothing to compare with
        ((5000, 5000, 5000), True),
        ((5000, 4499, 5000), False),  # the one before the last got on
        ((5000, 5000, 4499), False),
        ((9000, 5000, 4600, 4500), True),  # no less than nine tenths of the least
    ],
)
def test_passes_have_stalled_once_two_in_a_row_leave_no_less(
    dirty_pages: tuple[int, ...], stalled: bool
) -> None:
    assert have_stalled(leaving(*dirty_pages)) is stalled


def test_passes_of_a_guest_that_was_slowed_since_do_not_count_as_stalled() -> None:
    history = [*leaving(5000, 5000), *leaving(5000, 5000, throttle_percent=20)[1:]]
    assert not have_stalled(history)


def test_stalled_passes_switch_at_the_minimum() -> None:
    decision = after(leaving(5000, 5000, 5100), MINIMUM)
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation == (
        "switched after pass 3 with 5100 dirty pages (19.9 MiB): further passes did not pay, and this was "
        "about the least that the last 3 passes had left"
    )
    assert after(leaving(5000, 5000, 5100), POLICY).action is Action.CONTINUE


def test_stalled_passes_away_from_the_minimum_go_on_until_it_comes_again() -> None:
    ebb_and_flow = (5000, 9000, 9000)
    assert after(leaving(*ebb_and_flow), MINIMUM).action is Action.CONTINUE
    assert after(leaving(*ebb_and_flow, 5400), MINIMUM).action is Action.SWITCH_OVER


def test_the_minimum_of_long_ago_is_not_waited_for() -> None:
    assert after(leaving(5000, 9000, 9000, 9000, 9000), MINIMUM).action is Action.CONTINUE
    assert after(leaving(5000, 9000, 9000, 9000, 9000, 9000), MINIMUM).action is Action.SWITCH_OVER


def test_beyond_the_limit_the_minimum_is_waited_for_but_not_for_ever() -> None:
    policy = Policy(3, 0.05, switch_at_minimum=True)
    rising = [5000 * 2**index for index in range(8)]
    for count in range(3, 8):
        assert after(leaving(*rising[:count]), policy).action is Action.CONTINUE
    decision = after(leaving(*rising), policy)
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation.endswith(
        "the limit of 3 passes was reached, and 5 more passes brought nothing near 40000 pages"
    )


def test_at_the_limit_the_move_is_given_up_if_what_is_left_takes_too_long() -> None:
    history = leaving(*[5120] * 10)
    assert after(history[:9], ABORT).action is Action.CONTINUE
    decision = after(history, ABORT)
    assert decision.action is Action.GIVE_UP
    assert decision.explanation == (
        "given up at the limit of 10 passes: the guest dirtied 20 MiB/s, the wire carried 10 MiB/s, so "
        "20 MiB were left, which pause the guest for 2.000 s, over the allowed 50.0 ms"
    )


def test_nothing_is_given_up_that_fits() -> None:
    assert after(leaving(*[5120] * 9, 128), ABORT).action is Action.SWITCH_OVER


# --- options that ask for it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"switch_at_minimum": True, "abort_over_blackout": True}, "--switch-at-minimum and --abort-over-bl"),
        ({"throttle": True, "pass_limit": 2}, "--throttle goes by what passes leave dirty"),
        ({"switch_at_minimum": True, "pass_limit": 2}, "--switch-at-minimum goes by what passes leave dirty"),
        ({"abort_over_blackout": True, "blackout_allowed_s": 0.0}, "--abort-over-blackout with an allowed"),
    ],
)
def test_contradictory_options_are_refused_by_name(chosen: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        MigrationOptions(**chosen).validate()


@pytest.mark.parametrize("other", ["switch_at_minimum", "abort_over_blackout"])
def test_throttling_goes_with_either_of_the_others(other: str) -> None:
    options = MigrationOptions(throttle=True, **{other: True})  # type: ignore[arg-type]
    options.validate()
    policy = Policy.of(options)
    assert policy.throttle
    assert getattr(policy, other)


@pytest.mark.parametrize(
    ("pass_index", "pass_pages", "dirty_pages", "pages_per_s", "near"),
    [
        (1, 1000, 0, 0, True),
        (1, 1000, 1, 0, False),
        (1, 1000, 10, 10_000, True),  # tiny
        (1, 1000, 11, 10_000, False),
        (2, 400, 250, 10_000, True),  # passes do not make it less
        (2, 400, 251, 10_000, False),  # more than half of what is allowed
        (2, 500, 250, 10_000, False),
        (10, 1000, 250, 10_000, True),  # the pass limit
        (10, 1000, 251, 10_000, False),
    ],
)
def test_the_switch_is_near_if_no_pass_would_follow_and_half_of_the_allowed_blackout_is_left(
    pass_index: int, pass_pages: int, dirty_pages: int, pages_per_s: int, near: bool
) -> None:
    rate = pages_per_s * PAGE_SIZE
    assert is_switch_near(pass_index, pass_pages, dirty_pages, rate, POLICY) is near


@pytest.mark.parametrize("help_", ["switch_at_minimum", "abort_over_blackout"])
def test_where_the_moment_matters_the_switch_is_not_taken_for_near(help_: str) -> None:
    assert not is_switch_near(1, 1000, 0, 1e9, replace(POLICY, **{help_: True}))
