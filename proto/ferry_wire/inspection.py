"""What ``ferry cluster validate`` asks of a process: what it says about itself, and whom it reaches.

Agents and the coordinator serve it. A path is measured with health checks, which every server of the product
answers, the witness's too.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from grpc_health.v1 import health_pb2, health_pb2_grpc

from ferry.v1 import inspection_pb2, inspection_pb2_grpc
from ferry_types.errors import FerryError, malformed
from ferry_types.inspection import (
    ClusterReport,
    DirectoryReport,
    HostReport,
    MachineReport,
    PathReport,
    ReachQuery,
    ReachReport,
    SelfReport,
)
from ferry_types.limits import PAGE_SIZE
from ferry_wire.addresses import parse_address
from ferry_wire.channels import open_channel
from ferry_wire.conversion import from_proto, to_proto
from ferry_wire.status import answered

if TYPE_CHECKING:
    import grpc.aio

PATHS_AT_A_TIME: Final = 8
"""Addresses that one request measures at a time; more would measure each other."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_MEMORY: Final = Path("/proc/meminfo")


class InspectionServicer(inspection_pb2_grpc.InspectionServicer):
    """Implements ``ferry.v1.Inspection``. Needs a running event loop.

    ``listening``: addresses as bound. ``clock_offset_s`` is added to the wall clock that it tells.
    """

    def __init__(
        self,
        directory: Path,
        listening: tuple[str, ...],
        *,
        host: HostReport | None = None,
        cluster: ClusterReport | None = None,
        clock_offset_s: float = 0.0,
    ) -> None:
        self._directory = directory
        self._listening = listening
        self._host = host
        self._cluster = cluster
        self._clock_offset_us = round(clock_offset_s * 1e6)
        self._measuring = asyncio.Lock()

    async def Inspect(
        self, _request: inspection_pb2.InspectQuery, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> inspection_pb2.SelfReport:
        """What this process says about itself."""
        directory = await asyncio.to_thread(look_at_directory, self._directory)
        machine = look_at_machine()
        report = SelfReport(
            version=version("hyperferry"),
            time_us=time.time_ns() // 1000 + self._clock_offset_us,
            machine=machine,
            directory=directory,
            listening=self._listening,
            host=self._host,
            cluster=self._cluster,
        )
        return to_proto(report, inspection_pb2.SelfReport)

    async def Reach(
        self, request: inspection_pb2.ReachQuery, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> inspection_pb2.ReachReport:
        """Measure the paths to the addresses that are named. Raises FerryError: they are out of bounds."""
        query = from_proto(request, ReachQuery)
        try:
            query.validate()
        except ValueError as error:
            raise FerryError(malformed(str(error))) from error
        for address in query.addresses:
            if parse_address(address).is_wildcard:
                raise FerryError(malformed(f"nobody can connect to {address}", "give one machine's address"))
        room = asyncio.Semaphore(PATHS_AT_A_TIME)

        async def bounded(address: str) -> PathReport:
            async with room:
                return await measure_path(address, query.probes, query.patience_s)

        async with self._measuring:
            paths = await asyncio.gather(*map(bounded, query.addresses))
        return to_proto(ReachReport(tuple(paths)), inspection_pb2.ReachReport)


async def measure_path(address: str, probes: int, patience_s: float) -> PathReport:
    """Round trips to ``host:port`` over a new connection, whose making is not part of the figures."""
    deadline = time.monotonic() + patience_s
    try:
        async with open_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)  # typed for synchronous channels

            async def round_trip_s() -> float:
                began = time.monotonic()
                call: Awaitable[health_pb2.HealthCheckResponse] = stub.Check(
                    health_pb2.HealthCheckRequest(), timeout=max(deadline - began, 0.0)
                )
                await answered(call, address)
                return time.monotonic() - began

            await round_trip_s()
            trips_s = [await round_trip_s() for _ in range(probes)]
    except FerryError as error:
        return PathReport(address, 0.0, 0.0, error.refusal.message)
    return PathReport(address, statistics.median(trips_s), max(trips_s), "")


def look_at_directory(path: Path) -> DirectoryReport:
    """Write a page into a directory, durably, under no name: nothing is left behind."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(bytes(PAGE_SIZE))
            file.flush()
            os.fsync(file.fileno())
        taken_s = time.monotonic() - began
        room = os.statvfs(path)
    except OSError as error:
        return DirectoryReport(str(path), 0, 0.0, error.strerror or str(error))
    return DirectoryReport(str(path), room.f_bavail * room.f_frsize, taken_s, "")


def look_at_machine() -> MachineReport:
    """The machine that this process runs on, by its kernel's own figures."""
    figures = {}
    for line in _MEMORY.read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        figures[name] = rest
    kib = {name: int(figures[name].split()[0]) for name in ("MemTotal", "MemAvailable")}
    boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
    return MachineReport(boot_id, kib["MemTotal"] * 2**10, kib["MemAvailable"] * 2**10)
