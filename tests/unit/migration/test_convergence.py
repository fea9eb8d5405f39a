"""When copying ends, and the words for it."""

import pytest

from ferry_host.convergence import Action, Policy, copy_time_s, decide
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import PassFigures

MIB = 2**20
POLICY = Policy(pass_limit=10, blackout_allowed_s=0.05)


def passes(count: int, duration_s: float = 1.0) -> list[PassFigures]:
    return [PassFigures(index, 1000, 0, 4_096_000, duration_s, 500) for index in range(1, count + 1)]


def test_nothing_left() -> None:
    decision = decide(passes(1), 0, 820 * MIB, POLICY)
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation == "switched after pass 1: no page was dirty any more"


def test_what_is_left_fits() -> None:
    decision = decide(passes(3), 212, 820 * MIB, POLICY)
    assert decision.action is Action.SWITCH_OVER
    assert decision.explanation == (
        "switched after pass 3: 212 dirty pages (848 KiB) fit into the allowed 50.0 ms at 820 MiB/s"
    )


def test_one_page_is_worded_as_one() -> None:
    decision = decide(passes(3), 1, 820 * MIB, POLICY)
    assert "1 dirty page (4 KiB) fits into" in decision.explanation


@pytest.mark.parametrize(("dirty_pages", "action"), [(500, Action.SWITCH_OVER), (501, Action.CONTINUE)])
def test_the_border_is_the_allowed_blackout_at_the_measured_rate(dirty_pages: int, action: Action) -> None:
    assert decide(passes(1), dirty_pages, 10_000 * PAGE_SIZE, POLICY).action is action


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
