"""What is left of the processors, read from files as Linux and a container show them."""

import time
from pathlib import Path

import pytest

from ferry_agent.migration.processors import ProcessorMeter

TICK_S = 0.01


class System:
    """A root directory whose counters a test turns."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc").mkdir()
        (root / "sys/fs/cgroup").mkdir(parents=True)
        self.counts(0, 0)

    def counts(self, idle0: int, idle1: int) -> None:
        """Ticks that processors 0 and 1 were idle, a tenth of them waiting for a disk."""
        rows = [
            f"cpu{n} 10 10 10 {ticks - ticks // 10} {ticks // 10} 0 0 5 0 0"
            for n, ticks in ((0, idle0), (1, idle1))
        ]
        (self.root / "proc/stat").write_text("\n".join(["cpu 0 0 0 999999 0 0 0 0 0 0", *rows, "intr 1 2 3"]))

    def used(self, used_s: float, quota: str = "50000 100000") -> None:
        (self.root / "sys/fs/cgroup/cpu.max").write_text(quota + "\n")
        (self.root / "sys/fs/cgroup/cpu.stat").write_text(f"usage_usec {int(used_s * 1e6)}\nuser_usec 1\n")


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_idle_is_counted_from_one_reading_to_the_next(system: System) -> None:
    system.counts(1000, 1000)
    meter = ProcessorMeter(system.root, frozenset({0, 1}))
    assert meter.processors == 2
    system.counts(1010, 1030)
    assert meter.idle_s() == pytest.approx(40 * TICK_S)
    assert meter.idle_s() == 0


def test_processors_that_this_process_may_not_use_do_not_count(system: System) -> None:
    meter = ProcessorMeter(system.root, frozenset({1}))
    system.counts(50, 7)
    assert meter.idle_s() == pytest.approx(7 * TICK_S)


def test_a_container_has_what_its_quota_leaves(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    system.used(5.0)
    meter = ProcessorMeter(system.root, frozenset({0, 1}))
    now_s += 1.0
    system.counts(200, 200)
    system.used(5.4)
    assert meter.idle_s() == pytest.approx(0.5 - 0.4)


@pytest.mark.parametrize("quota", ["max 100000", "rubbish", ""])
def test_no_quota_is_no_limit(system: System, quota: str) -> None:
    system.used(0.0, quota)
    meter = ProcessorMeter(system.root, frozenset({0, 1}))
    system.counts(20, 20)
    assert meter.idle_s() == pytest.approx(40 * TICK_S)


def test_a_system_that_tells_nothing_has_nothing_to_spare(tmp_path: Path) -> None:
    assert ProcessorMeter(tmp_path, frozenset({0})).idle_s() == 0


def test_this_machine_can_be_read() -> None:
    meter = ProcessorMeter()
    assert 0 <= meter.idle_s() <= meter.processors
