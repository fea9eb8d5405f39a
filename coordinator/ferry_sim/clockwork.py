"""Virtual time, and chance from one seed.

Nothing here or in the worlds built on it depends on the order of a set or on a hash: a seed replays exactly,
and ``trace`` proves it.
"""

import heapq
import itertools
import random
import zlib
from collections.abc import Callable
from typing import Final

from ferry_types.profiles import DRIFT_RATE

DELAY_S: Final = (0.0005, 0.02)
LONG_DELAY_LEASES: Final = (0.15, 2.0)
"""From well inside a lease to far beyond it."""


class Clockwork:
    """A queue of actions in time. ``long_delays``: the probability that something takes long."""

    def __init__(self, seed: int) -> None:
        self.now = 100.0
        self.rng = random.Random(seed)  # noqa: S311 - chance that can be repeated is the point
        self.long_delays = 0.0
        self.lease_s = 0.0
        """Of the world that runs on this; long delays are measured in it."""
        self.trace = 0
        """CRC-32 of all that was noted, in order."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._counter = itertools.count(1)

    def number(self) -> int:
        """A number that nobody had before."""
        return next(self._counter)

    def later(
        self,
        after_s: float,
        action: Callable[[], None],
        what: object = None,  # noqa: ARG002 - like ``lane``, for those who choose the order themselves
        lane: object = None,  # noqa: ARG002
    ) -> None:
        """Do something after so many seconds.

        ``what`` describes it; None is for what only a clock sets off. A ``lane`` keeps its order.
        """
        heapq.heappush(self._queue, (self.now + after_s, next(self._counter), action))

    def run(self, seconds: float) -> None:
        """Let time go by. Raises whatever an action raises, AssertionError for what must not be."""
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
        self.now = end

    def note(self, *what: object) -> None:
        """Make something part of the trace."""
        self.trace = zlib.crc32(f"{self.now:.9f} {what}".encode(), self.trace)

    def happens(self, probability: float) -> bool:
        """Whether something of this probability happens now."""
        return probability > 0 and self.rng.random() < probability

    def delay(self) -> float:
        """Seconds that a message, or an answer of a process's own parts, takes."""
        if self.happens(self.long_delays):
            return self.rng.uniform(*LONG_DELAY_LEASES) * self.lease_s
        return self.rng.uniform(*DELAY_S)

    def clock_rate(self) -> float:
        """How fast a process's clock goes; any two differ by no more than the bound."""
        return 1 + self.rng.uniform(-DRIFT_RATE / 2, DRIFT_RATE / 2)
