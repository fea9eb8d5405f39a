"""A coordinator process of a test's own, and calls to it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from ferry.v1 import admin_pb2, admin_pb2_grpc, common_pb2
from ferry_types.errors import Refusal
from ferry_types.vms import VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve
from ferry_wire.channels import open_channel
from ferry_wire.conversion import to_proto
from ferry_wire.status import refusal_of

MIB = 2**20
PATIENCE_S = 15.0


class CoordinatorProcess:
    """One process on a data directory; started again, it listens where it listened before."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = "127.0.0.1:0"
        self._address_file = directory.with_name(f"{directory.name}.address")
        self._process: asyncio.subprocess.Process | None = None

    def command(self, *options: str) -> list[str]:
        return [
            sys.executable, "-P", "-m", "ferry_coordinator",
            "--dir", str(self.directory), "--listen", self.address, "--profile", "fast",
            "--address-file", str(self._address_file), *options,
        ]  # fmt: skip

    async def start(self, *options: str) -> None:
        """Start it and wait until it listens."""
        self._address_file.unlink(missing_ok=True)
        environment = {**os.environ, "FERRY_COORDINATOR_CHECK": "1"}
        self._process = await asyncio.create_subprocess_exec(*self.command(*options), env=environment)
        async with asyncio.timeout(PATIENCE_S):
            while not self._address_file.exists():
                assert self._process.returncode is None, "the coordinator has ended at once"
                await asyncio.sleep(0.01)
        self.address = self._address_file.read_text()

    async def refused_start(self, *options: str) -> tuple[int, str]:
        """Start another one that is to end at once: its exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            *self.command(*options), stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(PATIENCE_S):
            _, said = await process.communicate()
        assert process.returncode is not None
        return process.returncode, said.decode()

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait until it has ended."""
        assert self._process is not None
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()

    async def kill(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[admin_pb2_grpc.AdminStub]:
        async with open_channel(self.address) as channel:
            yield admin_pb2_grpc.AdminStub(channel)


def spec(name: str, memory_bytes: int = 16 * MIB) -> common_pb2.VmSpec:
    value = VmSpec(name, memory_bytes, resolve("idle", memory_bytes), FillSpec(Fill.ZERO))
    return to_proto(value, common_pb2.VmSpec)


async def create(admin: admin_pb2_grpc.AdminStub, name: str, node: str = "") -> admin_pb2.Vm:
    request = admin_pb2.CreateVmRequest(spec=spec(name), node=node)
    return await admin.CreateVm(request, timeout=PATIENCE_S, wait_for_ready=True)


async def show(admin: admin_pb2_grpc.AdminStub, name: str) -> admin_pb2.Vm:
    request = admin_pb2.ListVmsRequest(name=name)
    return (await admin.ListVms(request, timeout=PATIENCE_S, wait_for_ready=True)).vms[0]


async def nodes(admin: admin_pb2_grpc.AdminStub) -> dict[str, str]:
    """Node -> state."""
    request = admin_pb2.ListNodesRequest()
    answer = await admin.ListNodes(request, timeout=PATIENCE_S, wait_for_ready=True)
    return {node.name: node.state for node in answer.nodes}


async def refusal(call: "grpc.aio.Call") -> Refusal:
    """The refusal that a call ends with."""
    try:
        async for _ in call if hasattr(call, "__aiter__") else _awaited(call):
            pass
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError("the call was not refused")


async def _awaited(call: "grpc.aio.Call") -> AsyncIterator[object]:
    yield await call  # type: ignore[misc]  # unary calls can be awaited, which their common type does not say
