"""`ferry bench suite`: group after group, one lab for each wire, one file for neighbours of equal memory."""

import time
from collections.abc import Sequence
from itertools import groupby

from ferry_cli.bench.arena import Arena, Progress, open_arena
from ferry_cli.bench.catalogue import choose_peers
from ferry_cli.bench.cells import Group
from ferry_cli.bench.contents import Contents, memory_contents
from ferry_cli.bench.results import GroupResult, group_result
from ferry_cli.bench.rounds import in_turn


async def measure_all(groups: Sequence[Group], progress: Progress) -> list[GroupResult]:
    """Measure. Raises FerryError; leaves nothing behind, however it ends."""
    suite = _Suite(len(groups), progress)
    for rate_bytes_per_s, same_wire in groupby(groups, key=lambda group: group.wire.rate_bytes_per_s):
        on_wire = list(same_wire)
        memory_bytes = max(group.wire.memory_bytes for group in on_wire)
        compared = any(group.peers for group in on_wire)
        async with open_arena(memory_bytes, rate_bytes_per_s, lambda _: None, compared=compared) as arena:
            await suite.measure_wire(arena, on_wire)
    return suite.results


class _Suite:
    def __init__(self, group_count: int, progress: Progress) -> None:
        self.results: list[GroupResult] = []
        self._group_count, self._progress = group_count, progress
        self._began_at_s = time.monotonic()

    async def measure_wire(self, arena: Arena, groups: Sequence[Group]) -> None:
        warm: set[str] = set()
        for (fill, wire), alike in groupby(groups, key=lambda group: (group.contents, group.wire)):
            with memory_contents(fill, wire.memory_bytes) as contents:
                for group in alike:
                    is_warm = warm.issuperset(group.options)
                    await self._measure(arena, group, contents, warm_up=not is_warm)
                    warm.update(group.options)

    async def _measure(self, arena: Arena, group: Group, contents: Contents, *, warm_up: bool) -> None:
        elapsed_min = (time.monotonic() - self._began_at_s) / 60
        where = f"{len(self.results) + 1}/{self._group_count}, {elapsed_min:.1f} min"
        self._progress(f"[{where}] {group.title}")
        peers = choose_peers(",".join(group.peers))
        measured = await in_turn(
            arena,
            group.questions,
            contents,
            peers,
            group.runs,
            self._progress,
            warm_up=warm_up,
            compared=group.is_compared,
        )
        self.results.append(group_result(group, measured))
