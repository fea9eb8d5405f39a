"""Asks the coordinator and all nodes, at once and with deadlines.

The coordinator must answer; a node that does not is a fact like any other.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ferry.v1 import admin_pb2, inspection_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry.v1.inspection_pb2_grpc import InspectionStub
from ferry_cli import admin
from ferry_cli.echo import EchoClient
from ferry_cli.validation.facts import (
    COORDINATOR,
    WITNESS,
    EchoFacts,
    EventFacts,
    Facts,
    NodeFacts,
    PathFacts,
    ProcessFacts,
    QuorumFacts,
    VmFacts,
)
from ferry_types.errors import FerryError, failed
from ferry_types.events import Level
from ferry_types.inspection import ClusterReport, ReachQuery, ReachReport, SelfReport
from ferry_types.vms import Capacity, NodeState, VmState
from ferry_wire.channels import open_channel
from ferry_wire.conversion import from_proto, to_proto
from ferry_wire.status import SAME_VERSION, answered

INSPECT_S: Final = 3.0
"""Deadline of asking a process about itself, connecting included."""

READINGS: Final = 2
"""Times that a process is asked: the first has to connect, and a shorter round trip tells a clock better."""

REACH_PROBES: Final = 5
REACH_PATIENCE_S: Final = 2.0
"""What one address gets; a connection over the slowest path that leases bear takes less."""

REACH_S: Final = 25.0
"""Deadline of a node's measuring: 66 addresses, eight at a time, none of which answers, take 18 s."""

PROCESSES_AT_A_TIME: Final = 16
SOURCES_AT_A_TIME: Final = 4
"""Nodes that measure at a time; more would measure each other's load."""

ECHO_REQUESTS: Final = 3
ECHO_INTERVAL_S: Final = 0.1

EVENTS_SPAN_S: Final = 3600.0
"""How far back critical events count."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A process about itself. ``wall_less_monotonic_s``: its wall clock less our monotonic one."""

    report: SelfReport
    wall_less_monotonic_s: float
    uncertainty_s: float


@dataclass(frozen=True, slots=True)
class Cluster:
    """The coordinator, once it has answered."""

    address: str
    reading: Reading
    report: ClusterReport


async def find_cluster(address: str) -> Cluster:
    """Ask the coordinator who it is. Raises FerryError if it does not answer, or is none."""
    reading = await _inspect(address)
    if reading.report.cluster is None:
        raise FerryError(failed(f"no coordinator answers at {address}, but another process", SAME_VERSION))
    return Cluster(address, reading, reading.report.cluster)


async def gather(cluster: Cluster) -> Facts:
    """Ask everybody. Raises FerryError if the coordinator stops answering."""
    since_us = cluster.reading.report.time_us - round(EVENTS_SPAN_S * 1e6)
    async with admin.connect(cluster.address) as stub:
        nodes, vms, quorum, events = await asyncio.gather(
            _nodes(stub, cluster),
            stub.ListVms(admin_pb2.ListVmsRequest(), timeout=admin.LOOK_S),
            stub.ShowQuorum(admin_pb2.QuorumQuery(), timeout=admin.LOOK_S),
            stub.ListEvents(admin_pb2.EventQuery(since_us=since_us), timeout=admin.LOOK_S),
        )
    (paths, unmeasured), echoes = await asyncio.gather(
        _paths(cluster, nodes, quorum.witness), _echoes(nodes, vms.vms)
    )
    return Facts(
        cluster=cluster.report,
        coordinator=ProcessFacts(COORDINATOR, cluster.address, cluster.reading.report),
        nodes=nodes,
        vms=tuple(VmFacts(vm.spec.name, vm.state, vm.node, vm.spec.memory_bytes) for vm in vms.vms),
        paths=paths,
        echoes=echoes,
        quorum=_quorum(quorum),
        critical_events=tuple(
            EventFacts(event.time_us, event.message)
            for event in events.events
            if event.level == Level.CRITICAL
        ),
        unmeasured=unmeasured,
    )


# --- processes about themselves -------------------------------------------------------------------


async def _inspect(address: str) -> Reading:
    """The reading of the shortest round trip. Raises FerryError."""
    deadline = time.monotonic() + INSPECT_S
    best: Reading | None = None
    async with open_channel(address) as channel:
        stub = InspectionStub(channel)
        for _ in range(READINGS):
            began = time.monotonic()
            call = stub.Inspect(inspection_pb2.InspectQuery(), timeout=max(deadline - began, 0.0))
            report = from_proto(await answered(call, address), SelfReport)
            half_s = (time.monotonic() - began) / 2
            if best is None or half_s < best.uncertainty_s:
                best = Reading(report, report.time_us / 1e6 - (began + half_s), half_s)
    assert best is not None
    return best


async def _nodes(stub: AdminStub, cluster: Cluster) -> tuple[NodeFacts, ...]:
    listed = await stub.ListNodes(admin_pb2.ListNodesRequest(), timeout=admin.LOOK_S)
    room = asyncio.Semaphore(PROCESSES_AT_A_TIME)

    async def ask(node: admin_pb2.Node) -> NodeFacts:
        async with room:
            return _node(node, await _process(node, cluster.reading))

    return tuple(await asyncio.gather(*map(ask, listed.nodes)))


async def _process(node: admin_pb2.Node, coordinator: Reading) -> ProcessFacts:
    if not node.address:
        return ProcessFacts(node.name, "", None, problem="the cluster knows no address of it")
    try:
        reading = await _inspect(node.address)
    except FerryError as error:
        return ProcessFacts(node.name, node.address, None, problem=error.refusal.message)
    return ProcessFacts(
        node.name,
        node.address,
        reading.report,
        ahead_s=reading.wall_less_monotonic_s - coordinator.wall_less_monotonic_s,
        uncertainty_s=reading.uncertainty_s + coordinator.uncertainty_s,
    )


def _node(node: admin_pb2.Node, process: ProcessFacts) -> NodeFacts:
    return NodeFacts(
        name=node.name,
        state=node.state,
        reason=node.reason,
        address=node.address,
        echo_address=node.echo_address,
        recorded_version=node.version,
        recorded_capacity=from_proto(node.capacity, Capacity),
        used_bytes=node.memory_used_bytes,
        process=process,
    )


def _quorum(quorum: admin_pb2.Quorum) -> QuorumFacts:
    return QuorumFacts(
        witness=quorum.witness,
        witness_state=next((vote.state for vote in quorum.votes if vote.kind == "witness"), ""),
        dynamic=quorum.dynamic,
        forced=quorum.forced,
        nodes=sum(vote.kind == "node" for vote in quorum.votes),
        votes=sum(vote.has_vote for vote in quorum.votes),
        majority=quorum.majority,
        reason=quorum.reason,
    )


# --- paths ----------------------------------------------------------------------------------------


async def _paths(
    cluster: Cluster, nodes: Iterable[NodeFacts], witness: str
) -> tuple[tuple[PathFacts, ...], tuple[tuple[str, str], ...]]:
    """All paths that could be measured, and who could not measure theirs, and why.

    A node that is down and does not answer is no end of a path: that it is away is told once.
    """
    ends = [node for node in nodes if node.process.report is not None or node.state != NodeState.DOWN]
    addresses = {node.name: node.address for node in ends if node.address}
    voter = {WITNESS: witness} if witness else {}
    routes = [(COORDINATOR, cluster.address, addresses | voter)]
    for node in ends:
        report = node.process.report
        if report is not None and report.host is not None:
            others = {name: address for name, address in addresses.items() if name != node.name}
            routes.append((node.name, node.address, others | {COORDINATOR: report.host.coordinator} | voter))
    room = asyncio.Semaphore(SOURCES_AT_A_TIME)
    unmeasured: list[tuple[str, str]] = []

    async def measure(source: str, address: str, targets: dict[str, str]) -> list[PathFacts]:
        try:
            async with room:
                return await _measure(source, address, targets)
        except FerryError as error:
            unmeasured.append((source, error.refusal.message))
            return []

    measured = await asyncio.gather(*(measure(*route) for route in routes))
    return tuple(path for paths in measured for path in paths), tuple(unmeasured)


async def _measure(source: str, address: str, targets: dict[str, str]) -> list[PathFacts]:
    """The paths from one process. Raises FerryError if it does not answer."""
    query = ReachQuery(tuple(targets.values()), REACH_PROBES, REACH_PATIENCE_S)
    async with open_channel(address) as channel:
        call = InspectionStub(channel).Reach(to_proto(query, inspection_pb2.ReachQuery), timeout=REACH_S)
        report = from_proto(await answered(call, address), ReachReport)
    if len(report.paths) != len(targets):
        raise FerryError(failed(f"{address} measured other paths than it was asked for", SAME_VERSION))
    return [
        PathFacts(source, target, path.address, path.median_s, path.worst_s, path.problem)
        for target, path in zip(targets, report.paths, strict=True)
    ]


# --- guests ---------------------------------------------------------------------------------------


async def _echoes(nodes: Iterable[NodeFacts], vms: Iterable[admin_pb2.Vm]) -> tuple[EchoFacts, ...]:
    """Ask one running guest of each node."""
    first = {vm.node: vm for vm in vms if vm.state == VmState.RUNNING and vm.echo_address}
    chosen = [first[node.name] for node in nodes if node.name in first]
    return tuple(await asyncio.gather(*map(_echo, chosen)))


async def _echo(vm: admin_pb2.Vm) -> EchoFacts:
    async with EchoClient(vm.spec.name) as client:
        try:
            await client.aim(vm.echo_address)
            await client.ping(ECHO_REQUESTS, ECHO_INTERVAL_S)
        except (FerryError, OSError):
            pass  # that nobody was heard says it
        return EchoFacts(vm.spec.name, vm.node, vm.echo_address, client.books.received > 0)
