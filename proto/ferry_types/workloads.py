"""What a guest does to its memory, and what memory holds when it boots."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from ferry_types.limits import PAGE_SIZE
from ferry_types.units import format_rate, format_size

HEADER_PAGES = 1
JOURNAL_PAGES = 8
"""The guest keeps its books at the start of its memory: one header, then the journal, then the ledger."""

LEDGER_ENTRY_BYTES = 8
"""One checksum for each page of the memory, the books' own included (those stay 0)."""

RATE_BYTES_PER_S_MAX = 64 * 2**30
"""More than any memory bus of the machines that are emulated carries."""


HOT_SHARE_OF_SET = 0.1
HOT_SHARE_OF_ACCESSES = 0.9
"""Where and how often a guest of access pattern ``hotset`` accesses its working set."""


class AccessPattern(StrEnum):
    """How a guest chooses the pages of its working set."""

    UNIFORM = "uniform"
    SEQUENTIAL = "sequential"
    HOTSET = "hotset"
    """Nine of ten accesses go to a tenth of the working set."""


class Fill(StrEnum):
    """What memory holds when a VM boots."""

    ZERO = "zero"
    """Zeros that the guest has written: every page is touched."""
    RANDOM = "random"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class FillSpec:
    """First contents of a VM's memory; ``path``: a file or directory on the host, for kind ``file`` only."""

    kind: Fill
    path: str | None = None

    def validate(self) -> None:
        """Raise ValueError if kind and path do not fit together."""
        if self.kind is Fill.FILE and not self.path:
            raise ValueError("filling memory from a file needs the path of the file")
        if self.kind is not Fill.FILE and self.path is not None:
            raise ValueError(f"filling memory with {self.kind} takes no path, but {self.path!r} was given")


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    """A workload, fully resolved: every host derives the very same accesses from it.

    Rates count the guest's own pages, not its books. ``compressibility`` is the share of each written
    page that is constant: 0 (random) to 1 (constant).
    """

    profile: str
    write_rate_bytes_per_s: int
    read_rate_bytes_per_s: int
    working_set_bytes: int
    access: AccessPattern
    compressibility: float

    def validate(self, memory_bytes: int) -> None:
        """Raise ValueError if a field is out of range for a memory of this size."""
        if self.profile not in PROFILES:
            raise ValueError(f"{self.profile!r} is not a workload: use one of {', '.join(PROFILES)}")
        for what, rate in (("write", self.write_rate_bytes_per_s), ("read", self.read_rate_bytes_per_s)):
            if not 0 <= rate <= RATE_BYTES_PER_S_MAX:
                raise ValueError(
                    f"{what} rate of {rate} bytes per second is out of range: "
                    f"from 0 to {format_rate(RATE_BYTES_PER_S_MAX)}"
                )
        working_set_bytes_max = usable_bytes(memory_bytes)
        if not PAGE_SIZE <= self.working_set_bytes <= working_set_bytes_max:
            raise ValueError(
                f"working set of {self.working_set_bytes} bytes is out of range: from {PAGE_SIZE} "
                f"to {working_set_bytes_max} in a memory of {format_size(memory_bytes)}"
            )
        if self.working_set_bytes % PAGE_SIZE:
            raise ValueError(
                f"working set of {self.working_set_bytes} bytes is not a multiple of {PAGE_SIZE}"
            )
        if not 0 <= self.compressibility <= 1:  # also refuses NaN
            raise ValueError(f"compressibility of {self.compressibility} is out of range: from 0 to 1")


_KIB, _MIB, _GIB = 2**10, 2**20, 2**30

PROFILES: dict[str, WorkloadSpec] = {
    spec.profile: spec
    for spec in (
        WorkloadSpec("idle", 16 * _KIB, 16 * _KIB, 1 * _MIB, AccessPattern.UNIFORM, 0.5),
        WorkloadSpec("web", 4 * _MIB, 32 * _MIB, 64 * _MIB, AccessPattern.HOTSET, 0.6),
        WorkloadSpec("file", 16 * _MIB, 32 * _MIB, 128 * _MIB, AccessPattern.SEQUENTIAL, 0.3),
        WorkloadSpec("sql", 32 * _MIB, 64 * _MIB, 192 * _MIB, AccessPattern.HOTSET, 0.4),
        WorkloadSpec("thrash", 400 * _MIB, 100 * _MIB, 1024 * _GIB, AccessPattern.UNIFORM, 0.0),
    )
}
"""Named workloads. The working set is an upper bound: a smaller memory has a smaller one."""


def hot_pages(working_set_pages: int) -> int:
    """Pages at the start of a working set that are hot."""
    return max(1, math.floor(working_set_pages * HOT_SHARE_OF_SET))


def books_pages(memory_bytes: int) -> int:
    """Pages at the start of memory that the guest's books take."""
    n_pages = memory_bytes // PAGE_SIZE
    return HEADER_PAGES + JOURNAL_PAGES + math.ceil(n_pages * LEDGER_ENTRY_BYTES / PAGE_SIZE)


def usable_bytes(memory_bytes: int) -> int:
    """Bytes of memory that the guest's books leave to its workload."""
    return (memory_bytes // PAGE_SIZE - books_pages(memory_bytes)) * PAGE_SIZE


def resolve(
    profile: str,
    memory_bytes: int,
    *,
    write_rate_bytes_per_s: int | None = None,
    read_rate_bytes_per_s: int | None = None,
    working_set_bytes: int | None = None,
    access: AccessPattern | None = None,
    compressibility: float | None = None,
) -> WorkloadSpec:
    """Make a named profile fit a memory, with what the user wants different.

    The working set is rounded down to whole pages and to what the books leave of the memory.
    Raises ValueError for an unknown profile, a value out of range or a working set larger than the memory.
    """
    base = PROFILES.get(profile)
    if base is None:
        raise ValueError(f"{profile!r} is not a workload: use one of {', '.join(PROFILES)}")
    if working_set_bytes is None:
        working_set_bytes = base.working_set_bytes
    elif working_set_bytes > memory_bytes:
        raise ValueError(
            f"working set of {format_size(working_set_bytes)} does not fit "
            f"into a memory of {format_size(memory_bytes)}"
        )
    working_set_bytes = min(working_set_bytes, usable_bytes(memory_bytes))
    spec = replace(
        base,
        write_rate_bytes_per_s=(
            base.write_rate_bytes_per_s if write_rate_bytes_per_s is None else write_rate_bytes_per_s
        ),
        read_rate_bytes_per_s=(
            base.read_rate_bytes_per_s if read_rate_bytes_per_s is None else read_rate_bytes_per_s
        ),
        working_set_bytes=working_set_bytes - working_set_bytes % PAGE_SIZE,
        access=base.access if access is None else access,
        compressibility=base.compressibility if compressibility is None else compressibility,
    )
    spec.validate(memory_bytes)
    return spec
