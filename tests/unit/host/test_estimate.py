"""What a move is expected to take: the passes beforehand, by arithmetic."""

import math

import numpy as np
import pytest

from ferry_host.convergence import Policy
from ferry_host.estimate import GuestFigures, dirty_pages_after, estimate
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import WireFigures
from ferry_types.workloads import AccessPattern

UNIFORM, SEQUENTIAL, HOTSET = AccessPattern.UNIFORM, AccessPattern.SEQUENTIAL, AccessPattern.HOTSET
WIRE = WireFigures(1000 * PAGE_SIZE, blackout_floor_s=0.004)
"""1000 pages a second."""
POLICY = Policy(10, 0.05)


def guest(writes_per_s: float, working_set_pages: int, access: AccessPattern = UNIFORM) -> GuestFigures:
    return GuestFigures(10_000, writes_per_s, working_set_pages, access)


def test_a_sequential_guest_dirties_one_page_after_the_other_until_it_comes_round() -> None:
    assert dirty_pages_after(guest(100, 1000, SEQUENTIAL), 3) == 300
    assert dirty_pages_after(guest(100, 1000, SEQUENTIAL), 30) == 1000


def test_a_uniform_guest_dirties_fewer_and_fewer_new_pages() -> None:
    assert dirty_pages_after(guest(100, 1000), 10) == pytest.approx(1000 * (1 - math.exp(-1)))
    assert dirty_pages_after(guest(100, 1000), 0) == 0


@pytest.mark.parametrize("access", [UNIFORM, HOTSET])
@pytest.mark.parametrize("span_s", [0.3, 3.0])
def test_chance_agrees(access: AccessPattern, span_s: float) -> None:
    draw = np.random.default_rng(3)
    writes = round(1000 * span_s)
    offsets = draw.integers(0, 2000, writes)
    if access is HOTSET:
        offsets = np.where(draw.random(writes) < 0.9, draw.integers(0, 200, writes), offsets % 1800 + 200)
    expected = dirty_pages_after(guest(1000, 2000, access), span_s)
    assert len(np.unique(offsets)) == pytest.approx(expected, rel=0.06)


def test_a_hot_set_of_one_page_is_all_that_there_is() -> None:
    assert dirty_pages_after(guest(1000, 1, HOTSET), 10) == pytest.approx(1)


def test_books_come_on_top_but_not_before_anything_is_written() -> None:
    keeps_books = GuestFigures(10_000, 100, 1_000_000, SEQUENTIAL, books_pages=7)
    assert dirty_pages_after(keeps_books, 10) == 1007
    assert dirty_pages_after(keeps_books, 0) == 0


def test_a_throttled_guest_dirties_as_if_less_time_had_passed() -> None:
    busy = guest(100, 1000)
    assert dirty_pages_after(busy, 10, throttle_percent=40) == dirty_pages_after(busy, 6)


def test_an_idle_guest_takes_one_pass_and_the_floor() -> None:
    made = estimate(guest(0, 256), WIRE, POLICY)
    assert (made.passes, made.brownout_s, made.blackout_s) == (1, 10.0, 0.004)
    assert made.bytes_sent == 10_000 * PAGE_SIZE
    assert made.explanation == "switched after pass 1: no page was dirty any more"


def test_an_empty_guest_takes_no_time() -> None:
    made = estimate(GuestFigures(0, 0, 256, UNIFORM), WIRE, POLICY)
    assert (made.passes, made.brownout_s, made.blackout_s, made.bytes_sent) == (1, 0.0, 0.004, 0)


def test_each_pass_sends_what_was_dirtied_during_the_one_before() -> None:
    made = estimate(guest(100, 1_000_000, SEQUENTIAL), WIRE, POLICY)
    # 10,000 pages in 10 s; 1,000 in 1 s; 100 in 0.1 s; 10 in 10 ms, which 50 would allow; 1 ms is tiny.
    assert made.passes == 4
    assert made.brownout_s == pytest.approx(11.11)
    assert made.blackout_s == pytest.approx(0.001 + 0.004)
    assert made.bytes_sent == (10_000 + 1_000 + 100 + 10 + 1) * PAGE_SIZE
    assert made.rate_bytes_per_s == WIRE.rate_bytes_per_s
    assert made.write_bytes_per_s == 100 * PAGE_SIZE


def test_a_guest_that_outruns_the_wire_is_switched_at_the_limit() -> None:
    made = estimate(guest(2000, 5000), WIRE, POLICY)
    assert made.passes == 10
    assert made.blackout_s is not None
    # The share x of the set that stays dirty: x = 1 - exp(-2x).
    assert made.blackout_s == pytest.approx(5.0 * 0.797, rel=0.01)


def test_throttled_it_converges() -> None:
    made = estimate(guest(2000, 5000), WIRE, Policy(20, 0.05, throttle=True))
    assert made.passes < 20
    assert made.blackout_s is not None
    assert made.blackout_s <= 0.054
    assert "the guest was slowed by " in made.explanation


def test_it_would_be_given_up() -> None:
    made = estimate(guest(2000, 5000), WIRE, Policy(10, 0.05, abort_over_blackout=True))
    assert made.blackout_s is None
    assert made.explanation.startswith("given up at the limit of 10 passes")


def test_with_the_minimum_rule_it_does_not_go_on_to_the_limit() -> None:
    made = estimate(guest(2000, 5000), WIRE, Policy(100, 0.05, switch_at_minimum=True))
    assert made.passes < 10
