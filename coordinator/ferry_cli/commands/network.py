"""``ferry network``: the cluster's networks; ``ferry nic``: the adapters of its hosts."""

from typing import Annotated

import typer

from ferry.v1 import admin_pb2, host_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli import admin, interrupts, tables, views
from ferry_cli.options import CoordinatorOption, DirectoryOption, OutputOption
from ferry_cli.output import Output, print_document, print_pairs, print_table, say, tell

app = typer.Typer(help="The networks of the cluster.")
nic_app = typer.Typer(help="The network adapters of the hosts.")

NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="The node's name.")]
NicArgument = Annotated[str, typer.Argument(metavar="NIC", help="The adapter's name.")]


@app.command("list")
def list_networks(
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the networks, the most preferred first.

    PowerShell: Get-ClusterNetwork.
    """
    networks = admin.ask(coordinator, directory, _networks)
    if output is Output.JSON:
        print_document([views.network_view(network) for network in networks])
    else:
        rows = tables.network_rows(networks)
        columns, rows = tables.columns_of(rows, tables.NETWORK_COLUMNS)
        print_table(columns, rows)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NETWORK", help="The network's name.")],
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one network and the adapters that are part of it.

    PowerShell: Get-ClusterNetwork -Name, Get-ClusterNetworkInterface -Network.
    """
    network = admin.ask(coordinator, directory, lambda stub: admin.find_network(stub, name))
    if output is Output.JSON:
        print_document(views.network_view(network))
    else:
        print_pairs(tables.network_pairs(network))
        tell("")
        columns, rows = tables.columns_of(tables.nic_rows(network.nics), tables.NIC_COLUMNS)
        print_table(columns, rows)


@nic_app.command()
def down(
    node: NodeArgument,
    nic: NicArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Take an adapter down, as if its cable were pulled.

    PowerShell: Disable-NetAdapter.

    It stays so until it is brought up or the node's agent ends.
    A host all of whose adapters are down that carry the cluster's traffic is cut off, and loses its lease.
    """
    _turn(node, nic, admin.coordinator_address(coordinator, directory), output, up=False)


@nic_app.command()
def up(
    node: NodeArgument,
    nic: NicArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Bring an adapter up again; also on a host that is cut off.

    PowerShell: Enable-NetAdapter.
    """
    _turn(node, nic, admin.coordinator_address(coordinator, directory), output, up=True)


def _turn(node: str, nic: str, address: str, output: Output, *, up: bool) -> None:
    turned = interrupts.run(_ask_host(node, host_pb2.TurnNicRequest(nic=nic, up=up), address))
    if output is Output.JSON:
        view = views.nic_view(node, turned.nic, turned.state, turned.reason)
        print_document(view | {"cut_off": turned.cut_off})
    else:
        tell(f"NIC {nic} of {node} on network {turned.nic.network} is {turned.state}")
    if turned.cut_off:
        say(f"{node} is cut off from the cluster: its lease runs out; ferry nic up {node} {nic} mends that")


async def _ask_host(node: str, request: host_pb2.TurnNicRequest, coordinator: str) -> host_pb2.HostNic:
    """Ask the host itself, at its own address: one that is cut off has no way to hear of its coordinator."""
    async with admin.connect(coordinator) as stub:
        found = await admin.find_node(stub, node)
    async with admin.connect_host(found.address) as host:
        return await host.TurnNic(request, timeout=admin.LOOK_S)


async def _networks(stub: AdminStub) -> list[admin_pb2.NetworkStatus]:
    answer = await stub.ListNetworks(admin_pb2.ListNetworksRequest(), timeout=admin.LOOK_S)
    return list(answer.networks)
