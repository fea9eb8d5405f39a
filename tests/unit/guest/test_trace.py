"""The trace of running intervals, as it is read after a host has died."""

from pathlib import Path

import pytest

from ferry_agent.guest.trace import RunInterval, RunTrace, read_trace


def test_intervals_end_with_their_halt(tmp_path: Path) -> None:
    trace = RunTrace(tmp_path / "trace")
    trace.run("a", 1, 1.0)
    trace.run("b", 5, 1.5)
    trace.ran("a", 1, 1.75)
    trace.halt("a", 1, 2.0)
    trace.run("a", 2, 3.0)
    trace.halt("b", 5, 3.5)
    trace.halt("a", 2, 4.0)
    trace.close()
    assert read_trace(tmp_path / "trace") == [
        RunInterval("a", 1, 1_000_000_000, 2_000_000_000),
        RunInterval("b", 5, 1_500_000_000, 3_500_000_000),
        RunInterval("a", 2, 3_000_000_000, 4_000_000_000),
    ]


def test_a_killed_host_leaves_what_it_had_written(tmp_path: Path) -> None:
    trace = RunTrace(tmp_path / "trace")
    trace.run("a", 1, 1.0)
    trace.ran("a", 1, 1.25)
    with (tmp_path / "trace").open("a") as file:
        file.write("halt a 1 99")  # cut off: the number may have had more digits
    assert read_trace(tmp_path / "trace") == [RunInterval("a", 1, 1_000_000_000, 1_250_000_000)]
    trace.close()


def test_a_restarted_host_appends(tmp_path: Path) -> None:
    for epoch in (1, 2):
        trace = RunTrace(tmp_path / "trace")
        trace.run("a", epoch, epoch)
        trace.halt("a", epoch, epoch + 0.5)
        trace.close()
    assert [interval.epoch for interval in read_trace(tmp_path / "trace")] == [1, 2]


def test_what_a_killed_host_ran_is_kept_when_it_runs_the_vm_again(tmp_path: Path) -> None:
    trace = RunTrace(tmp_path / "trace")
    trace.run("a", 1, 1.0)
    trace.ran("a", 1, 1.5)
    trace.run("a", 2, 9.0)
    trace.close()
    assert read_trace(tmp_path / "trace") == [
        RunInterval("a", 1, 1_000_000_000, 1_500_000_000),
        RunInterval("a", 2, 9_000_000_000, 9_000_000_000),
    ]


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        RunTrace(tmp_path / "absent" / "trace")
