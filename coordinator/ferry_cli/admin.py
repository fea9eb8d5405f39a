"""The coordinator, and the hosts, as commands speak with them.

Every call has a deadline. What goes wrong leaves here as a FerryError; a coordinator that is away for a
moment interrupts no watcher.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry.v1.host_pb2_grpc import HostStub
from ferry_cli import interrupts
from ferry_cli.lab.state import COORDINATOR, lab_directory, read_lab
from ferry_types.errors import ErrorCode, FerryError, Refusal, not_found
from ferry_wire.channels import open_channel
from ferry_wire.status import refusal_of

M = TypeVar("M", bound=Message)
T = TypeVar("T")

LOOK_S = 10.0
"""Deadline of calls that only look something up or note something down."""

BOOT_S = 300.0
"""Deadline of calls that answer when a VM runs or is off: filling its memory may take a while."""

AWAY_S = 10.0
"""How long a watcher goes on trying to reach a coordinator that is away."""

_RETRY_S = 0.2


def coordinator_address(coordinator: str | None, directory: Path | None) -> str:
    """Where the coordinator listens: the option, else FERRY_COORDINATOR, else the running lab's.

    Raises FerryError(unreachable) if there is none of them.
    """
    if named := coordinator or os.environ.get("FERRY_COORDINATOR"):
        return named
    where = lab_directory(directory)
    lab = read_lab(where)
    if lab is None:
        raise FerryError(
            Refusal(
                ErrorCode.UNREACHABLE,
                f"there is no coordinator to ask: no lab is up in {where}",
                "start one with ferry lab up, or name one with --coordinator or FERRY_COORDINATOR",
            )
        )
    return lab.process(COORDINATOR).address


def ask(coordinator: str | None, directory: Path | None, call: Callable[[AdminStub], Awaitable[T]]) -> T:
    """What a command's one call to the coordinator returns; both options as ``coordinator_address`` has them.

    Raises FerryError, and KeyboardInterrupt if somebody interrupts it.
    """

    async def asked() -> T:
        async with connect(coordinator_address(coordinator, directory)) as stub:
            return await call(stub)

    return interrupts.run(asked())


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[AdminStub]:
    """The coordinator at an address. Failed calls leave the block as FerryError."""
    async with open_channel(address) as channel, _translated(address):
        yield AdminStub(channel)


@asynccontextmanager
async def connect_host(address: str) -> AsyncIterator[HostStub]:
    """The host at an address. Failed calls leave the block as FerryError."""
    async with open_channel(address) as channel, _translated(address):
        yield HostStub(channel)


@asynccontextmanager
async def _translated(address: str) -> AsyncIterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise FerryError(refusal_of(error, address)) from error


async def find_vm(admin: AdminStub, name: str) -> admin_pb2.Vm:
    """The VM of that name. Raises FerryError(not_found)."""
    answer = await admin.ListVms(admin_pb2.ListVmsRequest(name=name), timeout=LOOK_S)
    if not answer.vms:
        raise FerryError(not_found(f"there is no VM {name}", "ferry vm list shows those that exist"))
    return answer.vms[0]


async def find_node(admin: AdminStub, name: str) -> admin_pb2.Node:
    """The node of that name. Raises FerryError(not_found)."""
    answer = await admin.ListNodes(admin_pb2.ListNodesRequest(name=name), timeout=LOOK_S)
    if not answer.nodes:
        raise FerryError(not_found(f"there is no node {name}", "ferry node list shows those that exist"))
    return answer.nodes[0]


async def find_network(admin: AdminStub, name: str) -> admin_pb2.NetworkStatus:
    """The network of that name. Raises FerryError(not_found)."""
    answer = await admin.ListNetworks(admin_pb2.ListNetworksRequest(name=name), timeout=LOOK_S)
    if not answer.networks:
        raise FerryError(not_found(f"there is no network {name}", "ferry network list shows them"))
    return answer.networks[0]


def is_away(error: grpc.aio.AioRpcError) -> bool:
    """Whether the coordinator was not there, as opposed to having refused."""
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def watch(
    call: Callable[[], AsyncIterable[M]],
    *,
    reached: bool = True,
    away_s: float = AWAY_S,
    on_away: Callable[[], None] = lambda: None,
) -> AsyncIterator[M]:
    """What a stream brings, until the server ends it.

    ``call`` opens the stream, and opens it again after it broke; ``on_away`` is told each time that it
    broke after it had worked. Raises the last AioRpcError once the server has been away for ``away_s``
    seconds, or at once if it refuses, or is not there in the first place and was not ``reached`` before.
    """
    heard_at = time.monotonic()
    working = True
    while True:
        try:
            async for message in call():
                heard_at, working, reached = time.monotonic(), True, True
                yield message
            return
        except grpc.aio.AioRpcError as error:
            if not is_away(error) or not reached:
                raise
            now = time.monotonic()
            if working:
                heard_at, working = now, False
                on_away()
            if now - heard_at >= away_s:
                raise
        await asyncio.sleep(_RETRY_S)


async def retry_while_away(call: Callable[[], Awaitable[M]], *, away_s: float = AWAY_S) -> M:
    """The answer to a call that may be repeated. Raises the last AioRpcError after ``away_s`` seconds."""
    deadline = time.monotonic() + away_s
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if not is_away(error) or time.monotonic() >= deadline:
                raise
        await asyncio.sleep(_RETRY_S)
