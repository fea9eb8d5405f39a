"""``ferry node``: the cluster's hosts."""

from typing import Annotated

import typer

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli import admin, tables, views
from ferry_cli.commands import drain
from ferry_cli.options import CoordinatorOption, DirectoryOption, DryRunOption, OutputOption, span
from ferry_cli.output import Output, print_document, print_pairs, print_table, tell
from ferry_types.drains import Stuck
from ferry_types.migrations import BEST

app = typer.Typer(help="The hosts of the cluster.")

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.")]


@app.command("list")
def list_nodes(
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the nodes.

    PowerShell: Get-ClusterNode.
    """
    nodes = admin.ask(coordinator, directory, _nodes)
    if output is Output.JSON:
        print_document([views.node_view(node) for node in nodes])
    else:
        print_table(tables.NODE_COLUMNS, tables.node_rows(nodes))


@app.command()
def show(
    name: NodeArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one node.

    PowerShell: Get-ClusterNode -Name.
    """
    node = admin.ask(coordinator, directory, lambda stub: admin.find_node(stub, name))
    if output is Output.JSON:
        print_document(views.node_view(node))
    else:
        print_pairs(tables.node_pairs(node))


@app.command()
def pause(
    name: NodeArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let no VM come to a node any more; those that it has run on there.

    PowerShell: Suspend-ClusterNode.
    """
    request = admin_pb2.NodeRequest(name=name)
    node = admin.ask(coordinator, directory, lambda stub: stub.PauseNode(request, timeout=admin.LOOK_S))
    _print_changed(node, f"{name} is {node.state}; on it: {', '.join(node.vms) or 'no VM'}", output)


@app.command("drain")
def drain_node(
    name: NodeArgument,
    to: Annotated[
        str, typer.Option(metavar="NODE|best", help="Where its VMs go; best: for each of them.")
    ] = BEST,
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="When to give up; else never: 10m, 1h ...")
    ] = None,
    stuck: Annotated[
        Stuck, typer.Option(help="What to do with VMs that no host can take: leave them or turn them off.")
    ] = Stuck.STAY,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the drain has begun.")] = False,
    dry_run: DryRunOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Pause a node and move its VMs away, live; exit code 1 if VMs were left.

    PowerShell: Suspend-ClusterNode -Drain.

    Ctrl-C leaves the drain to itself and says how to watch or end it.
    """
    within_s = None if deadline is None else span(deadline, "--deadline")
    target = "" if to == BEST else to
    address = admin.coordinator_address(coordinator, directory)
    if dry_run:
        drain.plan(address, admin_pb2.PlanDrainRequest(name=name, to=target), stuck, output)
    else:
        request = admin_pb2.DrainNodeRequest(name=name, to=target, within_s=within_s, stuck=stuck)
        drain.drain(address, request, detach=detach, output=output)


@app.command()
def resume(
    name: NodeArgument,
    failback: Annotated[
        bool, typer.Option("--failback", help="Move the VMs back that were drained from it.")
    ] = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let a node take VMs again that was paused, drained or quarantined; ends a drain that is under way.

    PowerShell: Resume-ClusterNode [-Failback Immediate], Start-ClusterNode -ClearQuarantine.
    """
    request = admin_pb2.ResumeNodeRequest(name=name, failback=failback)
    node = admin.ask(coordinator, directory, lambda stub: stub.ResumeNode(request, timeout=admin.LOOK_S))
    words = "; its VMs come back: ferry migration list shows them" if failback else ""
    _print_changed(node, f"{name} is {node.state}{words}", output)


@app.command()
def evict(
    name: NodeArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Even if it has VMs: they fail over to other nodes.")
    ] = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Remove a node from the cluster, dead or alive; its agent ends.

    PowerShell: Remove-ClusterNode, Remove-ClusterNode -Force.

    An agent that is started again with the same directory joins as a new node.
    """
    request = admin_pb2.EvictNodeRequest(name=name, force=force)
    node = admin.ask(coordinator, directory, lambda stub: stub.EvictNode(request, timeout=admin.LOOK_S))
    _print_changed(node, f"{name} is evicted", output)


async def _nodes(stub: AdminStub) -> list[admin_pb2.Node]:
    answer = await stub.ListNodes(admin_pb2.ListNodesRequest(), timeout=admin.LOOK_S)
    return list(answer.nodes)


def _print_changed(node: admin_pb2.Node, words: str, output: Output) -> None:
    if output is Output.JSON:
        print_document(views.node_view(node))
    else:
        tell(words)
