"""What `ferry bench migrate` measures itself against.

Start-up is outside the stopwatch for everybody: processes run, memory holds its contents, connections that
exist before a move are open. Inside is what lies between the request to move and the moment at which an
observer outside knows that source and target are both done; what that means is written on each peer's class.
The target's memory is always untouched when the stopwatch starts, so that its page faults count for
everybody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ferry_cli.bench.memory import FreeMemory
from ferry_cli.bench.stopwatch import Lap
from ferry_types.errors import FerryError


@dataclass(frozen=True, slots=True)
class PeerRun:
    """One measured move."""

    total_s: float
    throughput_bytes_per_s: float
    """Size of the memory over `total_s`, whatever went over the wire."""
    target_huge_bytes: int
    """How much of the target's memory lay on huge pages afterwards; 0 where the machine gives none."""
    stolen_s: float
    """See ``Lap``."""

    @classmethod
    def of(cls, lap: Lap, memory_bytes: int, target_pid: int) -> "PeerRun":
        """The run that has just ended; looks at the target's huge pages."""
        rate = memory_bytes / lap.total_s
        return cls(lap.total_s, rate, _huge_bytes(target_pid), lap.stolen_s)


class PeerUnavailable(FerryError):
    """This machine cannot run a peer; the refusal says why and what to install."""


class Peer(Protocol):
    """Another way of moving the same memory. One call at a time; `close` after any outcome, also twice."""

    @property
    def name(self) -> str:
        """As in `--against` and in the result."""

    @property
    def command(self) -> str:
        """What is run, for people to repeat it; complete once `prepare` has returned."""

    async def prepare(self, contents: Path, memory_bytes: int, behind: tuple[str, ...] = ()) -> None:
        """Get ready to move the file's bytes, `memory_bytes` of them. Raises PeerUnavailable, FerryError.

        ``behind``: the words that start a command behind a shaped link (`link`); none: on this machine's
        loopback as it is.
        """

    async def run_once(self, free_memory: FreeMemory = FreeMemory.WARM) -> PeerRun:
        """Move everything once. Its processes are gone afterwards, also if cancelled. Raises FerryError.

        ``free_memory``: for ``warm_free_memory``, which it calls right before the move.
        """

    async def close(self) -> None:
        """Leave no process and no file behind."""


PeerFactory = Callable[[], Peer]


def run_deadline_s(memory_bytes: int) -> float:
    """When a run that shows no end is given up: half a minute, and as much as 50 MB/s would need."""
    return 30.0 + memory_bytes / 50e6


def _huge_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    return 0
