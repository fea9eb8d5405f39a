"""What is left of the processors that this process may use, as Linux counts it."""

import os
import time
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT = 4, 5  # columns of a processor's line in /proc/stat, see proc_stat(5)


class ProcessorMeter:
    """Idle time between two readings. ``root`` stands for ``/`` (another one in tests).

    A container sees the whole machine in ``/proc/stat``. Its processors are those of the affinity mask; its
    quota and its use of that are what version 2 of control groups shows at the root of its own hierarchy.
    """

    def __init__(self, root: Path = Path("/"), processors: frozenset[int] | None = None) -> None:
        chosen = frozenset(os.sched_getaffinity(0)) if processors is None else processors
        self._stat = root / "proc/stat"
        self._limit = root / "sys/fs/cgroup/cpu.max"
        self._usage = root / "sys/fs/cgroup/cpu.stat"
        self._names = {f"cpu{number}".encode() for number in chosen}
        self.processors = len(chosen)
        """How many this process may use."""
        self._idle_ticks = self._read_idle_ticks()
        self._quota = self._read_quota()
        self._used_s = self._read_used_s() if self._quota is not None else 0.0
        self._read_at_s = time.monotonic()

    def idle_s(self) -> float:
        """Processor time that nobody used since the last reading, and that the quota would have granted.

        0 where the system does not say (an unreadable ``/proc/stat``): then nothing is known to be spare.
        """
        now_s, ticks = time.monotonic(), self._read_idle_ticks()
        idle_s = (ticks - self._idle_ticks) / _TICKS_PER_S
        if self._quota is not None:
            used_s = self._read_used_s()
            idle_s = min(idle_s, self._quota * (now_s - self._read_at_s) - (used_s - self._used_s))
            self._used_s = used_s
        self._idle_ticks, self._read_at_s = ticks, now_s
        return max(0.0, idle_s)

    def _read_idle_ticks(self) -> int:
        try:
            lines = self._stat.read_bytes().splitlines()
        except OSError:
            return 0
        rows = [line.split() for line in lines if line.startswith(b"cpu")]
        return sum(int(row[_IDLE]) + int(row[_IOWAIT]) for row in rows if row[0] in self._names)

    def _read_quota(self) -> float | None:
        """In processors; None without one."""
        try:
            quota, period = self._limit.read_text().split()
        except (OSError, ValueError):
            return None
        return None if quota == "max" else int(quota) / int(period)

    def _read_used_s(self) -> float:
        try:
            fields = dict(line.split() for line in self._usage.read_text().splitlines())
            return int(fields["usage_usec"]) / 1e6
        except (OSError, ValueError, KeyError):
            return 0.0
