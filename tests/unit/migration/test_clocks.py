"""Clock offsets and the figures that need them."""

from dataclasses import astuple

import pytest

from ferry_agent.migration.clocks import ClockExchange, estimate_offset_s, machine_boot_id, share_a_clock
from ferry_agent.migration.copier import Copied
from ferry_agent.migration.figures import RATE_BYTES_MIN, MoveRecord
from ferry_types.migrations import HandOffTimes


def test_the_exchange_with_the_shortest_round_trip_counts() -> None:
    slow = ClockExchange(source_sent_at_s=10.0, target_at_s=510.9, source_received_at_s=11.0)
    quick = ClockExchange(source_sent_at_s=20.0, target_at_s=520.001, source_received_at_s=20.002)
    assert estimate_offset_s([slow, quick]) == pytest.approx(500.0)
    assert estimate_offset_s([slow]) == pytest.approx(500.4)


def test_one_boot_is_one_clock_and_an_unknown_boot_is_none() -> None:
    assert share_a_clock("boot", "boot")
    assert not share_a_clock("boot", "other")
    assert not share_a_clock("", "")
    assert share_a_clock(machine_boot_id(), machine_boot_id())


def test_figures_of_a_move() -> None:
    record = MoveRecord()
    assert record.figures(5.0).brownout_s == 0.0
    record.began_at_s = 10.0
    record.add_pass(Copied(pages_sent=1000, zero_pages=24, bytes_sent=4_200_000), 0.5, 100)
    assert record.figures(10.75).brownout_s == 0.75
    record.paused_at_s = 11.0
    record.set_final(Copied(pages_sent=100, zero_pages=0, bytes_sent=420_000), 0.002)
    figures = record.figures(99.0, first_quantum_at_s=11.004, verified=True)
    assert figures.brownout_s == 1.0
    assert figures.blackout_s == pytest.approx(0.004)
    assert figures.bytes_sent == 4_620_000
    assert figures.verified is True
    assert [one.index for one in figures.passes] == [1]
    assert figures.final is not None
    assert (figures.final.index, figures.final.pages_sent, figures.final.dirty_pages_after) == (0, 100, 0)


def test_a_clock_error_larger_than_the_blackout_makes_no_negative_time() -> None:
    record = MoveRecord()
    record.began_at_s, record.paused_at_s = 10.0, 11.0
    assert record.figures(12.0, first_quantum_at_s=10.999).blackout_s == 0.0


def test_the_parts_of_a_blackout_are_the_blackout() -> None:
    record = MoveRecord()
    record.began_at_s, record.paused_at_s, record.final_sent_at_s = 10.0, 11.0, 11.001
    figures = record.figures(99.0, first_quantum_at_s=11.009, hand_off=HandOffTimes(11.003, 11.006))
    parts = figures.blackout
    assert parts is not None
    assert astuple(parts) == pytest.approx((0.001, 0.002, 0.003, 0.003))
    assert sum(astuple(parts)) == pytest.approx(figures.blackout_s)


@pytest.mark.parametrize(
    ("hand_off", "first_quantum_at_s"),
    [
        (HandOffTimes(11.0005, 11.006), 11.009),
        (HandOffTimes(10.5, 10.6), 11.009),
        (HandOffTimes(12.0, 12.1), 11.009),
        (HandOffTimes(10.5, 10.6), 10.9),
    ],
    ids=["ready before it was sent", "before the pause", "after the end", "all before the pause"],
)
def test_a_clock_error_makes_no_negative_part(hand_off: HandOffTimes, first_quantum_at_s: float) -> None:
    record = MoveRecord()
    record.began_at_s, record.paused_at_s, record.final_sent_at_s = 10.0, 11.0, 11.001
    figures = record.figures(99.0, first_quantum_at_s=first_quantum_at_s, hand_off=hand_off)
    parts = figures.blackout
    assert parts is not None
    assert min(astuple(parts)) >= 0.0
    assert sum(astuple(parts)) == pytest.approx(figures.blackout_s)


def test_no_part_is_made_up() -> None:
    record = MoveRecord()
    record.began_at_s, record.paused_at_s = 10.0, 11.0
    times = HandOffTimes(11.003, 11.006)
    assert record.figures(99.0, first_quantum_at_s=11.009, hand_off=times).blackout is None
    record.final_sent_at_s = 11.001
    assert record.figures(99.0, first_quantum_at_s=11.009).blackout is None
    assert record.figures(99.0, hand_off=times).blackout is None


def test_a_short_pass_does_not_change_the_measured_rate() -> None:
    record = MoveRecord()
    record.add_pass(Copied(1000, 0, 4 * RATE_BYTES_MIN), 0.5, 10)
    record.add_pass(Copied(10, 0, 41_000), 0.01, 1)
    assert record.rate_bytes_per_s == 8 * RATE_BYTES_MIN
