"""What a guest does in each step: a pure function of its seed, the step's number and its workload.

Nothing is drawn from a running generator: the accesses of any step can be computed again at any time, which
is how an audit replays the journal, and how a guest goes on alike on another host.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.books import STAMP_WORDS, WORDS_PER_PAGE, checksums
from ferry_agent.guest.mixing import GOLDEN, mix, mix_in_place
from ferry_types.limits import PAGE_SIZE
from ferry_types.workloads import HOT_SHARE_OF_ACCESSES, AccessPattern, WorkloadSpec, hot_pages

STEP_PERIOD_S = 0.004
"""Time between steps of a busy guest: long enough that their fixed cost stays small."""

PAGES_PER_STEP_MAX = 256
"""Pages that a step writes at most, 1 MiB: well under 2 ms of work. A faster guest makes more steps."""

PAGES_PER_STEP_MIN = 4
"""Slow guests gather this many pages, or one second's, into one step."""

READS_PER_STEP_MAX = 1024

IDLE_PERIOD_S = 1.0
"""Time between steps of a guest that neither reads nor writes."""

POOL_PAGES = 256
"""Different page contents. A power of two."""

_MILLION = 10**6

_LANES_PER_STEP = 2**12
"""Numbers of the random stream set aside for each step."""

_POOL_SEED = 0x506F6F6C
_CONSTANT_WORD = 0x2020202020202020


@dataclass(frozen=True, slots=True)
class Pace:
    """How a workload's rates are cut into steps, ``period_s`` apart.

    Every step whose number is a multiple of ``write_every`` draws ``writes_per_turn`` pages to write. Reads
    may be fewer than one a step: each step makes those that the rate has earned by its end.
    """

    period_s: float
    writes_per_turn: int
    write_every: int
    reads_per_million_steps: int

    @classmethod
    def of(cls, spec: WorkloadSpec) -> "Pace":
        """Fit steps to the rates of a workload."""
        writes_per_s = spec.write_rate_bytes_per_s / PAGE_SIZE
        reads_per_s = spec.read_rate_bytes_per_s / PAGE_SIZE
        fastest_per_s = max(writes_per_s, reads_per_s)
        if fastest_per_s == 0:
            return cls(IDLE_PERIOD_S, 0, 1, 0)
        period_s = _pages_per_step(fastest_per_s, READS_PER_STEP_MAX) / fastest_per_s
        writes, write_every = 0, 1
        if writes_per_s > 0:
            working_set_pages = spec.working_set_bytes // PAGE_SIZE
            writes = _pages_per_step(writes_per_s, min(PAGES_PER_STEP_MAX, working_set_pages))
            turn_s = writes / writes_per_s
            write_every = max(1, math.floor(turn_s / period_s))
            period_s = turn_s / write_every
        reads_per_step = min(reads_per_s * period_s, READS_PER_STEP_MAX)
        return cls(period_s, writes, write_every, round(reads_per_step * _MILLION))

    def divided(self, by: int) -> "Pace":
        """A ``by``-th of the accesses in steps that come about as often: exact, but for the reads' rounding.

        Where the writes of a turn do not divide, the period makes up for it, by a third less to a half more.
        """
        stretch, writes, write_every = 1.0, 0, 1
        if self.writes_per_turn:
            writes = max(1, round(self.writes_per_turn / by))
            exact_every = self.write_every * writes * by / self.writes_per_turn
            write_every = max(1, round(exact_every))
            stretch = exact_every / write_every
        reads = round(self.reads_per_million_steps * stretch / by)
        return Pace(self.period_s * stretch, writes, write_every, reads)

    def writes_in(self, step: int) -> int:
        """Draws of pages to write in a step."""
        return 0 if step % self.write_every else self.writes_per_turn

    def reads_in(self, step: int) -> int:
        """Reads of a step."""
        earned = step * self.reads_per_million_steps // _MILLION
        return earned - (step - 1) * self.reads_per_million_steps // _MILLION

    @property
    def writes_per_step(self) -> float:
        """Draws of pages to write, on average."""
        return self.writes_per_turn / self.write_every

    @property
    def reads_per_step_max(self) -> int:
        """Most reads of any step."""
        return math.ceil(self.reads_per_million_steps / _MILLION)


def _pages_per_step(pages_per_s: float, pages_max: int) -> int:
    at_least = min(PAGES_PER_STEP_MIN, max(1, math.floor(pages_per_s)))
    return min(max(math.ceil(pages_per_s * STEP_PERIOD_S), at_least), pages_max)


class AccessStream:
    """Which pages each step accesses. Two streams of one guest differ by their seed."""

    def __init__(
        self, spec: WorkloadSpec, seed: int, first_page: int, n_pages: int, *, lanes: int, every: int
    ) -> None:
        """In every ``every``-th step, draw up to ``lanes`` of ``n_pages`` pages from ``first_page`` on."""
        self._access = spec.access
        self._seed = np.uint64(seed)
        self._first_page = first_page
        self._n_pages = n_pages
        self._hot_pages = hot_pages(n_pages)
        self._every = np.uint64(every)
        self._lanes = np.arange(lanes, dtype=np.uint64)
        self._lane_weights = mix_in_place(self._lanes * np.uint64(GOLDEN) + np.uint64(1)) | np.uint64(1)

    def draw(self, steps: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
        """Pages drawn in each of ``steps``, (len(steps), count); a page may come more than once."""
        lanes = self._lanes[:count]
        if self._access is AccessPattern.SEQUENTIAL:
            turns = steps // self._every
            offsets = turns[:, np.newaxis] * np.uint64(len(self._lanes)) + lanes
            offsets %= np.uint64(self._n_pages)
        else:
            offsets = self._draw_offsets(steps, lanes)
        pages = offsets.view(np.int64)
        pages += self._first_page
        return pages

    def digests(self, draws: NDArray[np.int64]) -> NDArray[np.uint64]:
        """One number for the draws of each step, (n_steps, count) -> (n_steps,); order and repeats count."""
        weighted = draws.astype(np.uint64) * self._lane_weights[: draws.shape[1]]
        sums: NDArray[np.uint64] = weighted.sum(axis=1)
        return sums

    def _draw_offsets(self, steps: NDArray[np.uint64], lanes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        numbers = steps[:, np.newaxis] * np.uint64(_LANES_PER_STEP) + lanes
        numbers *= np.uint64(GOLDEN)
        numbers += self._seed
        mix_in_place(numbers)
        # The upper half of a number chooses the page, the lower one between hot and cold.
        high = numbers >> np.uint64(32)
        if self._access is AccessPattern.UNIFORM or self._hot_pages == self._n_pages:
            high *= np.uint64(self._n_pages)
            high >>= np.uint64(32)
            return high
        low = numbers & np.uint64(0xFFFFFFFF)
        cold = low >= np.uint64(math.floor(HOT_SHARE_OF_ACCESSES * 2**32))
        sizes = np.where(cold, np.uint64(self._n_pages - self._hot_pages), np.uint64(self._hot_pages))
        high *= sizes
        high >>= np.uint64(32)
        high += np.where(cold, np.uint64(self._hot_pages), np.uint64(0))
        return high


@dataclass(frozen=True, slots=True)
class Pool:
    """The contents that guests write: (256, 512) words, 0 where stamps go, and their checksums."""

    rows: NDArray[np.uint64]
    sums: NDArray[np.uint64]


@functools.lru_cache(maxsize=8)
def content_pool(compressibility: float) -> Pool:
    """Contents of a compressibility. All guests of a process share them (1 MiB each)."""
    numbers = np.arange(1, POOL_PAGES * WORDS_PER_PAGE + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    numbers += np.uint64(_POOL_SEED)
    rows = mix_in_place(numbers).reshape(POOL_PAGES, WORDS_PER_PAGE)
    random_words = round((1 - compressibility) * WORDS_PER_PAGE)
    rows[:, random_words:] = _CONSTANT_WORD
    rows[:, STAMP_WORDS] = 0
    rows.flags.writeable = False
    return Pool(rows, checksums(rows))


def content_choice(pages: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """Which content of the pool each page gets in a step."""
    numbers = pages.astype(np.uint64)
    numbers += np.uint64(mix(step))
    numbers *= np.uint64(GOLDEN)
    numbers >>= np.uint64(64 - POOL_PAGES.bit_length() + 1)
    return numbers.view(np.int64)
