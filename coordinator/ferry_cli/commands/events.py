"""``ferry events``: what happened, with the Windows log, level and ID where one exists."""

import asyncio
import time
from typing import Annotated

import grpc
import typer

from ferry.v1 import admin_pb2, events_pb2
from ferry_cli import admin, interrupts, tables, views
from ferry_cli.options import CoordinatorOption, DirectoryOption, OutputOption, duration
from ferry_cli.output import Output, print_document, print_line, say, tell


def events(
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new ones until interrupted.")] = False,
    since: Annotated[str | None, typer.Option(metavar="DURATION", help="Only the last 10m, 1h ...")] = None,
    node: Annotated[str, typer.Option(metavar="NODE", help="Only those of a node.")] = "",
    vm: Annotated[str, typer.Option(metavar="VM", help="Only those of a VM.")] = "",
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print the cluster's event log.

    PowerShell: Get-WinEvent, Get-ClusterLog.
    """
    since_us = 0 if since is None else round((time.time() - duration(since, "--since")) * 1e6)
    query = admin_pb2.EventQuery(since_us=max(0, since_us), node=node, vm=vm)
    address = admin.coordinator_address(coordinator, directory)
    if follow:
        interrupts.run(_follow(address, query, output))
        return
    found = interrupts.run(_list(address, query))
    if output is Output.JSON:
        print_document([views.event_view(event) for event in found])
    else:
        for event in found:
            _print_line(event)


async def _list(address: str, query: admin_pb2.EventQuery) -> list[events_pb2.Event]:
    async with admin.connect(address) as stub:
        return list((await stub.ListEvents(query, timeout=admin.LOOK_S)).events)


async def _follow(address: str, query: admin_pb2.EventQuery, output: Output) -> None:
    def reopened() -> "grpc.aio.UnaryStreamCall[admin_pb2.EventQuery, events_pb2.Event]":
        return stub.WatchEvents(query)

    async with admin.connect(address) as stub:
        async for event in admin.watch(
            reopened, reached=False, on_away=lambda: say("the coordinator is away; waiting")
        ):
            # A stream that is opened again begins after what has been printed.
            query.after_id = event.id
            if output is Output.JSON:
                print_line(views.event_view(event))
            else:
                _print_line(event)
            await asyncio.sleep(0)


def _tell_away() -> None:
    say("the coordinator is away; waiting")


def _print_line(event: events_pb2.Event) -> None:
    tell(tables.event_line(event))
