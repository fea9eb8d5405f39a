"""A result of a whole bench, made up."""

from dataclasses import replace
from typing import Any

from ferry_cli.bench.cells import Group, all_groups
from ferry_cli.bench.document import OwnRun, PeerRuns
from ferry_cli.bench.floor import Floor
from ferry_cli.bench.machine import Machine
from ferry_cli.bench.peers import PeerRun
from ferry_cli.bench.results import GroupResult, SuiteResult, group_result
from ferry_cli.bench.rounds import Measured

MIB = 2**20
FLOOR = Floor(agent_round_trip_s=0.0002, coordinator_round_trip_s=0.0003, commit_s=0.0005)
MACHINE = Machine("A Processor", 2, 8 * 2**30, "6.1", "madvise", True, "3.11.2", "1.70.0", None)


def own_run(total_s: float, **changes: Any) -> OwnRun:
    """Of 1 GiB, all of it sent."""
    size_bytes = 2**30
    run = OwnRun(total_s, 0.002, size_bytes / total_s, total_s - 0.01, size_bytes, 0, 0.9, 1.1, 0.0)
    return replace(run, **changes)


def peer_runs(name: str, *times_s: float) -> PeerRuns:
    return PeerRuns(name, f"run {name}", tuple(PeerRun(each, 2**30 / each, 0, 0.0) for each in times_s))


def the_group(wire: str, contents: str, guest: str, **changes: Any) -> Group:
    """That one of the matrix."""
    (found,) = (
        group
        for group in all_groups()
        if (group.wire.name, group.contents, group.guest.name) == (wire, contents, guest)
        and not group.is_distribution
    )
    return replace(found, **changes)


def a_group(
    group: Group, own: dict[str, list[OwnRun]], peers: tuple[PeerRuns, ...] = (), floor: Floor = FLOOR
) -> GroupResult:
    group = replace(group, options=tuple(own))
    return group_result(group, Measured(tuple(map(tuple, own.values())), floor, peers, set_aside=0))


def a_result(*groups: GroupResult) -> SuiteResult:
    return SuiteResult(
        made_at="2026-11-29T12:00:00.000000Z",
        duration_s=61.5,
        command="ferry bench suite",
        release="0.1.0",
        machine=MACHINE,
        link_command={},
        groups=groups,
    )
