"""Seeing a drain through: look at the node until it is empty, say what came of it."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from rich.console import Console

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli import progress
from ferry_cli.admin import find_node, retry_while_away
from ferry_cli.progress import Reached
from ferry_cli.tables import drain_words
from ferry_types.drains import DrainState
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


def progress_bar(console: Console, title: str) -> AbstractContextManager[Watcher]:
    """A bar on a terminal; elsewhere a line whenever something has changed."""
    return progress.progress_bar(console, title, _reached)


def _reached(drain: admin_pb2.Drain) -> Reached:
    total, words = len({*drain.taken, *drain.remaining}), drain_words(drain)
    return Reached(total - len(drain.remaining), total, words, phase=words)
