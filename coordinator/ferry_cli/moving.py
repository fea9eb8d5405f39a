"""Seeing a live migration through: ask for it, watch it, say what came of it."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from rich.console import Console

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli import progress
from ferry_cli.admin import LOOK_S, retry_while_away, watch
from ferry_cli.progress import Reached
from ferry_types.errors import ErrorCode, FerryError, Refusal
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import ENDED, MigrationState
from ferry_types.units import format_duration, format_rate, format_size

Watcher = Callable[[admin_pb2.MigrationStatus], None]


async def see_through(
    admin: AdminStub,
    migration_id: str,
    watcher: Watcher,
    on_away: Callable[[], None] = lambda: None,
    *,
    reached: bool = True,
) -> admin_pb2.MigrationRecord:
    """Watch a move until it has ended; returns its record. A coordinator that is away is waited for.

    ``reached``: the coordinator is known to be there, so that it is waited for from the start.
    """
    request = admin_pb2.MigrationRequest(id=migration_id)
    async for status in watch(lambda: admin.WatchMigration(request), reached=reached, on_away=on_away):
        watcher(status)
        if has_ended(status.record):
            return status.record
    ended = admin_pb2.ListMigrationsRequest(id=migration_id)
    answer = await retry_while_away(lambda: admin.ListMigrations(ended, timeout=LOOK_S))
    return answer.migrations[0]


def has_ended(record: admin_pb2.MigrationRecord) -> bool:
    """Whether there is nothing more to come of a move."""
    return record.state in ENDED


def failure(record: admin_pb2.MigrationRecord) -> Refusal | None:
    """Why a move that has ended did not move the VM; None if it did."""
    if record.state == MigrationState.COMPLETED:
        return None
    what = "was cancelled" if record.state == MigrationState.CANCELLED else "failed"
    return Refusal(
        ErrorCode.FAILED,
        f"the move of {record.vm} to {record.target} {what}: {record.reason or 'no reason is known'}",
        f"its figures: ferry migration show {record.id}",
    )


def check_moved(record: admin_pb2.MigrationRecord) -> None:
    """Raise FerryError if a move that has ended did not move the VM."""
    if (refusal := failure(record)) is not None:
        raise FerryError(refusal)


def describe(status: admin_pb2.MigrationStatus) -> str:
    """How far a move is, in words."""
    record = status.record
    if record.state == MigrationState.QUEUED:
        return record.reason or "queued"
    if record.state == MigrationState.COPYING and status.pass_index:
        dirty = format_size(status.dirty_pages * PAGE_SIZE)
        text = f"pass {status.pass_index}, {status.dirty_pages} pages dirty ({dirty})"
        if status.rate_bytes_per_s > 0:
            left_s = remaining_s(status)
            text += f", {format_rate(status.rate_bytes_per_s)}, about {format_duration(left_s)} left"
        return text
    return record.state


def remaining_s(status: admin_pb2.MigrationStatus) -> float:
    """Seconds until this pass is done, and what is dirty by now has followed, at the present rate."""
    pages = max(0, status.pages_total - status.pages_done) + status.dirty_pages
    return pages * PAGE_SIZE / status.rate_bytes_per_s


def progress_bar(console: Console, title: str) -> AbstractContextManager[Watcher]:
    """A bar on a terminal; elsewhere a line whenever state or pass change."""
    return progress.progress_bar(console, title, _reached)


def _reached(status: admin_pb2.MigrationStatus) -> Reached:
    phase = None if has_ended(status.record) else (status.record.state, status.pass_index)
    return Reached(status.pages_done, status.pages_total, describe(status), phase)
