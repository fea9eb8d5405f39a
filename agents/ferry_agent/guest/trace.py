"""A record of when a host's guests ran, for those who look for one VM running on two hosts at once.

One line per event: ``run VM EPOCH NS`` when a vCPU begins, ``ran VM EPOCH NS`` now and then while it runs,
``halt VM EPOCH NS`` when it has stopped; NS is the monotonic clock in nanoseconds, the same for all processes
of one machine. Every line is one write to a file opened for appending, so what was written survives the death
of the process. A host that was killed leaves a run without its halt: then the last ``ran`` tells how long it
ran at least.
"""

import os
from dataclasses import dataclass
from pathlib import Path

EVIDENCE_S = 0.1
"""How often a running vCPU leaves a line."""


class RunTrace:
    """The trace of one host. Threads may write at the same time."""

    def __init__(self, path: Path) -> None:
        """Append to the file. Raises OSError if that is not possible."""
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def run(self, vm: str, epoch: int, at_s: float) -> None:
        """The vCPU begins to run. To be called before it does."""
        self._line("run", vm, epoch, at_s)

    def ran(self, vm: str, epoch: int, at_s: float) -> None:
        """The vCPU still ran at this time."""
        self._line("ran", vm, epoch, at_s)

    def halt(self, vm: str, epoch: int, at_s: float) -> None:
        """The vCPU has stopped; this is when it last ran."""
        self._line("halt", vm, epoch, at_s)

    def close(self) -> None:
        """Close the file. All vCPUs must have stopped."""
        os.close(self._fd)

    def _line(self, word: str, vm: str, epoch: int, at_s: float) -> None:
        os.write(self._fd, f"{word} {vm} {epoch} {round(at_s * 1e9)}\n".encode())


@dataclass(frozen=True, slots=True)
class RunInterval:
    """A stretch of monotonic time in which a VM ran; ``end_ns`` is a lower bound if it was killed."""

    vm: str
    epoch: int
    begin_ns: int
    end_ns: int


def read_trace(path: Path) -> list[RunInterval]:
    """The intervals of a trace in order of their ends; those that were still open come last.

    A last line that was cut off is left out.
    """
    ended: list[RunInterval] = []
    running: dict[str, RunInterval] = {}
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        word, vm, epoch, at_ns = line.split()
        if word == "run":
            if vm in running:  # of a life of the host that was cut short
                ended.append(running[vm])
            running[vm] = RunInterval(vm, int(epoch), int(at_ns), int(at_ns))
        else:
            begun = running.pop(vm)
            interval = RunInterval(vm, begun.epoch, begun.begin_ns, int(at_ns))
            if word == "ran":
                running[vm] = interval
            else:
                ended.append(interval)
    return ended + list(running.values())
