"""``ferry vm migrate``: asks for a move and sees it through."""

import asyncio

import typer

from ferry.v1 import admin_pb2
from ferry_cli import admin, interrupts, moving, tables
from ferry_cli.commands.migration import print_record
from ferry_cli.interrupts import EXIT_CODE_INTERRUPTED
from ferry_cli.output import Output, messages, print_document, print_table, say
from ferry_cli.views import error_view, migration_view, rating_view


def migrate(address: str, request: admin_pb2.MigrateVmRequest, *, detach: bool, output: Output) -> None:
    """Ask for the move; unless detached or a dry run, wait for its end. Raises FerryError, typer.Exit."""
    if request.dry_run:
        _print_plan(*interrupts.run(_plan(address, request)), output)
        return
    record = interrupts.run(_migrate(address, request, wait=not detach))
    if detach:
        say(f"{record.id} is accepted; watch it with ferry migration watch {record.id}")
    elif (refusal := moving.failure(record)) is not None and output is Output.JSON:
        # One document: what the move measured before it failed, and why it failed.
        print_document({**migration_view(record), "error": error_view(refusal)})
        raise typer.Exit(1)
    print_record(record, output)
    if not detach:
        moving.check_moved(record)


def _print_plan(
    record: admin_pb2.MigrationRecord, ratings: list[admin_pb2.HostRating], output: Output
) -> None:
    say(f"{record.vm} would move from {record.source} to {record.target}; nothing was changed")
    if output is Output.JSON:
        print_document({**migration_view(record), "ratings": [rating_view(rating) for rating in ratings]})
        return
    print_record(record, output)
    print_table(tables.RATING_COLUMNS, tables.rating_rows(ratings))


async def _plan(
    address: str, request: admin_pb2.MigrateVmRequest
) -> tuple[admin_pb2.MigrationRecord, list[admin_pb2.HostRating]]:
    async with admin.connect(address) as stub:
        record = await stub.MigrateVm(request, timeout=admin.LOOK_S)
        rated = await stub.RateHosts(admin_pb2.VmRequest(name=request.vm), timeout=admin.LOOK_S)
        return record, list(rated.ratings)


async def _migrate(
    address: str, request: admin_pb2.MigrateVmRequest, *, wait: bool
) -> admin_pb2.MigrationRecord:
    async with admin.connect(address) as stub:
        record = await stub.MigrateVm(request, timeout=admin.LOOK_S)
        if not wait:
            return record
        try:
            with moving.progress_bar(messages(), f"{record.id}: {record.vm} to {record.target}") as watcher:
                return await moving.see_through(
                    stub, record.id, watcher, lambda: say("the coordinator is away; the move may go on")
                )
        except asyncio.CancelledError:
            say(
                f"{record.id} goes on without you; watch it with ferry migration watch {record.id}, "
                f"or cancel it with ferry migration cancel {record.id}"
            )
            raise typer.Exit(EXIT_CODE_INTERRUPTED) from None
