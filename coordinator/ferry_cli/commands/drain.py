"""``ferry node drain``: shows what it would do, or asks for it and sees it through."""

import asyncio

import typer

from ferry.v1 import admin_pb2
from ferry_cli import admin, draining, interrupts, tables, views
from ferry_cli.interrupts import EXIT_CODE_INTERRUPTED
from ferry_cli.output import Output, messages, print_document, print_table, say, tell
from ferry_types.drains import Stuck
from ferry_types.errors import FerryError


def plan(address: str, request: admin_pb2.PlanDrainRequest, stuck: Stuck, output: Output) -> None:
    """Print what the drain would do; ``stuck``: what it is to do with VMs that no host can take."""
    planned = interrupts.run(_plan(address, request))
    say(f"nothing was changed: this is what a drain of {planned.node} would do now")
    if output is Output.JSON:
        print_document(views.drain_plan_view(planned))
        return
    if planned.moves:
        print_table(tables.PLANNED_MOVE_COLUMNS, tables.planned_move_rows(planned.moves))
    for line in tables.drain_plan_lines(planned, stuck):
        tell(line)


def drain(address: str, request: admin_pb2.DrainNodeRequest, *, detach: bool, output: Output) -> None:
    """Ask for the drain; unless detached, wait for its end. Raises FerryError, typer.Exit."""
    node = interrupts.run(_drain(address, request, wait=not detach))
    if detach and not draining.has_ended(node):
        _print_node(node, f"{node.name} is {node.state}: {tables.drain_words(node.drain)}", output)
        say(_without_you(node.name))
        return
    refusal = draining.failure(node)
    if refusal is None:
        taken = f"; it had {', '.join(node.drain.taken)}" if node.drain.taken else ""
        _print_node(node, f"{node.name} is drained{taken}", output)
        if node.drain.reason:
            say(node.drain.reason)
        say(f"it gets no VM until it is resumed: ferry node resume {node.name}")
        return
    if output is Output.TABLE:
        raise FerryError(refusal)
    # One document: where the node stands, and why it is not empty.
    print_document({**views.node_view(node), "error": views.error_view(refusal)})
    raise typer.Exit(1)


def _print_node(node: admin_pb2.Node, words: str, output: Output) -> None:
    if output is Output.JSON:
        print_document(views.node_view(node))
    else:
        tell(words)


def _without_you(name: str) -> str:
    return (
        f"the drain goes on without you; watch it with ferry node show {name}, "
        f"or end it with ferry node resume {name}"
    )


async def _plan(address: str, request: admin_pb2.PlanDrainRequest) -> admin_pb2.DrainPlan:
    async with admin.connect(address) as stub:
        return await stub.PlanDrain(request, timeout=admin.LOOK_S)


async def _drain(address: str, request: admin_pb2.DrainNodeRequest, *, wait: bool) -> admin_pb2.Node:
    async with admin.connect(address) as stub:
        node = await stub.DrainNode(request, timeout=admin.LOOK_S)
        if not wait:
            return node
        try:
            with draining.progress_bar(messages(), f"drain of {node.name}") as watcher:
                return await draining.see_through(stub, node.name, watcher)
        except asyncio.CancelledError:
            say(_without_you(node.name))
            raise typer.Exit(EXIT_CODE_INTERRUPTED) from None
