"""A lab from a topology file: which way moves go, what a cut cable does, and how it is mended."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_cli_lab import LabRunner

from ferry.v1 import admin_pb2, common_pb2, host_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli.admin import LOOK_S, connect, connect_host
from ferry_types.migrations import ENDED, MigrationOptions
from ferry_wire.conversion import to_proto

EXAMPLE = Path(__file__).parents[1] / "topologies" / "annotated-example.yaml"
DEADLINE_S = 20.0

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[LabRunner]:
    runner = LabRunner(tmp_path / "lab")
    yield runner
    code, _, err = await runner.run("lab", "down")
    assert code == 0, err


async def eventually(look: Callable[[], Awaitable[Any]], what: str) -> Any:
    end_s = time.monotonic() + DEADLINE_S
    while not (value := await look()):
        assert time.monotonic() < end_s, f"{what} did not come true within {DEADLINE_S} s"
        await asyncio.sleep(0.05)
    return value


def connections(host: str) -> int:
    """TCP connections to an IPv4 address, whatever the port, that this machine has established."""
    wanted = "".join(f"{int(byte):02X}" for byte in reversed(host.split("."))) + ":"
    rows = [  # gRPC's sockets are of IPv6, which IPv4 addresses are mapped into
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
    ]
    return sum(wanted in row[2] and row[3] == "01" for row in rows)


class Admin:
    """An administrator of the lab's cluster."""

    def __init__(self, stub: AdminStub, addresses: dict[str, str]) -> None:
        self.stub = stub
        self.addresses = addresses

    async def networks(self) -> dict[str, admin_pb2.NetworkStatus]:
        answer = await self.stub.ListNetworks(admin_pb2.ListNetworksRequest(), timeout=LOOK_S)
        return {network.name: network for network in answer.networks}

    async def turn(self, node: str, *nics: str, up: bool) -> host_pb2.HostNic:
        """Turn NICs at their host; returns what it says of the last."""
        async with connect_host(self.addresses[node]) as host:
            requests = [host_pb2.TurnNicRequest(nic=nic, up=up) for nic in nics]
            return [await host.TurnNic(request, timeout=LOOK_S) for request in requests][-1]

    async def sees(self, node: str, nic: str, state: str) -> None:
        async def look() -> bool:
            every = [status for network in (await self.networks()).values() for status in network.nics]
            return any((each.node, each.nic.name, each.state) == (node, nic, state) for each in every)

        await eventually(look, f"{nic} of {node} {state}")

    async def node_is(self, node: str, state: str) -> None:
        async def look() -> bool:
            answer = await self.stub.ListNodes(admin_pb2.ListNodesRequest(name=node), timeout=LOOK_S)
            return answer.nodes[0].state == state and not (state == "up" and answer.nodes[0].reason)

        await eventually(look, f"{node} {state}")

    async def move(self, vm: str, to: str) -> admin_pb2.MigrationRecord:
        """Move a VM, and wait for the end."""
        options = to_proto(MigrationOptions(verify=True), common_pb2.MigrationOptions)
        request = admin_pb2.MigrateVmRequest(vm=vm, to=to, options=options)
        asked = await self.stub.MigrateVm(request, timeout=LOOK_S)

        async def look() -> admin_pb2.MigrationRecord | None:
            query = admin_pb2.ListMigrationsRequest(id=asked.id)
            (record,) = (await self.stub.ListMigrations(query, timeout=LOOK_S)).migrations
            return record if record.state in ENDED else None

        record: admin_pb2.MigrationRecord = await eventually(look, f"the end of {asked.id}")
        return record

    async def completed(self, vm: str, to: str) -> str:
        """Move a VM; the network that it went over."""
        record = await self.move(vm, to)
        assert record.state == "completed", record.reason
        return record.network


async def test_moves_go_over_the_best_network_that_works_and_a_host_without_any_is_lost(
    lab: LabRunner,
) -> None:
    status = await lab.json("lab", "up", "--topology", str(EXAMPLE), "--failpoints")
    listed = await lab.json("network", "list")
    assert [network["name"] for network in listed] == ["heartbeat", "live", "clients", "san"]
    assert [(nic["node"], nic["address"]) for nic in listed[1]["nics"]] == [
        ("node1", "127.1.200.1"),
        ("node2", "127.1.200.2"),
    ]
    addresses = {node["name"]: node["address"] for node in status["nodes"]}
    async with connect(status["coordinator"]) as stub:
        vms = (await stub.ListVms(admin_pb2.ListVmsRequest(), timeout=LOOK_S)).vms
        assert {vm.spec.name: (vm.state, vm.node) for vm in vms} == {
            "web1": ("running", "node1"),
            "spare": ("off", ""),
        }
        admin = Admin(stub, addresses)
        await _moves_follow_the_cables(lab, admin)
        await _a_host_without_a_cable_is_lost_until_it_is_mended(admin)


async def _moves_follow_the_cables(lab: LabRunner, admin: Admin) -> None:
    async with connect_host(admin.addresses["node1"]) as source:
        hold = host_pb2.Failpoint(name="source.copying", action="hold")
        await source.SetFailpoint(hold, timeout=LOOK_S)
        moving = asyncio.create_task(admin.move("web1", "node2"))

        async def is_held() -> bool:
            points = (await source.ListFailpoints(host_pb2.FailpointQuery(), timeout=LOOK_S)).failpoints
            return any(point.holding for point in points)

        await eventually(is_held, "the move is held")
        assert connections("127.1.200.2") >= 1, "pages; control goes to its own address"
        code, _, err = await lab.run("nic", "down", "node1", "live")
        assert code == 0, err
        ended = await moving
        assert (ended.state, ended.network) == ("failed", "live"), "the source or the target may say it first"
        await source.SetFailpoint(host_pb2.Failpoint(name="source.copying", action="off"), timeout=LOOK_S)
    await admin.sees("node1", "live", "down")
    assert await admin.completed("web1", "node2") == "clients", "heartbeat has the lowest metric: CSV's"
    await admin.turn("node1", "live", up=True)
    await admin.sees("node1", "live", "up")
    assert await admin.completed("web1", "node1") == "live"
    assert await admin.completed("web1", "node2") == "live"


async def _a_host_without_a_cable_is_lost_until_it_is_mended(admin: Admin) -> None:
    turned = await admin.turn("node2", "front", "beat", up=False)
    assert not turned.cut_off
    turned = await admin.turn("node2", "live", up=False)
    assert turned.cut_off, "its NIC for storage carries nothing of the cluster"
    await admin.node_is("node2", "down")

    async def failed_over() -> bool:
        answer = await admin.stub.ListVms(admin_pb2.ListVmsRequest(name="web1"), timeout=LOOK_S)
        return (answer.vms[0].node, answer.vms[0].state) == ("node1", "running")

    await eventually(failed_over, "web1 on node1")
    turned = await admin.turn("node2", "beat", up=True)
    assert not turned.cut_off
    await admin.node_is("node2", "up")
    assert await admin.completed("web1", "node2") == "heartbeat"
