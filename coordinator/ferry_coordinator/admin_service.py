"""The admin API: what people and programs ask of the coordinator.

Handlers raise FerryError; the server turns it into a status (``ferry_wire.status``).
"""

import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from ferry.v1 import admin_pb2, admin_pb2_grpc, events_pb2, host_pb2
from ferry_cluster.cluster import Cluster
from ferry_cluster.inputs import (
    CancelMove,
    CreateVm,
    DrainNode,
    EvictNode,
    MigrateVm,
    PauseNode,
    RemoveVm,
    ResumeNode,
    SetQuorum,
    SetVm,
    TurnOffVm,
    TurnOnVm,
)
from ferry_cluster.records import MigrationRecord
from ferry_cluster.views import MigrationView, VmView
from ferry_coordinator.answers import (
    cluster_answer,
    migration_answer,
    newest_that_fit,
    node_answer,
    plan_answer,
    status_answer,
    vm_answer,
)
from ferry_coordinator.driver import Driver
from ferry_coordinator.estimates import add_estimate
from ferry_coordinator.event_log import follow_events, newest_events
from ferry_coordinator.ports import StateStore
from ferry_coordinator.requests import (
    check_query,
    checked_name,
    checked_policy,
    checked_span,
    checked_target,
    checked_word,
)
from ferry_coordinator.watchers import Watch, Watchers, offer_migration
from ferry_types.drains import Stuck
from ferry_types.migrations import BEST, MigrationOptions
from ferry_types.roles import NO_RULES, RoleChanges, RoleRules
from ferry_types.vms import VmSpec
from ferry_wire.addresses import parse_address
from ferry_wire.conversion import from_proto, to_proto

_TOKEN_BYTES = 16

_Context = grpc.aio.ServicerContext[Any, Any]


class AdminService(admin_pb2_grpc.AdminServicer):
    """Puts requests to the driver and answers with what it shows afterwards."""

    def __init__(self, driver: Driver, watchers: Watchers, store: StateStore) -> None:
        self._driver = driver
        self._watchers = watchers
        self._store = store

    async def ListNodes(self, request: admin_pb2.ListNodesRequest, _context: _Context) -> admin_pb2.NodeList:
        """All nodes, or the named one."""
        name = checked_name(request.name, "node name") if request.name else ""
        views = await self._driver.read(
            lambda cluster: [cluster.node_view(name)] if name else cluster.node_views()
        )
        return admin_pb2.NodeList(nodes=[node_answer(view) for view in views])

    async def ShowCluster(self, _request: admin_pb2.ClusterQuery, _context: _Context) -> admin_pb2.Cluster:
        """The cluster as a whole."""
        return await self._driver.read(cluster_answer)

    async def SetCluster(self, request: admin_pb2.PolicyChange, _context: _Context) -> admin_pb2.Cluster:
        """Choose for the whole cluster."""
        await self._driver.ask(checked_policy(request))
        return await self._driver.read(cluster_answer)

    async def PauseNode(self, request: admin_pb2.NodeRequest, _context: _Context) -> admin_pb2.Node:
        """Let no VM come to a node any more."""
        name = checked_name(request.name, "node name")
        await self._driver.ask(lambda number: PauseNode(number, name))
        return await self._node(name)

    async def DrainNode(self, request: admin_pb2.DrainNodeRequest, _context: _Context) -> admin_pb2.Node:
        """Pause a node and begin to empty it."""
        name, to = checked_name(request.name, "node name"), checked_target(request.to)
        stuck = checked_word(request.stuck, Stuck, "way with VMs that no host can take")
        within_s = checked_span(request.within_s, "deadline") if request.HasField("within_s") else None
        await self._driver.ask(lambda number: DrainNode(number, name, to, within_s, stuck))
        return await self._node(name)

    async def PlanDrain(self, request: admin_pb2.PlanDrainRequest, _context: _Context) -> admin_pb2.DrainPlan:
        """What a drain would do now."""
        name, to = checked_name(request.name, "node name"), checked_target(request.to)
        plan = await self._driver.read(lambda cluster: cluster.drain_plan(name, to))
        return to_proto(plan, admin_pb2.DrainPlan)

    async def ResumeNode(self, request: admin_pb2.ResumeNodeRequest, _context: _Context) -> admin_pb2.Node:
        """Let a node take VMs again, and with failback those back that were drained."""
        name = checked_name(request.name, "node name")
        await self._driver.ask(lambda number: ResumeNode(number, name, request.failback))
        return await self._node(name)

    async def EvictNode(self, request: admin_pb2.EvictNodeRequest, _context: _Context) -> admin_pb2.Node:
        """Remove a node that has no VMs, or with force any; answered with its last state."""
        name = checked_name(request.name, "node name")
        last = await self._node(name)
        await self._driver.ask(lambda number: EvictNode(number, name, request.force))
        return last

    async def ListNetworks(
        self, request: admin_pb2.ListNetworksRequest, _context: _Context
    ) -> admin_pb2.NetworkList:
        """All networks, or the named one."""
        name = checked_name(request.name, "network name") if request.name else ""
        views = await self._driver.read(
            lambda cluster: [cluster.network_view(name)] if name else cluster.network_views()
        )
        return admin_pb2.NetworkList(networks=[to_proto(view, admin_pb2.NetworkStatus) for view in views])

    async def ShowQuorum(self, _request: admin_pb2.QuorumQuery, _context: _Context) -> admin_pb2.Quorum:
        """Who has a vote, and how many it takes."""
        return to_proto(await self._driver.read(lambda cluster: cluster.quorum_view()), admin_pb2.Quorum)

    async def SetQuorum(self, request: admin_pb2.QuorumChange, context: _Context) -> admin_pb2.Quorum:
        """Choose a witness, or whether votes are dynamic."""
        witness = request.witness if request.HasField("witness") else None
        dynamic = request.dynamic if request.HasField("dynamic") else None
        if witness:
            witness = str(parse_address(witness))
        await self._driver.ask(lambda number: SetQuorum(number, witness, dynamic))
        return await self.ShowQuorum(admin_pb2.QuorumQuery(), context)

    async def CreateVm(self, request: admin_pb2.CreateVmRequest, _context: _Context) -> admin_pb2.Vm:
        """Create a VM; answered when it runs, unless it is not to be started."""
        spec = from_proto(request.spec, VmSpec)
        node = checked_name(request.node, "node name") if request.node else ""
        rules = from_proto(request.rules, RoleRules) if request.HasField("rules") else NO_RULES
        await self._driver.ask(lambda number: CreateVm(number, spec, node, not request.no_start, rules))
        return await self._vm(spec.name)

    async def SetVm(self, request: admin_pb2.SetVmRequest, _context: _Context) -> admin_pb2.Vm:
        """Change what the cluster heeds for a VM."""
        name, changes = checked_name(request.vm, "VM name"), from_proto(request.changes, RoleChanges)
        await self._driver.ask(lambda number: SetVm(number, name, changes))
        return await self._vm(name)

    async def ListVms(self, request: admin_pb2.ListVmsRequest, _context: _Context) -> admin_pb2.VmList:
        """All VMs, or the named one."""
        name = checked_name(request.name, "VM name") if request.name else ""
        views = await self._driver.read(
            lambda cluster: [cluster.vm_view(name)] if name else cluster.vm_views()
        )
        return admin_pb2.VmList(vms=[vm_answer(view) for view in views])

    async def StartVm(self, request: admin_pb2.StartVmRequest, _context: _Context) -> admin_pb2.Vm:
        """Start a VM; answered when it runs."""
        name = checked_name(request.name, "VM name")
        node = checked_name(request.node, "node name") if request.node else ""
        await self._driver.ask(lambda number: TurnOnVm(number, name, node))
        return await self._vm(name)

    async def StopVm(self, request: admin_pb2.VmRequest, _context: _Context) -> admin_pb2.Vm:
        """Turn a VM off; answered when it is."""
        name = checked_name(request.name, "VM name")
        await self._driver.ask(lambda number: TurnOffVm(number, name))
        return await self._vm(name)

    async def RemoveVm(self, request: admin_pb2.VmRequest, _context: _Context) -> admin_pb2.Vm:
        """Delete a VM that is off; answered with its last state."""
        name = checked_name(request.name, "VM name")
        last = await self._vm(name)
        await self._driver.ask(lambda number: RemoveVm(number, name))
        return last

    async def WatchVm(self, request: admin_pb2.VmRequest, _context: _Context) -> AsyncIterator[admin_pb2.Vm]:
        """A VM's state now and on each change, until it is removed."""
        name = checked_name(request.name, "VM name")
        with self._watchers.vm(name) as watch:
            await self._driver.read(lambda cluster: _offer_vm(watch, cluster, name))
            async for view in watch:
                yield vm_answer(view)

    async def RateHosts(self, request: admin_pb2.VmRequest, _context: _Context) -> admin_pb2.HostRatingList:
        """How well each host would suit a VM, best first."""
        name = checked_name(request.name, "VM name")
        ratings = await self._driver.read(lambda cluster: cluster.host_ratings(name))
        return admin_pb2.HostRatingList(
            ratings=[to_proto(rating, admin_pb2.HostRating) for rating in ratings]
        )

    async def MigrateVm(
        self, request: admin_pb2.MigrateVmRequest, _context: _Context
    ) -> admin_pb2.MigrationRecord:
        """Queue a live migration; with dry run only the plan, and what it would take."""
        vm = checked_name(request.vm, "VM name")
        to = request.to if request.to == BEST else checked_name(request.to, "node name")
        options = (
            from_proto(request.options, MigrationOptions)
            if request.HasField("options")
            else MigrationOptions()
        )
        requested_at_us = time.time_ns() // 1000
        token = secrets.token_hex(_TOKEN_BYTES)
        record = await self._driver.ask(
            lambda number: MigrateVm(number, vm, to, options, request.dry_run, token, requested_at_us)
        )
        assert isinstance(record, MigrationRecord)
        if not request.dry_run:
            return await self._migration(record.id)
        plan = plan_answer(record)
        await add_estimate(plan, record, self._driver)
        return plan

    async def ListMigrations(
        self, request: admin_pb2.ListMigrationsRequest, _context: _Context
    ) -> admin_pb2.MigrationList:
        """The newest moves that are kept, oldest first, or the one with this id."""
        id_ = checked_name(request.id, "migration") if request.id else ""
        views = await self._driver.read(
            lambda cluster: [cluster.migration_view(id_)] if id_ else cluster.migration_views()
        )
        moves = [migration_answer(view) for view in views]
        return admin_pb2.MigrationList(migrations=newest_that_fit(moves, lambda move: move.ByteSize()))

    async def WatchMigration(
        self, request: admin_pb2.MigrationRequest, _context: _Context
    ) -> AsyncIterator[admin_pb2.MigrationStatus]:
        """A move's state now and on each change, until it has ended."""
        id_ = checked_name(request.id, "migration")
        with self._watchers.migration(id_) as watch:
            await self._driver.read(lambda cluster: offer_migration(watch, cluster.migration_view(id_)))
            async for view in watch:
                yield status_answer(view)

    async def CancelMigration(
        self, request: admin_pb2.MigrationRequest, _context: _Context
    ) -> admin_pb2.MigrationRecord:
        """Cancel a move that is not committed."""
        id_ = checked_name(request.id, "migration")
        record = await self._driver.ask(lambda number: CancelMove(number, id_))
        assert isinstance(record, MigrationRecord)
        return migration_answer(MigrationView(record, None))

    async def ListEvents(self, request: admin_pb2.EventQuery, _context: _Context) -> admin_pb2.EventList:
        """The newest events that match, oldest first."""
        check_query(request)
        events = await newest_events(self._store, request, self._driver.last_event_id)
        return admin_pb2.EventList(events=events)

    async def WatchEvents(
        self, request: admin_pb2.EventQuery, _context: _Context
    ) -> AsyncIterator[events_pb2.Event]:
        """The newest events that match, then all that follow."""
        check_query(request)
        with self._watchers.events() as watch:
            last_id = self._driver.last_event_id
            for event in await newest_events(self._store, request, last_id):
                yield event
            async for event in follow_events(self._store, request, max(last_id, request.after_id), watch):
                yield event

    async def RoundTrip(
        self, request_iterator: AsyncIterator[host_pb2.Probe], _context: _Context
    ) -> AsyncIterator[host_pb2.Probe]:
        """Answer every message with itself."""
        async for probe in request_iterator:
            yield probe

    async def _node(self, name: str) -> admin_pb2.Node:
        return node_answer(await self._driver.read(lambda cluster: cluster.node_view(name)))

    async def _vm(self, name: str) -> admin_pb2.Vm:
        return vm_answer(await self._driver.read(lambda cluster: cluster.vm_view(name)))

    async def _migration(self, migration_id: str) -> admin_pb2.MigrationRecord:
        return migration_answer(await self._driver.read(lambda cluster: cluster.migration_view(migration_id)))


def _offer_vm(watch: Watch[VmView], cluster: Cluster, name: str) -> None:
    watch.offer(cluster.vm_view(name))
