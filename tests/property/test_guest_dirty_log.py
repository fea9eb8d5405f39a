"""No written page is ever missed by those who take the dirty log, in whatever order things happen."""

import threading
import time

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from numpy.typing import NDArray

from ferry_agent.guest.dirty_log import DirtyLog

N_PAGES = 16
pages = st.lists(st.integers(0, N_PAGES - 1), max_size=N_PAGES)


def index(numbers: list[int]) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


class DirtyLogAgainstASet(RuleBasedStateMachine):
    """One thread; marks may fall between finding and clearing."""

    def __init__(self) -> None:
        super().__init__()
        self.log = DirtyLog(N_PAGES)
        self.dirty: set[int] = set()

    @rule(numbers=pages)
    def mark(self, numbers: list[int]) -> None:
        self.log.mark(index(numbers))
        self.dirty |= set(numbers)

    @rule(start=st.integers(0, N_PAGES), stop=st.integers(0, N_PAGES))
    def mark_run(self, start: int, stop: int) -> None:
        self.log.mark(slice(start, stop))
        self.dirty |= set(range(start, stop))

    @rule(number=st.integers(0, N_PAGES - 1))
    def mark_one(self, number: int) -> None:
        self.log.mark(number)
        self.dirty.add(number)

    @rule()
    def take(self) -> None:
        assert self.log.take().tolist() == sorted(self.dirty)
        self.dirty.clear()

    @rule(numbers=pages)
    def take_while_the_guest_marks(self, numbers: list[int]) -> None:
        found = self.log._find()
        self.log.mark(index(numbers))
        self.log._clear(found)
        assert found.tolist() == sorted(self.dirty)
        self.dirty = set(numbers) - self.dirty  # what was found is copied after this, and so holds the writes

    @rule()
    def take_and_give_back(self) -> None:
        self.log.give_back(self.log.take())

    @invariant()
    def counts(self) -> None:
        assert self.log.count() == len(self.dirty)


TestDirtyLogAgainstASet = DirtyLogAgainstASet.TestCase


class ClearedAfterTheCopy(DirtyLog):
    """The wrong order, planted: marks are found now and cleared when the next are taken, after the copy."""

    __slots__ = ("_found",)

    def __init__(self, n_pages: int) -> None:
        super().__init__(n_pages)
        self._found = np.empty(0, dtype=np.int64)

    def take(self) -> NDArray[np.int64]:
        self._clear(self._found)
        self._found = self._find()
        return self._found


def lost_updates(log: DirtyLog, n_pages: int, run_s: float) -> int:
    """Let a guest write counters while a migrator copies; pages that differ when the guest rests at last."""
    memory = np.zeros(n_pages, dtype=np.int64)
    copy = np.zeros(n_pages, dtype=np.int64)
    stop = threading.Event()

    def guest() -> None:
        numbers = np.random.default_rng(1).permutation(n_pages)
        batches = [numbers[start : start + 64] for start in range(0, n_pages, 64)]
        step = 0
        while not stop.is_set():
            batch = batches[step % len(batches)]
            step += 1
            memory[batch] = step
            log.mark(batch)

    thread = threading.Thread(target=guest)
    thread.start()
    ends_at = time.monotonic() + run_s
    while time.monotonic() < ends_at:
        taken = log.take()
        copy[taken] = memory[taken]
    stop.set()
    thread.join()
    # The switchover: the guest is paused. A log that clears late gets the chance to do so.
    for _ in range(2):
        taken = log.take()
        copy[taken] = memory[taken]
    return int(np.count_nonzero(copy != memory))


def test_nothing_is_lost_under_a_guest_that_never_rests() -> None:
    assert lost_updates(DirtyLog(4096), 4096, run_s=1.0) == 0


def test_the_wrong_order_is_caught() -> None:
    # What is lost in the middle of a run is written again: it shows at the end alone, so many runs are made.
    deadline_at = time.monotonic() + 20
    while lost_updates(ClearedAfterTheCopy(4096), 4096, run_s=0.02) == 0:
        assert time.monotonic() < deadline_at, "copying before clearing went unnoticed"
