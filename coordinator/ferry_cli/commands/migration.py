"""``ferry migration``: the moves, waiting, under way and done."""

from typing import Annotated

import typer

from ferry.v1 import admin_pb2
from ferry_cli import admin, interrupts, moving, tables, views
from ferry_cli.options import CoordinatorOption, DirectoryOption, OutputOption
from ferry_cli.output import Output, messages, print_document, print_line, print_table, say, tell
from ferry_types.errors import FerryError, not_found

app = typer.Typer(help="Live migrations: waiting, under way and done.")

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The move's id, from ferry migration list.")]


@app.command("list")
def list_migrations(
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the moves, the newest last.

    PowerShell: Get-VM, column Status.
    """
    records = interrupts.run(_records(admin.coordinator_address(coordinator, directory), ""))
    if output is Output.JSON:
        print_document([views.migration_view(record) for record in records])
    else:
        print_table(*tables.columns_of(tables.migration_rows(records), tables.MIGRATION_COLUMNS))


@app.command()
def show(
    migration: IdArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a move did, pass by pass, and why copying stopped.

    PowerShell: Get-WinEvent, 22507-22509.
    """
    records = interrupts.run(_records(admin.coordinator_address(coordinator, directory), migration))
    if not records:
        raise FerryError(not_found(f"there is no migration {migration}", "ferry migration list shows them"))
    print_record(records[0], output)


@app.command()
def watch(
    migration: IdArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Watch a move until it has ended; exit code 1 if it did not move the VM.

    PowerShell: Get-Job.
    """
    record = interrupts.run(_watch(admin.coordinator_address(coordinator, directory), migration, output))
    if output is Output.TABLE:
        print_record(record, output)
    if (refusal := moving.failure(record)) is not None:
        say(f"ferry: {refusal.message}")
        raise typer.Exit(1)


@app.command()
def cancel(
    migration: IdArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Cancel a move; the VM runs on where it is. Too late once it is committed.

    PowerShell: Stop-Job.
    """
    record = interrupts.run(_cancel(admin.coordinator_address(coordinator, directory), migration))
    if output is Output.JSON:
        print_document(views.migration_view(record))
    else:
        tell(f"{record.id} is {record.state}: {record.vm} stays on {record.source}")


def print_record(record: admin_pb2.MigrationRecord, output: Output) -> None:
    """A move's figures, in either form."""
    if output is Output.JSON:
        print_document(views.migration_view(record))
        return
    for line in tables.migration_lines(record):
        tell(line)


async def _records(address: str, migration: str) -> list[admin_pb2.MigrationRecord]:
    request = admin_pb2.ListMigrationsRequest(id=migration)
    async with admin.connect(address) as stub:
        return list((await stub.ListMigrations(request, timeout=admin.LOOK_S)).migrations)


async def _cancel(address: str, migration: str) -> admin_pb2.MigrationRecord:
    async with admin.connect(address) as stub:
        return await stub.CancelMigration(admin_pb2.MigrationRequest(id=migration), timeout=admin.LOOK_S)


async def _watch(address: str, migration: str, output: Output) -> admin_pb2.MigrationRecord:
    def away() -> None:
        say("the coordinator is away; waiting")

    async with admin.connect(address) as stub:
        if output is Output.TABLE:
            with moving.progress_bar(messages(), migration) as watcher:
                return await moving.see_through(stub, migration, watcher, away, reached=False)
        return await moving.see_through(
            stub, migration, lambda status: print_line(views.progress_view(status)), away, reached=False
        )
