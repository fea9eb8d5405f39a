"""When a move was in which phase: from its record and the event log, and never from a guess."""

import pytest
from tests.unit.cli.report_samples import a_log, a_move, an_event, clock, run_of

from ferry_cli.report.documents import Event, Move, unix_us
from ferry_cli.report.timeline_chart import bursts
from ferry_cli.report.timelines import Phase, Timeline, moves_of, timelines

BASE_US = unix_us(clock(0))
WHOLE = [
    ("queued", 10.0, 10.5),
    ("preparing", 10.5, 10.7),
    ("copying", 10.7, 11.7),
    ("black-out", 11.7, 11.95),
    ("switching", 11.95, 12.0),
]


def moves(*documents: dict[str, object]) -> tuple[Move, ...]:
    return run_of(list(documents)).moves


def events(*documents: dict[str, object]) -> tuple[Event, ...]:
    return run_of(list(documents)).events


def spans(timeline: Timeline) -> list[tuple[str, float, float]]:
    """Phases with their seconds."""
    return [
        (each.phase.value, (each.begin_us - BASE_US) / 1e6, (each.end_us - BASE_US) / 1e6)
        for each in timeline.segments
    ]


def test_record_and_log_give_all_phases() -> None:
    (timeline,) = timelines(moves(a_move()), events(*a_log()))
    assert spans(timeline) == WHOLE
    assert (timeline.is_whole, timeline.is_open) == (True, False)


def test_the_log_alone_gives_the_same() -> None:
    log = events(*a_log(cause="drain"))
    (move,) = moves_of(log)
    assert (move.id, move.vm, move.source, move.target, move.cause) == ("m1", "a", "n1", "n2", "drain")
    assert (move.state, move.brownout_s, move.blackout_s) == ("completed", 1.0, 0.25)
    assert spans(timelines([move], log)[0]) == WHOLE


def test_a_record_alone_gives_its_length_and_no_phase() -> None:
    (timeline,) = timelines(moves(a_move()), [])
    assert spans(timeline) == [("phases unknown", 10.0, 12.0)]
    assert not timeline.is_whole


def test_without_any_time_there_is_nothing_to_draw() -> None:
    (timeline,) = timelines(moves(a_move(requested_at=None)), [])
    assert timeline.segments == ()
    assert bursts([timeline]) == []


def test_moves_of_one_vm_are_told_apart() -> None:
    log = events(*a_log("m1"), *a_log("m2", begin=20))
    first, second = timelines(moves(a_move("m1"), a_move("m2", requested_at=clock(20))), log)
    assert spans(first) == WHOLE
    assert spans(second) == [(phase, begin + 10, end + 10) for phase, begin, end in WHOLE]


def test_a_move_whose_end_is_not_in_the_log_takes_nothing_from_the_next() -> None:
    log = events(*a_log("m1")[:3], *a_log("m2", begin=20))
    (timeline,) = timelines(moves(a_move()), log)
    assert spans(timeline) == [("queued", 10.0, 10.5), ("phases unknown", 10.5, 12.0)]


def test_the_log_of_another_vm_tells_nothing() -> None:
    (timeline,) = timelines(moves(a_move()), events(*a_log("m1", vm="b")))
    assert spans(timeline) == [("phases unknown", 10.0, 12.0)]


def test_without_the_pause_copying_is_not_placed() -> None:
    (timeline,) = timelines(moves(a_move(blackout_s=None)), [e for e in events(*a_log()) if e.id != 22509])
    assert spans(timeline) == [
        ("queued", 10.0, 10.5), ("phases unknown", 10.5, 11.95), ("switching", 11.95, 12.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "state"),
    [
        (an_event(11, "move m1 of a to n2 failed: node n2 was lost; it stays on n1", 21502), "failed"),
        (an_event(11, "move m1 of a failed: target n2 was lost after the hand-off", 21502), "failed"),
        (an_event(11, "n1 takes a back: target n2 was lost after the hand-off", 21502), "failed"),
        (an_event(11, "move m1 of a to n2 cancelled: cancelled on request; it stays on n1"), "cancelled"),
    ],
)
def test_moves_that_failed_end_when_the_log_says_so(row: dict[str, object], state: str) -> None:
    log = events(*a_log()[:3], row)
    record = a_move(state=state, total_s=None, blackout_s=None, brownout_s=None, final=None)
    for move in (*moves(record), *moves_of(log)):
        assert move.state == state
        (timeline,) = timelines([move], log)
        assert spans(timeline) == [("queued", 10.0, 10.5), ("phases unknown", 10.5, 11.0)]


def test_a_move_that_never_got_a_slot_was_queued_to_its_end() -> None:
    log = events(
        a_log()[0], an_event(13, "move m1 of a to n2 failed: node n2 was lost; it stays on n1", 21502)
    )
    (timeline,) = timelines(moves(a_move(state="failed", total_s=None)), log)
    assert spans(timeline) == [("queued", 10.0, 13.0)]


def test_a_move_under_way_reaches_to_the_time_of_the_question() -> None:
    waiting = a_move(state="queued", total_s=None)
    (timeline,) = timelines(moves(waiting), events(a_log()[0]), BASE_US + 15_000_000)
    assert (spans(timeline), timeline.is_open) == ([("queued", 10.0, 15.0)], True)
    preparing = a_move(state="preparing", total_s=None)
    (timeline,) = timelines(moves(preparing), events(*a_log()[:3]), BASE_US + 15_000_000)
    assert spans(timeline) == [("queued", 10.0, 10.5), ("preparing", 10.5, 15.0)]
    (timeline,) = timelines(moves(a_move(state="copying", total_s=None)), events(*a_log()[:3]))
    assert spans(timeline) == [("queued", 10.0, 10.5), ("phases unknown", 10.5, 10.5)]


def test_phases_never_overlap_even_where_durations_do() -> None:
    (timeline,) = timelines(moves(a_move(brownout_s=100.0, blackout_s=50.0)), events(*a_log()))
    assert [each.phase for each in timeline.segments] == list(Phase)[:5]
    for before, after in zip(timeline.segments, timeline.segments[1:], strict=False):
        assert before.begin_us <= before.end_us == after.begin_us <= after.end_us


def test_the_timeline_is_cut_where_nothing_moved_for_long() -> None:
    for lasting_s, asked, cut in (
        (2.0, (10, 13, 21, 40), [["m10", "m13", "m21"], ["m40"]]),
        (20.0, (10, 45), [["m10", "m45"]]),
        (20.0, (10, 51), [["m10"], ["m51"]]),
    ):
        of_times = (a_move(f"m{at}", requested_at=clock(at), total_s=lasting_s) for at in asked)
        found = bursts(timelines(moves(*of_times), []))
        assert [[timeline.move.id for timeline in burst] for burst in found] == cut
