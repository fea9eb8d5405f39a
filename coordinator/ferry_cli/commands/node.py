"""``ferry node``: the cluster's hosts."""

import typer

from ferry.v1 import admin_pb2
from ferry_cli import admin, interrupts, tables, views
from ferry_cli.options import CoordinatorOption, DirectoryOption, OutputOption
from ferry_cli.output import Output, print_document, print_pairs, print_table, tell
from ferry_types.errors import FerryError, not_found

app = typer.Typer(help="The hosts of the cluster.")


@app.command("list")
def list_nodes(
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the nodes.

    PowerShell: Get-ClusterNode.
    """
    nodes = interrupts.run(_nodes(admin.coordinator_address(coordinator, directory), ""))
    if output is Output.JSON:
        print_document([views.node_view(node) for node in nodes])
    else:
        print_table(tables.NODE_COLUMNS, tables.node_rows(nodes))


@app.command()
def show(
    name: str,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one node.

    PowerShell: Get-ClusterNode -Name.
    """
    nodes = interrupts.run(_nodes(admin.coordinator_address(coordinator, directory), name))
    if not nodes:
        raise FerryError(not_found(f"there is no node {name}", "ferry node list shows those that exist"))
    if output is Output.JSON:
        print_document(views.node_view(nodes[0]))
    else:
        print_pairs(tables.node_pairs(nodes[0]))


@app.command()
def evict(
    name: str,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Remove a node that has no VMs from the cluster, dead or alive; its agent ends.

    PowerShell: Remove-ClusterNode.

    An agent that is started again with the same directory joins as a new node.
    """
    node = interrupts.run(_evict(admin.coordinator_address(coordinator, directory), name))
    if output is Output.JSON:
        print_document(views.node_view(node))
    else:
        tell(f"{name} is evicted")


async def _evict(address: str, name: str) -> admin_pb2.Node:
    async with admin.connect(address) as stub:
        return await stub.EvictNode(admin_pb2.NodeRequest(name=name), timeout=admin.LOOK_S)


async def _nodes(address: str, name: str) -> list[admin_pb2.Node]:
    async with admin.connect(address) as stub:
        answer = await stub.ListNodes(admin_pb2.ListNodesRequest(name=name), timeout=admin.LOOK_S)
        return list(answer.nodes)
