"""What counts as answered, lost, a gap and a step counter that fell."""

import math

from ferry.v1.host_pb2 import EchoReply
from ferry_cli.echo import REPLY_TIMEOUT_S, EchoBooks


def reply(sequence: int, *, boot_epoch: int = 1, step: int = 0) -> EchoReply:
    return EchoReply(vm="a", sequence=sequence, epoch=boot_epoch, boot_epoch=boot_epoch, step=step)


def test_every_request_is_received_or_lost() -> None:
    books = EchoBooks()
    first, second = books.request(0.0), books.request(0.1)
    books.answer(reply(second), 0.2)
    assert books.report().lost == 0
    books.give_up(0.1 + REPLY_TIMEOUT_S)
    report = books.report()
    assert (report.sent, report.received, report.lost) == (2, 1, 1)
    books.answer(reply(first), 5.0)
    assert books.report() == report


def test_an_answer_that_is_too_late_is_lost_even_if_nobody_has_given_it_up() -> None:
    books = EchoBooks()
    books.answer(reply(books.request(0.0)), REPLY_TIMEOUT_S + 0.1)
    assert (books.received, books.lost) == (0, 1)


def test_a_repeated_answer_counts_once() -> None:
    books = EchoBooks()
    sequence = books.request(0.0)
    books.answer(reply(sequence), 0.1)
    books.answer(reply(sequence), 0.2)
    assert books.report().received == 1


def test_the_gap_is_the_longest_time_without_an_answer() -> None:
    books = EchoBooks()
    for asked_at, answered_at in ((0.0, 0.01), (0.1, 0.11), (0.2, 0.61), (0.7, 0.71)):
        books.answer(reply(books.request(asked_at)), answered_at)
    assert math.isclose(books.report().longest_gap_s or 0, 0.5)


def test_silence_at_the_end_is_a_gap_too() -> None:
    books = EchoBooks()
    books.answer(reply(books.request(0.0)), 0.01)
    for asked_at in (0.1, 0.5, 0.9):
        books.request(asked_at)
    books.give_up(math.inf)
    assert math.isclose(books.report().longest_gap_s or 0, 0.89)


def test_without_any_answer_the_gap_is_unknown() -> None:
    books = EchoBooks()
    books.request(0.0)
    books.give_up(math.inf)
    assert books.report().longest_gap_s is None


def test_a_step_counter_falls_only_without_a_boot() -> None:
    books = EchoBooks()
    books.answer(reply(books.request(0.0), boot_epoch=1, step=500), 0.0)
    books.answer(reply(books.request(0.1), boot_epoch=4, step=3), 0.1)
    assert books.report().steps_fell == 0
    books.answer(reply(books.request(0.2), boot_epoch=4, step=2), 0.2)
    assert books.report().steps_fell == 1


def test_an_older_boot_that_answers_a_newer_request_is_an_older_image() -> None:
    books = EchoBooks()
    books.answer(reply(books.request(0.0), boot_epoch=4, step=3), 0.0)
    books.answer(reply(books.request(0.1), boot_epoch=1, step=900), 0.1)
    assert books.report().steps_fell == 1


def test_an_answer_that_was_overtaken_says_nothing_about_the_counter() -> None:
    books = EchoBooks()
    earlier, later = books.request(0.0), books.request(0.1)
    books.answer(reply(later, step=11), 0.2)
    books.answer(reply(earlier, step=10), 0.21)
    report = books.report()
    assert (report.received, report.steps_fell) == (2, 0)


def test_counting_anew_keeps_the_counter_and_the_time_of_the_last_answer() -> None:
    books = EchoBooks()
    books.answer(reply(books.request(0.0), step=50), 0.0)
    stray = books.request(0.1)
    books.count_anew()
    books.answer(reply(stray, step=51), 0.15)
    assert books.report().received == 0
    books.answer(reply(books.request(0.3), step=49), 0.4)
    report = books.report()
    assert (report.sent, report.received, report.steps_fell) == (1, 1, 1)
    assert math.isclose(report.longest_gap_s or 0, 0.4)
