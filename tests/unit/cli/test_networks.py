"""``ferry network`` and ``ferry nic``: what is printed, and whom they ask."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.cli.conftest import FakeCoordinator, Ferry
from tests.unit.cli.test_audit import FakeHost

from ferry.v1 import admin_pb2, common_pb2, host_pb2
from ferry.v1.host_pb2_grpc import add_HostServicer_to_server
from ferry_types.errors import FerryError, not_found
from ferry_wire.servers import create_server

NIC = common_pb2.Nic(
    name="live",
    network="migration",
    address="10.0.1.5",
    rate_bytes_per_s=1_250_000_000,
    latency_s=0.00005,
    mtu=9000,
    rdma=True,
)
PULLED = "an administrator has taken it down"
NETWORKS = [
    admin_pb2.NetworkStatus(
        name="migration",
        role="migration",
        metric=20_640,
        auto_metric=True,
        state="partitioned",
        mtu=9000,
        carries=["migration"],
        nics=[
            admin_pb2.NicStatus(node="n1", nic=NIC, state="down", reason=PULLED),
            admin_pb2.NicStatus(node="n2", nic=common_pb2.Nic(name="x", mtu=9000), state="up"),
        ],
        reason="down: live of n1",
    ),
    admin_pb2.NetworkStatus(name="clients", role="client", metric=7, subnet="10.0.0.0/24", state="up"),
]
NIC_VIEW = {
    "node": "n1",
    "name": "live",
    "network": "migration",
    "address": "10.0.1.5",
    "rate_bytes_per_s": 1_250_000_000,
    "latency_s": 0.00005,
    "mtu": 9000,
    "rdma": True,
    "team": None,
    "state": "down",
    "reason": PULLED,
}


class WiredHost(FakeHost):
    """Turns the NIC ``live``."""

    async def TurnNic(self, request: Any, context: Any) -> host_pb2.HostNic:
        if request.nic != "live":
            raise FerryError(not_found(f"this host has no NIC {request.nic}"))
        state = "up" if request.up else "down"
        return host_pb2.HostNic(
            nic=NIC, state=state, reason="" if request.up else PULLED, cut_off=not request.up
        )


@pytest.fixture
async def host(cluster: FakeCoordinator) -> AsyncIterator[None]:
    server = create_server("127.0.0.1:0", (host_pb2.DESCRIPTOR,))
    add_HostServicer_to_server(WiredHost(), server.grpc)
    await server.start()
    cluster.nodes = [admin_pb2.Node(name="n1", state="isolated", address=server.address)]
    yield
    await server.stop(grace_s=0)


async def test_networks_are_listed_and_shown(ferry: Ferry, cluster: FakeCoordinator) -> None:
    cluster.networks = NETWORKS
    listed = (await ferry("network", "list", "-o", "json")).document
    assert [network["name"] for network in listed] == ["migration", "clients"]
    assert listed[0]["nics"][0] == NIC_VIEW
    assert {key: value for key, value in listed[0].items() if key != "nics"} == {
        "name": "migration",
        "role": "migration",
        "metric": 20_640,
        "auto_metric": True,
        "subnet": None,
        "state": "partitioned",
        "mtu": 9000,
        "carries": ["migration"],
        "reason": "down: live of n1",
    }
    assert (await ferry("network", "show", "clients", "-o", "json")).document == listed[1]
    table = (await ferry("network", "list")).out
    assert "20640 (automatic)" in table
    shown = (await ferry("network", "show", "migration")).out
    assert "10 Gbit/s" in shown
    assert "50 us" in shown
    ran = await ferry("network", "show", "nope", "-o", "json")
    assert (ran.code, ran.document["error"]["code"]) == (4, "not_found")


async def test_a_nic_is_turned_at_its_host_also_when_that_is_isolated(ferry: Ferry, host: None) -> None:
    down = await ferry("nic", "down", "n1", "live", "-o", "json")
    assert (down.code, down.document) == (0, {**NIC_VIEW, "cut_off": True})
    assert "n1 is cut off from the cluster" in down.err
    up = await ferry("nic", "up", "n1", "live")
    assert (up.code, up.out) == (0, "NIC live of n1 on network migration is up\n")
    assert (await ferry("nic", "up", "n1", "beat")).code == 4
    assert (await ferry("nic", "up", "n9", "live")).code == 4
