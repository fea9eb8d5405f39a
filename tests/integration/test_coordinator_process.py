"""The coordinator process: what its store, its signals and its death do to hosts and people."""

import asyncio
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import grpc
import grpc.aio
import pytest
from tests.integration.coordinator_process import (
    PATIENCE_S,
    CoordinatorProcess,
    create,
    nodes,
    refusal,
    show,
    spec,
)
from tests.integration.scripted_host import Attending, ScriptedHost, eventually

from ferry.v1 import admin_pb2, host_pb2, membership_pb2, membership_pb2_grpc
from ferry_coordinator.adapters.sqlite_store import SqliteStore
from ferry_types.errors import ErrorCode
from ferry_types.messages import GoOn, HostEnvelope, Renewal, StartVm
from ferry_wire.channels import open_channel
from ferry_wire.envelopes import host_envelope_to_proto


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[CoordinatorProcess]:
    process = CoordinatorProcess(tmp_path / "coordinator")
    yield process
    await process.kill()


async def test_a_vm_is_created_moved_and_watched(coordinator: CoordinatorProcess) -> None:
    await coordinator.start()
    source, target = (ScriptedHost(name, coordinator.address) for name in ("node1", "node2"))
    source.on_armed = target.ready
    async with Attending(source, target), coordinator.admin() as admin:
        assert (await create(admin, "web1", "node1")).state == "running"
        watching = admin.WatchVm(admin_pb2.VmRequest(name="web1"), timeout=PATIENCE_S)
        states = asyncio.create_task(collect_until(watching, "node2"))

        plan = await admin.MigrateVm(admin_pb2.MigrateVmRequest(vm="web1", to="best", dry_run=True))
        assert (plan.id, plan.source, plan.target) == ("", "node1", "node2")
        move = await admin.MigrateVm(admin_pb2.MigrateVmRequest(vm="web1", to="node2"))
        watch = admin.WatchMigration(admin_pb2.MigrationRequest(id=move.id), timeout=PATIENCE_S)
        *_, last = [status async for status in watch]
        assert last.record.state == "completed"
        assert last.record.figures.blackout_s > 0
        assert last.record.total_s > 0

        vm = await show(admin, "web1")
        assert (vm.state, vm.node, vm.epoch, vm.migration_id) == ("running", "node2", 2, "")
        assert await states == "node2"
        events = await admin.ListEvents(admin_pb2.EventQuery(vm="web1"))
        assert {event.event_id for event in events.events} >= {22507, 22508, 22509}


async def collect_until(
    watching: "grpc.aio.UnaryStreamCall[admin_pb2.VmRequest, admin_pb2.Vm]", node: str
) -> str:
    async for vm in watching:
        if vm.node == node and vm.state == "running":
            break
    return vm.node


async def test_a_killed_coordinator_comes_back_to_the_same_cluster(coordinator: CoordinatorProcess) -> None:
    await coordinator.start()
    host = ScriptedHost("node1", coordinator.address)
    async with Attending(host):
        async with coordinator.admin() as admin:
            vm = await create(admin, "web1")
            before = await admin.ListEvents(admin_pb2.EventQuery())
        await coordinator.kill()
        await coordinator.start()
        async with coordinator.admin() as admin:
            await eventually(lambda: host.terms == {1, 2})
            await eventually(lambda: GoOn("web1", 1) in host.orders)

            async def same() -> bool:
                return await show(admin, "web1") == vm

            await eventually(same)
            events = await admin.ListEvents(admin_pb2.EventQuery())
            assert list(events.events)[: len(before.events)] == list(before.events)
            assert not [event for event in events.events if event.event_id == 1135], "nobody was lost"
    assert [type(order) for order in host.orders].count(StartVm) == 1


async def test_a_lost_nodes_vms_are_booted_elsewhere(coordinator: CoordinatorProcess) -> None:
    await coordinator.start()
    survivor, victim = ScriptedHost("node1", coordinator.address), ScriptedHost("node2", coordinator.address)
    async with Attending(survivor), coordinator.admin() as admin:
        async with Attending(victim):
            await create(admin, "web1", "node2")
        killed_at = time.monotonic()

        async def moved() -> bool:
            vm = await show(admin, "web1")
            return (vm.node, vm.state) == ("node1", "running")

        await eventually(moved)
        assert 1.9 < time.monotonic() - killed_at < 4.0, "not before its lease has run out, and soon after"


async def test_terminated_it_ends_at_once_and_tells_who_waits(coordinator: CoordinatorProcess) -> None:
    await coordinator.start()
    host = ScriptedHost("node1", coordinator.address)
    async with Attending(host), coordinator.admin() as admin:
        await create(admin, "web1")
        watched = admin.WatchVm(admin_pb2.VmRequest(name="web1"))
        followed = admin.WatchEvents(admin_pb2.EventQuery())
        probed = admin.RoundTrip(endless())
        for call in (watched, followed, probed):
            await anext(aiter(call))
        asked = time.monotonic()
        coordinator.send(signal.SIGTERM)
        assert await coordinator.exit_code() == 0
        assert time.monotonic() - asked < 2.0
        assert (await refusal(watched)).code is ErrorCode.UNREACHABLE
        assert (await refusal(followed)).code is ErrorCode.UNREACHABLE
        assert (await refusal(probed)).code in (ErrorCode.UNREACHABLE, ErrorCode.FAILED)
        await eventually(lambda: any(r.code is ErrorCode.UNREACHABLE for r in host.refusals))


async def test_terminated_it_does_not_wait_for_a_store_that_does_not_answer(
    coordinator: CoordinatorProcess,
) -> None:
    await coordinator.start()
    host = ScriptedHost("node1", coordinator.address)
    async with Attending(host), coordinator.admin() as admin:
        with closing(sqlite3.connect(coordinator.directory / "cluster.sqlite3")) as database:
            database.execute("BEGIN IMMEDIATE")
            creating = admin.CreateVm(admin_pb2.CreateVmRequest(spec=spec("web1")), timeout=PATIENCE_S)
            told = asyncio.create_task(refusal(creating))
            await eventually(lambda: host.ungranted >= 2)  # the commit blocks whatever comes behind it
            granted = len(host.grant_latencies_s)
            asked = time.monotonic()
            coordinator.send(signal.SIGTERM)
            assert await coordinator.exit_code() == 0
            assert time.monotonic() - asked < 2.0
            assert (await told).code is ErrorCode.UNREACHABLE
            assert len(host.grant_latencies_s) == granted


async def endless() -> AsyncIterator[host_pb2.Probe]:
    yield host_pb2.Probe(sequence=1)
    await asyncio.Event().wait()


async def test_a_second_coordinator_on_the_same_directory_is_refused(coordinator: CoordinatorProcess) -> None:
    await coordinator.start()
    second = CoordinatorProcess(coordinator.directory)
    code, said = await second.refused_start()
    assert code == 5
    assert "another coordinator" in said
    assert "--dir" in said
    async with coordinator.admin() as admin:
        assert await nodes(admin) == {}, "the first one is as it was"


async def test_one_whose_term_has_passed_ends_and_grants_nothing_more(
    coordinator: CoordinatorProcess,
) -> None:
    await coordinator.start()
    host = ScriptedHost("node1", coordinator.address)
    async with Attending(host):
        usurper = await SqliteStore.open(coordinator.directory / "cluster.sqlite3")
        await usurper.begin_term(1)
        await usurper.close()
        granted = len(host.grant_latencies_s)
        assert await coordinator.exit_code() == 1
        assert len(host.grant_latencies_s) - granted <= 1, "one may have been under way"


@pytest.mark.parametrize("damage", ["not a database", "value"])
async def test_a_corrupt_store_is_refused_and_left_as_it_was(
    coordinator: CoordinatorProcess, damage: str
) -> None:
    await coordinator.start()
    host = ScriptedHost("node1", coordinator.address)
    async with Attending(host), coordinator.admin() as admin:
        await create(admin, "web1")
    coordinator.send(signal.SIGTERM)
    assert await coordinator.exit_code() == 0
    path = coordinator.directory / "cluster.sqlite3"
    if damage == "value":
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE records SET value = '{\"vm\": 1}' WHERE key = 'owner/web1'")
    else:
        path.write_bytes(b"x" * 4096)
    before = path.read_bytes()
    code, said = await coordinator.refused_start()
    assert code == 1
    assert "corrupt" in said or "damaged" in said
    assert ("owner/web1" in said) == (damage == "value")
    assert "backup" in said
    assert "Traceback" not in said
    assert path.read_bytes() == before


async def test_a_port_in_use_is_named_and_nothing_is_changed(coordinator: CoordinatorProcess) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        coordinator.address = f"127.0.0.1:{other.getsockname()[1]}"
        code, said = await coordinator.refused_start()
        assert code == 1
        assert "in use" in said
        coordinator.address = "127.0.0.1:0"
        port = other.getsockname()[1]
        code, said = await coordinator.refused_start("--metrics-listen", f"127.0.0.1:{port}")
        assert code == 1
        assert str(port) in said
    store = await SqliteStore.open(coordinator.directory / "cluster.sqlite3")
    assert await store.read_term() == 0
    await store.close()


async def test_a_level_that_the_cluster_has_left_behind_is_refused(coordinator: CoordinatorProcess) -> None:
    await coordinator.start("--era", "2016")
    async with coordinator.admin() as admin:
        assert await nodes(admin) == {}, "it reigns: its era is in the store"
    await coordinator.kill()
    code, said = await coordinator.refused_start("--era", "2012r2")
    assert code == 5
    assert "era 2016" in said
    assert "--era 2016" in said
    store = await SqliteStore.open(coordinator.directory / "cluster.sqlite3")
    assert await store.read_term() == 1
    await store.close()


async def test_a_live_name_is_claimed_once(coordinator: CoordinatorProcess) -> None:
    await coordinator.start()
    first = ScriptedHost("node1", coordinator.address)
    async with Attending(first):
        second = ScriptedHost("node1", coordinator.address, incarnation="b1", uuid="another")
        await second.attend()
        assert [(r.code, r.rule) for r in second.refusals] == [(ErrorCode.REFUSED, "live name claimed")]
        granted = len(first.grant_latencies_s)
        await eventually(lambda: len(first.grant_latencies_s) > granted)
        assert first.refusals == []


async def test_streams_that_do_not_begin_with_a_good_join_are_refused(
    coordinator: CoordinatorProcess,
) -> None:
    await coordinator.start()
    bad_name = ScriptedHost("node 1!", coordinator.address)
    await bad_name.attend()
    assert [r.code for r in bad_name.refusals] == [ErrorCode.MALFORMED]
    renewal = host_envelope_to_proto(HostEnvelope("a1", 1, Renewal(1)))
    async with open_channel(coordinator.address) as channel:
        stub = membership_pb2_grpc.MembershipStub(channel)
        for message in (renewal, membership_pb2.FromHost()):
            told = await refusal(stub.Attend(iter([message]), timeout=PATIENCE_S))
            assert told.code is ErrorCode.MALFORMED
    async with coordinator.admin() as admin:
        assert await nodes(admin) == {}


async def test_bad_requests_are_refused_with_the_right_code(coordinator: CoordinatorProcess) -> None:
    await coordinator.start()
    huge = spec("web1")
    huge.memory_bytes = 2**62
    async with coordinator.admin() as admin:
        refused: dict[str, grpc.aio.Call] = {
            "no such vm": admin.StartVm(admin_pb2.StartVmRequest(name="web1")),
            "no such node": admin.ListNodes(admin_pb2.ListNodesRequest(name="node1")),
            "no such move": admin.WatchMigration(admin_pb2.MigrationRequest(id="m1")),
            "bad name": admin.StopVm(admin_pb2.VmRequest(name="a b")),
            "no name": admin.RemoveVm(admin_pb2.VmRequest()),
            "bad size": admin.CreateVm(admin_pb2.CreateVmRequest(spec=huge)),
            "no spec": admin.CreateVm(admin_pb2.CreateVmRequest()),
            "no host": admin.CreateVm(admin_pb2.CreateVmRequest(spec=spec("web1"))),
        }
        codes = {what: (await refusal(call)).code for what, call in refused.items()}
        assert codes == {
            "no such vm": ErrorCode.NOT_FOUND,
            "no such node": ErrorCode.NOT_FOUND,
            "no such move": ErrorCode.NOT_FOUND,
            "bad name": ErrorCode.MALFORMED,
            "no name": ErrorCode.MALFORMED,
            "bad size": ErrorCode.MALFORMED,
            "no spec": ErrorCode.MALFORMED,
            "no host": ErrorCode.REFUSED,
        }
        assert not (await admin.ListVms(admin_pb2.ListVmsRequest())).vms, "nothing was changed"
