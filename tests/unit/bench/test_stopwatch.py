"""What the hypervisor took is read from the kernel's count, and is 0 where there is none."""

from pathlib import Path

import pytest

from ferry_cli.bench import stopwatch
from ferry_cli.bench.stopwatch import Stopwatch


def test_stolen_time_is_that_of_all_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    monkeypatch.setattr(stopwatch, "_STAT", stat)
    monkeypatch.setattr(stopwatch, "_TICKS_PER_S", 100)
    stat.write_text("cpu 1 2 3 4 5 6 7 50 9 10\ncpu0 0 0 0 0 0 0 0 50 0 0\n")
    watch = Stopwatch()
    stat.write_text("cpu 2 3 4 5 6 7 8 72 9 10\ncpu0 0 0 0 0 0 0 0 72 0 0\n")

    assert watch.stop().stolen_s == pytest.approx(0.22)


@pytest.mark.parametrize("text", [None, "", "cpu 1 2 3\n"])
def test_where_nobody_counts_nothing_is_stolen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "stat").write_text(text)
    monkeypatch.setattr(stopwatch, "_STAT", tmp_path / "stat")

    lap = Stopwatch().stop()

    assert lap.stolen_s == 0
    assert lap.total_s > 0
