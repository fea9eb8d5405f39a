"""``ferry vm ping``: how a guest is felt from outside."""

import asyncio
from dataclasses import asdict

import grpc
import typer

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli import admin, interrupts
from ferry_cli.echo import EchoClient, EchoReport, follow
from ferry_cli.interrupts import EXIT_CODE_INTERRUPTED
from ferry_cli.output import Output, print_document, say, tell
from ferry_types.errors import FerryError, refused
from ferry_types.units import format_duration
from ferry_types.vms import VmState


def ping(address: str, vm: str, count: int, interval_s: float, output: Output) -> None:
    """Ping a guest and print the counts. Raises FerryError (no such VM, or it is off) and typer.Exit."""
    report, finished = interrupts.run(_ping(address, vm, count, interval_s))
    if output is Output.JSON:
        print_document(asdict(report))
    else:
        gap = "no answer" if report.longest_gap_s is None else format_duration(report.longest_gap_s)
        tell(f"{report.sent} sent, {report.received} received, {report.lost} lost, longest gap {gap}")
        if report.steps_fell:
            tell(f"the guest's step counter fell {report.steps_fell} times without a boot")
    if report.received == 0 or report.steps_fell:
        raise typer.Exit(1)
    if not finished:
        raise typer.Exit(EXIT_CODE_INTERRUPTED)


async def _ping(address: str, name: str, count: int, interval_s: float) -> tuple[EchoReport, bool]:
    """The report, and whether it is all that was asked for: without a count, to be interrupted is the end."""
    async with admin.connect(address) as stub, EchoClient(name) as client:
        vm = await admin.find_vm(stub, name)
        if vm.state == VmState.OFF:
            raise FerryError(refused("vm running", f"{name} is off", f"start it: ferry vm start {name}"))
        await client.aim(vm.echo_address, vm.epoch)
        following = asyncio.create_task(_follow(stub, client))
        try:
            await client.ping(count, interval_s)
        except asyncio.CancelledError:
            await client.settle()
            return client.books.report(), count == 0
        finally:
            following.cancel()
        return client.books.report(), True


async def _follow(stub: AdminStub, client: EchoClient) -> None:
    where = ""

    def changed(vm: admin_pb2.Vm) -> None:
        nonlocal where
        if vm.node and vm.node != where:
            say(f"{client.vm} is on {vm.node} (epoch {vm.epoch})")
            where = vm.node

    try:
        await follow(stub, client, changed)
    except grpc.aio.AioRpcError as error:
        say(f"{client.vm} is followed no more: {error.details()}")
    else:
        say(f"{client.vm} is removed")
