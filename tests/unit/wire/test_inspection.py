"""What a process says about itself, and how it measures paths to others, over real sockets."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from ferry.v1 import inspection_pb2, inspection_pb2_grpc
from ferry_types.errors import ErrorCode
from ferry_types.inspection import REACH_ADDRESSES_MAX, HostReport, PathReport, ReachReport, SelfReport
from ferry_types.vms import Capacity
from ferry_wire.channels import open_channel
from ferry_wire.conversion import from_proto
from ferry_wire.inspection import InspectionServicer, look_at_directory
from ferry_wire.servers import create_server
from ferry_wire.status import refusal_of

HOST = HostReport("n1", Capacity(2**30, 4, 2), "10.0.0.9:7000")


@asynccontextmanager
async def serving(
    directory: Path, clock_offset_s: float = 0.0
) -> AsyncIterator[tuple[str, inspection_pb2_grpc.InspectionStub]]:
    server = create_server("127.0.0.1:0", (inspection_pb2.DESCRIPTOR,))
    servicer = InspectionServicer(directory, (server.address,), host=HOST, clock_offset_s=clock_offset_s)
    inspection_pb2_grpc.add_InspectionServicer_to_server(servicer, server.grpc)
    await server.start()
    try:
        async with open_channel(server.address) as channel:
            yield server.address, inspection_pb2_grpc.InspectionStub(channel)
    finally:
        await server.stop(0)


async def measured(stub: inspection_pb2_grpc.InspectionStub, *addresses: str) -> tuple[PathReport, ...]:
    query = inspection_pb2.ReachQuery(addresses=addresses, probes=3, patience_s=1.0)
    return from_proto(await stub.Reach(query, timeout=10), ReachReport).paths


async def test_a_process_tells_of_its_machine_its_directory_and_its_clock(tmp_path: Path) -> None:
    async with serving(tmp_path) as (address, stub):
        report = from_proto(await stub.Inspect(inspection_pb2.InspectQuery(), timeout=5), SelfReport)
    assert (report.host, report.cluster, report.listening) == (HOST, None, (address,))
    assert 0 < report.machine.available_bytes <= report.machine.memory_bytes
    assert report.machine.boot_id
    assert (report.directory.path, report.directory.problem) == (str(tmp_path), "")
    assert report.directory.free_bytes > 0
    assert report.directory.write_s > 0
    assert abs(report.time_us / 1e6 - time.time()) < 5


@pytest.mark.parametrize("offset_s", [3600.0, -3600.0])
async def test_a_clock_may_play_to_be_off(tmp_path: Path, offset_s: float) -> None:
    async with serving(tmp_path, offset_s) as (_, stub):
        report = await stub.Inspect(inspection_pb2.InspectQuery(), timeout=5)
    assert abs(report.time_us / 1e6 - time.time() - offset_s) < 5


def test_a_look_at_a_directory_leaves_nothing_behind(tmp_path: Path) -> None:
    assert look_at_directory(tmp_path).problem == ""
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert look_at_directory(tmp_path / "gone").problem == "No such file or directory"


async def test_paths_are_measured_in_the_order_of_the_addresses(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and says nothing
        mute = f"127.0.0.1:{silent.getsockname()[1]}"
        async with serving(tmp_path) as (address, stub):
            began = time.monotonic()
            nobody, itself, nothing = await measured(stub, "127.0.0.1:1", address, mute)
            assert time.monotonic() - began < 3
    assert (nobody.address, itself.address, nothing.address) == ("127.0.0.1:1", address, mute)
    assert "cannot be reached" in nobody.problem
    assert itself.problem == ""
    assert 0 < itself.median_s <= itself.worst_s < 1
    assert nothing.problem


@pytest.mark.parametrize(
    "query",
    [
        {"addresses": ["127.0.0.1:1"] * (REACH_ADDRESSES_MAX + 1), "probes": 1, "patience_s": 1.0},
        {"addresses": ["127.0.0.1:1"], "probes": 0, "patience_s": 1.0},
        {"addresses": ["127.0.0.1:1"], "probes": 21, "patience_s": 1.0},
        {"addresses": ["127.0.0.1:1"], "probes": 1, "patience_s": 0.0},
        {"addresses": ["127.0.0.1:1"], "probes": 1, "patience_s": 6.0},
        {"addresses": ["127.0.0.1:1"], "probes": 1, "patience_s": float("nan")},
        {"addresses": ["127.0.0.1:0"], "probes": 1, "patience_s": 1.0},
        {"addresses": ["0.0.0.0:7000"], "probes": 1, "patience_s": 1.0},
        {"addresses": ["unix:/run/socket"], "probes": 1, "patience_s": 1.0},
    ],
)
async def test_what_is_out_of_bounds_is_refused(tmp_path: Path, query: dict[str, object]) -> None:
    async with serving(tmp_path) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Reach(inspection_pb2.ReachQuery(**query), timeout=5)  # type: ignore[arg-type] # by name
    assert refusal_of(raised.value).code is ErrorCode.MALFORMED
