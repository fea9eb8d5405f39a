"""Whether a VM ran on two hosts at one time, by the hosts' own records of the shared monotonic clock.

The records are those of ``ferry agent run --trace``: lines of ``run|ran|halt VM EPOCH NS``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

STILL_NS: Final = 1_000_000_000
"""A guest that stands still for so long was paused: black-outs are a small part of it."""


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """A VM ran on a host from one time to another, both in nanoseconds; the second is a lower bound."""

    vm: str
    begin_ns: int
    end_ns: int
    node: str


def overlaps(runs: Sequence[Run]) -> list[str]:
    """Each pair of runs of one VM that overlap, in words."""
    return [
        f"{before.vm} ran on {before.node} and {after.node} at once, "
        f"for {(before.end_ns - after.begin_ns) / 1e6:.3f} ms"
        for before, after in pairwise(runs)
        if before.vm == after.vm and after.begin_ns < before.end_ns
    ]


def interrupted(runs: Sequence[Run], since_ns: int, until_ns: int) -> frozenset[str]:
    """VMs that stood still for longer than any move takes, within a stretch of time."""
    last: dict[str, int] = {}
    found = set()
    for run in runs:
        if run.begin_ns < until_ns and run.begin_ns - max(since_ns, last.get(run.vm, since_ns)) > STILL_NS:
            found.add(run.vm)
        last[run.vm] = max(run.end_ns, last.get(run.vm, since_ns))
    return frozenset(found | {vm for vm, end_ns in last.items() if until_ns - end_ns > STILL_NS})


def read_runs(directory: Path) -> list[Run]:
    """All runs that the hosts have written down, by VM and time. ``directory``: of ``NODE.trace`` files."""
    return sorted(run for path in directory.glob("*.trace") for run in _runs(path))


def _runs(path: Path) -> Iterator[Run]:
    open_runs: dict[str, Run] = {}
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # cut off by the host's death
        word, vm, _, at = line.split()
        at_ns = int(at)
        if word == "run":
            if vm in open_runs:  # of a life of the host that was cut short
                yield open_runs[vm]
            open_runs[vm] = Run(vm, at_ns, at_ns, path.stem)
        else:
            begun = open_runs.pop(vm)
            ended = Run(vm, begun.begin_ns, at_ns, path.stem)
            if word == "ran":
                open_runs[vm] = ended
            else:
                yield ended
    yield from open_runs.values()
