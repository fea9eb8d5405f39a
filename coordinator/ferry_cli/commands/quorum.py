"""``ferry quorum``: who has a vote when a node is lost or the coordinator is away."""

from typing import Annotated, Final

import typer

from ferry.v1 import admin_pb2
from ferry_cli import admin, interrupts, tables, views
from ferry_cli.options import CoordinatorOption, DirectoryOption, OutputOption
from ferry_cli.output import Output, print_document, print_pairs, print_table, say, tell
from ferry_types.errors import FerryError, malformed
from ferry_wire.addresses import parse_address

NONE: Final = "none"
"""What ``--witness`` says for no witness."""

app = typer.Typer(help="Who has a vote when a node is lost or the coordinator is away.")


@app.command()
def show(
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show who has a vote, and how many it takes.

    PowerShell: Get-ClusterQuorum.
    """
    quorum = interrupts.run(_show(admin.coordinator_address(coordinator, directory)))
    if output is Output.JSON:
        print_document(views.quorum_view(quorum))
    else:
        print_pairs(tables.quorum_pairs(quorum))
        tell("")
        print_table(tables.VOTE_COLUMNS, tables.vote_rows(quorum.votes))


@app.command("set")
def set_quorum(
    witness: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|none", help="Where the file-share witness listens; none: without one."
        ),
    ] = None,
    dynamic: Annotated[
        bool | None,
        typer.Option("--dynamic/--static", help="Whether votes follow the nodes that are up."),
    ] = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Choose the witness, and whether votes follow the nodes that are up; what is not named stays.

    PowerShell: Set-ClusterQuorum -FileShareWitness, Set-ClusterQuorum -NodeMajority.
    """
    if witness is None and dynamic is None:
        raise FerryError(
            malformed(
                "nothing to set was named", "give --witness, --dynamic or --static; see ferry quorum show"
            )
        )
    change = admin_pb2.QuorumChange(witness=_witness_address(witness), dynamic=dynamic)
    quorum = interrupts.run(_set(admin.coordinator_address(coordinator, directory), change))
    if output is Output.JSON:
        print_document(views.quorum_view(quorum))
    else:
        tell(tables.quorum_line(quorum))
    if quorum.reason:
        say(quorum.reason)


def _witness_address(text: str | None) -> str | None:
    """What the coordinator is told: an address, empty for none, None if nothing was said."""
    if text is None:
        return None
    if text == NONE:
        return ""
    address = parse_address(text, "witness address")
    if address.is_wildcard:
        raise FerryError(
            malformed(
                f"nobody can connect to {address.host}, which means every address of a machine",
                "give the one at which all nodes reach the witness",
            )
        )
    return str(address)


async def _show(address: str) -> admin_pb2.Quorum:
    async with admin.connect(address) as stub:
        return await stub.ShowQuorum(admin_pb2.QuorumQuery(), timeout=admin.LOOK_S)


async def _set(address: str, change: admin_pb2.QuorumChange) -> admin_pb2.Quorum:
    async with admin.connect(address) as stub:
        return await stub.SetQuorum(change, timeout=admin.LOOK_S)
