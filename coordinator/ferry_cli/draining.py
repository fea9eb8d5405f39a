"""Seeing a drain through: look at the node until it is empty, say what came of it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli.admin import find_node, retry_while_away
from ferry_cli.tables import drain_words
from ferry_cluster.records import DrainState
from ferry_types.errors import ErrorCode, Refusal

Watcher = Callable[[admin_pb2.Drain], None]

POLL_S: Final = 0.25
"""Between two looks: no VM moves in less."""


async def see_through(admin: AdminStub, name: str, watcher: Watcher) -> admin_pb2.Node:
    """Look at a node until its drain has ended; returns it as it is then.

    A coordinator that is away for a moment is waited for. Raises AioRpcError if it stays away, FerryError if
    there is no such node any more.
    """
    while True:
        node = await retry_while_away(lambda: find_node(admin, name))
        if has_ended(node):
            return node
        watcher(node.drain)
        await asyncio.sleep(POLL_S)


def has_ended(node: admin_pb2.Node) -> bool:
    """Whether there is nothing more to come of a node's drain."""
    return not node.HasField("drain") or node.drain.state != DrainState.ACTIVE


def failure(node: admin_pb2.Node) -> Refusal | None:
    """Why a drain that has ended did not empty its node; None if it did."""
    left = ", ".join(node.vms) or "no VM"
    if not node.HasField("drain"):
        return Refusal(
            ErrorCode.FAILED,
            f"{node.name} was resumed before it was empty: {left} on it",
            f"drain it again: ferry node drain {node.name}",
        )
    if node.drain.state == DrainState.COMPLETED:
        return None
    return Refusal(
        ErrorCode.FAILED,
        f"the drain of {node.name} failed: {node.drain.reason or 'no reason is known'}; "
        f"still on it: {', '.join(node.drain.remaining) or 'no VM'}",
        f"move or stop what is left, or let the node take VMs again: ferry node resume {node.name}",
    )


@contextmanager
def progress_bar(console: Console, title: str) -> Iterator[Watcher]:
    """A bar on a terminal; elsewhere a line whenever something has changed."""
    if not console.is_terminal:
        yield _line_watcher(console, title)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, words="")

        def show(drain: admin_pb2.Drain) -> None:
            total = len({*drain.taken, *drain.remaining})
            done = total - len(drain.remaining)
            progress.update(task, total=total or None, completed=done, words=drain_words(drain))

        yield show


def _line_watcher(console: Console, title: str) -> Watcher:
    shown = ""

    def show(drain: admin_pb2.Drain) -> None:
        nonlocal shown
        words = drain_words(drain)
        if words != shown:
            shown = words
            console.print(f"{title}: {words}", soft_wrap=True)

    return show
