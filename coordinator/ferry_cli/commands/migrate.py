"""``ferry vm migrate``: asks for a move and sees it through."""

import asyncio

import typer

from ferry.v1 import admin_pb2
from ferry_cli import admin, interrupts, moving
from ferry_cli.commands.migration import print_record
from ferry_cli.interrupts import EXIT_CODE_INTERRUPTED
from ferry_cli.output import Output, messages, print_document, say
from ferry_cli.views import error_view, migration_view


def migrate(address: str, request: admin_pb2.MigrateVmRequest, *, detach: bool, output: Output) -> None:
    """Ask for the move; unless detached or a dry run, wait for its end. Raises FerryError, typer.Exit."""
    record = interrupts.run(_migrate(address, request, wait=not (detach or request.dry_run)))
    if request.dry_run:
        say(f"{record.vm} would move from {record.source} to {record.target}; nothing was changed")
    elif detach:
        say(f"{record.id} is accepted; watch it with ferry migration watch {record.id}")
    elif (refusal := moving.failure(record)) is not None and output is Output.JSON:
        # One document: what the move measured before it failed, and why it failed.
        print_document({**migration_view(record), "error": error_view(refusal)})
        raise typer.Exit(1)
    print_record(record, output)
    if not (detach or request.dry_run):
        moving.check_moved(record)


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
