"""The runs of a report: the moves of a live cluster, and those in files."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ferry.v1 import admin_pb2
from ferry_cli import admin, views
from ferry_cli.report import documents
from ferry_cli.report.documents import Run
from ferry_cli.report.figures import RUNS_MAX
from ferry_types.errors import FerryError, failed, malformed, not_found

_ID: Final = re.compile(r"m\d{1,18}")


@dataclass(frozen=True, slots=True)
class Question:
    """Which moves of a cluster: those of ``ids``, all if empty, and of these those that the rest leaves over.

    ``since_us``: requested since then, Unix microseconds; 0: ever. Empty ``vm`` and ``node``: any.
    """

    ids: tuple[str, ...] = ()
    since_us: int = 0
    vm: str = ""
    node: str = ""

    def asks_for(self, record: admin_pb2.MigrationRecord) -> bool:
        """Whether a move is one of them."""
        return (
            (not self.ids or record.id in self.ids)
            and record.requested_at_us >= self.since_us
            and self.vm in ("", record.vm)
            and self.node in ("", record.source, record.target)
        )


def sorted_out(arguments: Sequence[str]) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Ids of moves, and files. What looks like an id is one, unless there is such a file.

    Raises FerryError(malformed) if there are more files than a report holds.
    """
    paths = dict.fromkeys(Path(each) for each in arguments if not _is_id(each))
    if len(paths) > RUNS_MAX:
        what = f"{len(paths)} files are too many for one report: at most {RUNS_MAX}"
        raise FerryError(malformed(what, "make several reports"))
    return tuple(dict.fromkeys(filter(_is_id, arguments))), tuple(paths)


def _is_id(argument: str) -> bool:
    return _ID.fullmatch(argument) is not None and not Path(argument).exists()


def from_files(paths: Sequence[Path]) -> list[Run]:
    """The runs in files. Raises FerryError: as ``documents.read``, malformed if there are too many."""
    runs = [run for path in paths for run in documents.read(path)]
    if len(runs) > RUNS_MAX:
        what = f"the files hold {len(runs)} runs, too many for one report: at most {RUNS_MAX}"
        raise FerryError(malformed(what, "make several reports"))
    return runs


async def from_cluster(address: str, question: Question) -> Run:
    """The moves of a live cluster, with its event log as far as it concerns them.

    Raises FerryError: as ``admin.connect``, and not_found if it has no such moves.
    """
    async with admin.connect(address) as stub:
        cluster = await stub.ShowCluster(admin_pb2.ClusterQuery(), timeout=admin.LOOK_S)
        listed = await stub.ListMigrations(admin_pb2.ListMigrationsRequest(), timeout=admin.LOOK_S)
        as_of_us = time.time_ns() // 1000
        _check_known(question.ids, {record.id for record in listed.migrations})
        records = [record for record in listed.migrations if question.asks_for(record)]
        if not records:
            narrowed = question != Question()
            which = "no such move" if narrowed else "had no move"
            raise FerryError(
                not_found(
                    f"the cluster {cluster.name} has {which}: there is nothing to report",
                    "ferry migration list shows them" if narrowed else "ferry vm migrate moves a VM",
                )
            )
        query = admin_pb2.EventQuery(since_us=min(record.requested_at_us for record in records))
        query.vm = question.vm
        log = await stub.ListEvents(query, timeout=admin.LOOK_S)
    try:
        (moves,) = documents.parse("moves", _written([views.migration_view(record) for record in records]))
        (events,) = documents.parse("events", _written([views.event_view(event) for event in log.events]))
    except ValueError as problem:
        what = f"what the coordinator at {address} answers cannot be read: {problem}"
        raise FerryError(failed(what, "use the ferry command of its version")) from None
    return Run(cluster.name, moves.moves, events.events, as_of_us=as_of_us)


def _check_known(ids: Sequence[str], known: set[str]) -> None:
    if unknown := [each for each in ids if each not in known]:
        what = f"there is no migration {', '.join(unknown)}"
        raise FerryError(not_found(what, "ferry migration list shows them"))


def _written(rows: list[views.View]) -> bytes:
    return json.dumps(rows).encode()
