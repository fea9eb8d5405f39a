"""The one stopwatch that holds for all who are measured, on the clock of the bench's own process."""

import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_STAT = Path("/proc/stat")
_STEAL = 8
"""Column of the first line of /proc/stat, whose name is column 0; see proc_stat(5)."""


@dataclass(frozen=True, slots=True)
class Lap:
    """How long something took. ``stolen_s``: processor time in which the hypervisor ran somebody else, of all
    processors together, in steps of 10 ms; 0 where Linux does not say.
    """

    total_s: float
    stolen_s: float


class Stopwatch:
    """Runs from its making."""

    def __init__(self) -> None:
        self._stolen_before_s = _stolen_s()
        self._started_at_s = perf_counter()

    def stop(self) -> Lap:
        """What the time until now has been."""
        total_s = perf_counter() - self._started_at_s
        return Lap(total_s, _stolen_s() - self._stolen_before_s)


def _stolen_s() -> float:
    try:
        with _STAT.open() as file:
            return int(file.readline().split()[_STEAL]) / _TICKS_PER_S
    except (OSError, IndexError, ValueError):
        return 0.0
