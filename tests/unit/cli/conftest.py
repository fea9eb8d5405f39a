"""A coordinator that says what a test tells it to, and the ``ferry`` command as a process of its own."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ferry.v1 import admin_pb2, common_pb2, events_pb2
from ferry.v1.admin_pb2_grpc import AdminServicer, add_AdminServicer_to_server
from ferry_types.errors import FerryError, not_found
from ferry_types.migrations import ENDED
from ferry_types.roles import NO_RULES
from ferry_wire.conversion import to_proto
from ferry_wire.servers import create_server

FERRY = (sys.executable, "-c", "from ferry_cli.main import main; main()")


@dataclass
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


def make_vm(name: str = "a", state: str = "running", **fields: Any) -> admin_pb2.Vm:
    workload = common_pb2.WorkloadSpec(profile="idle", access="uniform")
    fill = common_pb2.FillSpec(kind="zero")
    spec = common_pb2.VmSpec(name=name, memory_bytes=2**24, workload=workload, fill=fill, priority="medium")
    where = {} if state == "off" else {"node": "n1", "epoch": 1}
    rules = to_proto(NO_RULES, common_pb2.RoleRules)
    return admin_pb2.Vm(**{"spec": spec, "state": state, "rules": rules, **where, **fields})


def make_move(state: str, **fields: Any) -> admin_pb2.MigrationStatus:
    options = common_pb2.MigrationOptions(type="live", option="tcpip", pass_limit=10)
    record = admin_pb2.MigrationRecord(
        id="m1", vm="a", source="n1", target="n2", options=options, state=state, memory_bytes=2**24, **fields
    )
    return admin_pb2.MigrationStatus(record=record, pass_index=int(state == "copying"))


@dataclass
class FakeCoordinator(AdminServicer):
    """Answers from lists; ``refusals`` by method name; keeps every request that changes something."""

    nodes: list[admin_pb2.Node] = field(default_factory=list)
    vms: list[admin_pb2.Vm] = field(default_factory=list)
    moves: list[admin_pb2.MigrationStatus] = field(default_factory=list)
    events: list[events_pb2.Event] = field(default_factory=list)
    refusals: dict[str, FerryError] = field(default_factory=dict)
    networks: list[admin_pb2.NetworkStatus] = field(default_factory=list)
    quorum: admin_pb2.Quorum = field(default_factory=admin_pb2.Quorum)
    summary: admin_pb2.Cluster = field(default_factory=admin_pb2.Cluster)
    plan: admin_pb2.DrainPlan = field(default_factory=admin_pb2.DrainPlan)
    ratings: list[admin_pb2.HostRating] = field(default_factory=list)
    drains: list[admin_pb2.Node] = field(default_factory=list)
    """What a node looks like at each look while it is drained; the last one stays."""
    requests: list[Any] = field(default_factory=list)
    more: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""

    def _note(self, method: str, request: Any) -> None:
        self.requests.append(request)
        if method in self.refusals:
            raise self.refusals[method]

    def _vm(self, name: str) -> admin_pb2.Vm:
        for vm in self.vms:
            if vm.spec.name == name:
                return vm
        raise FerryError(not_found(f"there is no VM {name}"))

    async def ListNodes(self, request: Any, context: Any) -> admin_pb2.NodeList:
        self._note("ListNodes", request)
        if self.drains:
            return admin_pb2.NodeList(nodes=[self.drains.pop(0) if len(self.drains) > 1 else self.drains[0]])
        return admin_pb2.NodeList(nodes=[node for node in self.nodes if request.name in ("", node.name)])

    def _node(self, name: str) -> admin_pb2.Node:
        return next(node for node in self.nodes if node.name == name)

    async def EvictNode(self, request: Any, context: Any) -> admin_pb2.Node:
        self._note("EvictNode", request)
        return self._node(request.name)

    async def PauseNode(self, request: Any, context: Any) -> admin_pb2.Node:
        self._note("PauseNode", request)
        return self._node(request.name)

    async def DrainNode(self, request: Any, context: Any) -> admin_pb2.Node:
        self._note("DrainNode", request)
        return self._node(request.name)

    async def PlanDrain(self, request: Any, context: Any) -> admin_pb2.DrainPlan:
        self._note("PlanDrain", request)
        return self.plan

    async def ResumeNode(self, request: Any, context: Any) -> admin_pb2.Node:
        self._note("ResumeNode", request)
        return self._node(request.name)

    async def ShowCluster(self, request: Any, context: Any) -> admin_pb2.Cluster:
        self._note("ShowCluster", request)
        return self.summary

    async def SetCluster(self, request: Any, context: Any) -> admin_pb2.Cluster:
        self._note("SetCluster", request)
        return self.summary

    async def ListVms(self, request: Any, context: Any) -> admin_pb2.VmList:
        self._note("ListVms", request)
        return admin_pb2.VmList(vms=[self._vm(request.name)] if request.name else self.vms)

    async def CreateVm(self, request: Any, context: Any) -> admin_pb2.Vm:
        self._note("CreateVm", request)
        return admin_pb2.Vm(spec=request.spec, state="running", node="n1", epoch=1)

    async def SetVm(self, request: Any, context: Any) -> admin_pb2.Vm:
        self._note("SetVm", request)
        return self._vm(request.vm)

    async def RateHosts(self, request: Any, context: Any) -> admin_pb2.HostRatingList:
        self._note("RateHosts", request)
        return admin_pb2.HostRatingList(ratings=self.ratings)

    async def StartVm(self, request: Any, context: Any) -> admin_pb2.Vm:
        self._note("StartVm", request)
        return self._vm(request.name)

    async def StopVm(self, request: Any, context: Any) -> admin_pb2.Vm:
        self._note("StopVm", request)
        return self._vm(request.name)

    async def RemoveVm(self, request: Any, context: Any) -> admin_pb2.Vm:
        self._note("RemoveVm", request)
        return self._vm(request.name)

    async def WatchVm(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.Vm]:
        yield self._vm(request.name)
        await self.more.wait()
        yield self._vm(request.name)
        await asyncio.Event().wait()

    async def MigrateVm(self, request: Any, context: Any) -> admin_pb2.MigrationRecord:
        self._note("MigrateVm", request)
        return make_move("queued").record

    async def ListMigrations(self, request: Any, context: Any) -> admin_pb2.MigrationList:
        self._note("ListMigrations", request)
        return admin_pb2.MigrationList(migrations=[move.record for move in self.moves[-1:]])

    async def WatchMigration(self, request: Any, context: Any) -> AsyncIterator[admin_pb2.MigrationStatus]:
        self._note("WatchMigration", request)
        for move in self.moves:
            yield move
        if self.moves[-1].record.state not in ENDED:
            await asyncio.Event().wait()

    async def CancelMigration(self, request: Any, context: Any) -> admin_pb2.MigrationRecord:
        self._note("CancelMigration", request)
        return make_move("cancelled").record

    async def ListEvents(self, request: Any, context: Any) -> admin_pb2.EventList:
        self._note("ListEvents", request)
        return admin_pb2.EventList(events=self.events)

    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[events_pb2.Event]:
        self._note("WatchEvents", request)
        for event in self.events:
            if event.id > request.after_id:
                yield event
        await asyncio.Event().wait()

    async def ListNetworks(self, request: Any, context: Any) -> admin_pb2.NetworkList:
        self._note("ListNetworks", request)
        chosen = [network for network in self.networks if request.name in ("", network.name)]
        return admin_pb2.NetworkList(networks=chosen)

    async def ShowQuorum(self, request: Any, context: Any) -> admin_pb2.Quorum:
        self._note("ShowQuorum", request)
        return self.quorum

    async def SetQuorum(self, request: Any, context: Any) -> admin_pb2.Quorum:
        self._note("SetQuorum", request)
        return self.quorum

    async def RoundTrip(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for probe in request:
            yield probe


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCoordinator]:
    fake = FakeCoordinator()
    server = create_server("127.0.0.1:0", (admin_pb2.DESCRIPTOR,))
    add_AdminServicer_to_server(fake, server.grpc)
    await server.start()
    fake.address = server.address
    yield fake
    await server.stop(grace_s=0)


@dataclass
class Ferry:
    """Runs commands with an environment of their own."""

    environment: dict[str, str]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *FERRY,
            *arguments,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str) -> Ran:
        return await finish(await self.start(*arguments))


async def finish(process: asyncio.subprocess.Process) -> Ran:
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture
def isolated(tmp_path: Path) -> Ferry:
    """The command where there is no lab and no setting."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FERRY_")}
    return Ferry({**kept, "XDG_STATE_HOME": str(tmp_path)})


@pytest.fixture
def ferry(isolated: Ferry, cluster: FakeCoordinator) -> Ferry:
    """The command, aimed at the scripted coordinator."""
    return Ferry({**isolated.environment, "FERRY_COORDINATOR": cluster.address})


@pytest.fixture
def vm() -> Callable[..., admin_pb2.Vm]:
    return make_vm


@pytest.fixture
def move() -> Callable[..., admin_pb2.MigrationStatus]:
    return make_move


@pytest.fixture
def command() -> Sequence[str]:
    return FERRY
