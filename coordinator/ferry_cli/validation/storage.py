"""Tests of the category storage: the processes' own data directories; there are no shared volumes yet."""

from ferry_cli.validation.facts import Facts
from ferry_cli.validation.verdicts import Verdict, counted, judge
from ferry_types.limits import BLACKOUT_ALLOWED_S_DEFAULT
from ferry_types.units import format_duration, format_size

FREE_BYTES_MIN = 2**30
"""As large as the disk that Windows wants for a witness: stores, votes and logs need less."""


def data_directories(facts: Facts) -> Verdict:
    """Fails if a process cannot write into its data directory. Warns if little room is left."""
    directories = [(name, report.directory) for name, report in facts.reports]
    return judge(
        f"{counted(len(directories), 'directory', 'directories')} can be written, "
        f"with {format_size(min((each.free_bytes for _, each in directories), default=0))} or more free",
        failures=[
            f"{name} cannot write into {directory.path}: {directory.problem}"
            for name, directory in directories
            if directory.problem
        ],
        warnings=[
            f"{name} has {format_size(directory.free_bytes)} left in {directory.path}"
            for name, directory in directories
            if not directory.problem and directory.free_bytes < FREE_BYTES_MIN
        ],
        advice="make room on that disk, or repair it: what is not kept is neither promised nor committed",
    )


def write_latency(facts: Facts) -> Verdict:
    """Warns if a durable write takes longer than a black-out may: a commit is one, and lies inside it."""
    written = [(name, report.directory) for name, report in facts.reports if not report.directory.problem]
    slowest_s = max((directory.write_s for _, directory in written), default=0.0)
    return judge(
        f"a page is written durably within {format_duration(slowest_s)}",
        warnings=[
            f"{name} took {format_duration(directory.write_s)} to write a page durably"
            for name, directory in written
            if directory.write_s > BLACKOUT_ALLOWED_S_DEFAULT
        ],
        advice=f"use a faster or less busy disk: black-outs of {format_duration(BLACKOUT_ALLOWED_S_DEFAULT)} "
        "hold a commit of the coordinator's",
    )
