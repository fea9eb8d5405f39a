"""What a move would take: the host that holds the VM is asked, because it has measured its guest."""

import grpc.aio

from ferry.v1 import admin_pb2, common_pb2, host_pb2
from ferry.v1.host_pb2_grpc import HostStub
from ferry_cluster.cluster import Cluster
from ferry_cluster.records import MigrationRecord
from ferry_coordinator.driver import Driver
from ferry_types.errors import FerryError
from ferry_wire.channels import open_channel
from ferry_wire.conversion import to_proto
from ferry_wire.status import refusal_of

ANSWER_S = 3.0
"""Deadline of the host's answer; a plan without an estimate is a plan."""


async def add_estimate(plan: admin_pb2.MigrationRecord, planned: MigrationRecord, driver: Driver) -> None:
    """Put into the answer to a dry run what the move would take, or in words why that is not known."""
    wire = await driver.read(
        lambda cluster: cluster.wire_figures(planned.source, planned.target, planned.options.option)
    )
    if wire is None:
        plan.estimate_reason = (
            f"no move between {planned.source} and {planned.target} has shown yet what the wire carries"
        )
        return
    address = await driver.read(lambda cluster: _address(cluster, planned.source))
    request = host_pb2.EstimateRequest(
        vm=planned.vm, options=plan.options, wire=to_proto(wire, common_pb2.WireFigures)
    )
    try:
        async with open_channel(address) as channel:
            plan.estimate.CopyFrom(await HostStub(channel).EstimateMove(request, timeout=ANSWER_S))
    except grpc.aio.AioRpcError as error:
        plan.estimate_reason = refusal_of(error, address).message
    except FerryError as error:  # its address is not well formed
        plan.estimate_reason = error.refusal.message


def _address(cluster: Cluster, node: str) -> str:
    return cluster.node_view(node).address
