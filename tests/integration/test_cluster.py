"""Coordinator and agents as real processes: failover, restarts, names, queue, resources."""

import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.integration.echo import echo_once
from tests.integration.processes import MIB, Cluster, eventually, running_cluster

from ferry.v1 import admin_pb2, common_pb2
from ferry_types.profiles import PROFILES

FAILOVER_S_MAX = 4.0
FAST = PROFILES["fast"]
"""Profile fast: SIGKILL of an agent to its VMs running elsewhere."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three hosts for the tests that leave no trace."""
    with running_cluster(tmp_path_factory.mktemp("shared"), 3, "--memory", "256MiB") as cluster:
        yield cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path, 2) as own:
        yield own


def refusal(error: Any) -> tuple[grpc.StatusCode, str]:
    """Code and words of a refused call."""
    return error.code(), str(error.details())


def moved(cluster: Cluster, name: str) -> bool:
    return bool(cluster.vm(name).node == "n2")


def test_failover_boots_the_vms_elsewhere_in_time(cluster: Cluster) -> None:
    names = ["a", "b", "c"]
    before = {name: cluster.create(name, "n1", memory_bytes=16 * MIB) for name in names}
    killed_at = time.monotonic()
    cluster.kill("n1")
    for name in names:
        eventually(partial(moved, cluster, name), what="failover")
        cluster.wait_running(name)
    took_s = time.monotonic() - killed_at
    assert took_s < FAILOVER_S_MAX
    for name in names:
        reply = echo_once(cluster.vm(name).echo_address, name)
        assert reply.boot_epoch > before[name].epoch
        assert cluster.audit(name).ok
    assert cluster.nodes()["n1"].state == "down"


def test_coordinator_back_within_a_lease_is_not_noticed(cluster: Cluster) -> None:
    vm = cluster.create("a", "n1")
    first = echo_once(vm.echo_address, "a")
    cluster.kill("coordinator")
    cluster.restart_coordinator()
    cluster.wait_up("n1", "n2")
    after = cluster.wait_running("a")
    assert (after.node, after.epoch) == (vm.node, vm.epoch)
    reply = echo_once(vm.echo_address, "a")
    assert (reply.boot_epoch, reply.epoch) == (first.boot_epoch, first.epoch)
    assert reply.step >= first.step


@pytest.mark.timeout(120)
@pytest.mark.parametrize("away_s", [5.0, pytest.param(60.0, marks=pytest.mark.chaos)])
def test_a_coordinator_that_is_away_pauses_nobody(cluster: Cluster, away_s: float) -> None:
    vm = cluster.create("a", "n1", workload="web")
    first = echo_once(vm.echo_address, "a")
    cluster.let_votes_be_known()
    cluster.kill("coordinator")
    end = time.monotonic() + away_s
    while time.monotonic() < end:
        assert echo_once(vm.echo_address, "a").epoch == vm.epoch
        time.sleep(0.1)
    cluster.restart_coordinator()
    cluster.wait_up("n1", "n2")
    time.sleep(2 * FAST.coordinator_span_s)  # so long it judges nobody; then it would
    after = cluster.wait_running("a")
    assert (after.node, after.epoch) == (vm.node, vm.epoch)
    reply = echo_once(vm.echo_address, "a")
    assert reply.boot_epoch == first.boot_epoch
    assert reply.step > first.step
    assert "halt a" not in (cluster.directory / "n1.trace").read_text(encoding="ascii")


def test_a_host_without_coordinator_and_majority_pauses_and_says_so(cluster: Cluster) -> None:
    vm = cluster.create("a", "n1", workload="web")
    cluster.let_votes_be_known()
    for name in ("coordinator", "witness", "n2"):
        cluster.kill(name)
    trace = cluster.directory / "n1.trace"
    eventually(lambda: trace.read_text(encoding="ascii").splitlines()[-1].startswith("halt a"), what="pause")
    cluster.restart_coordinator()
    cluster.wait_up("n1")
    after = cluster.wait_running("a")
    assert (after.node, after.epoch) == (vm.node, vm.epoch)
    assert echo_once(vm.echo_address, "a").boot_epoch == vm.epoch
    assert cluster.audit("a").ok
    [event] = [event for event in cluster.events() if event.event_id == 1177]
    assert event.node == "n1"
    assert "1 of 3 votes promised" in event.message


def test_frozen_agent_wakes_up_without_its_vms(cluster: Cluster) -> None:
    cluster.create("a", "n1", workload="web")
    cluster.signal("n1", signal.SIGSTOP)
    try:
        eventually(lambda: cluster.vm("a").node == "n2", what="failover")
        cluster.wait_running("a")
    finally:
        cluster.signal("n1", signal.SIGCONT)
    cluster.wait_up("n1", "n2")
    cluster.check_traces()


def test_restarted_agent_joins_again_under_its_identity(cluster: Cluster) -> None:
    before = cluster.nodes()["n1"]
    cluster.create("a", "n1", memory_bytes=16 * MIB)
    cluster.kill("n1")
    cluster.start_agent("n1")
    eventually(lambda: cluster.nodes()["n1"].state == "joining", what="joining")
    cluster.wait_up("n1")
    after = cluster.nodes()["n1"]
    assert after.uuid == before.uuid
    assert after.incarnation != before.incarnation
    cluster.wait_running("a")


def test_a_second_process_that_claims_a_live_name_is_refused(shared: Cluster) -> None:
    command = list(shared.commands["n1"])
    command[command.index("--dir") + 1] = str(shared.directory / "impostor")
    command[command.index("--address-file") + 1] = str(shared.directory / "impostor.address")
    command[command.index("--trace") + 1] = str(shared.directory / "impostor.trace")
    shared.start("impostor", command)
    assert shared.processes["impostor"].wait(20) == 5
    assert "n1" in shared.log("impostor")
    assert shared.nodes()["n1"].state == "up"
    del shared.processes["impostor"]


def test_a_second_agent_on_one_data_directory_is_refused(shared: Cluster) -> None:
    command = list(shared.commands["n1"])
    command[command.index("--address-file") + 1] = str(shared.directory / "twin.address")
    shared.start("twin", command)
    assert shared.processes["twin"].wait(20) == 5
    del shared.processes["twin"]


def test_an_agent_without_vms_is_small(shared: Cluster) -> None:
    assert shared.resident_bytes("n3") < 90e6


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        (lambda c: c.migrate("still", "n1"), "FAILED_PRECONDITION", "is on n1 already"),
        (lambda c: c.migrate("still", "n9"), "NOT_FOUND", "no node n9"),
        (lambda c: c.migrate("ghost", "n2"), "NOT_FOUND", "no VM ghost"),
        (lambda c: c.migrate("still", "n2", pass_limit=0), "INVALID_ARGUMENT", "pass limit"),
        (lambda c: c.create("still"), "FAILED_PRECONDITION", "already"),
        (lambda c: c.create("big", memory_bytes=2**40), "FAILED_PRECONDITION", "no host has"),
        (lambda c: c.create("big", "n2", memory_bytes=512 * MIB), "FAILED_PRECONDITION", "more than node n2"),
        (lambda c: c.create("no/good"), "INVALID_ARGUMENT", "not valid"),
        (lambda c: c.create("odd", memory_bytes=16 * MIB + 1), "INVALID_ARGUMENT", "multiple"),
        (lambda c: c.create("lost", "n9"), "NOT_FOUND", "no node n9"),
    ],
)
def test_bad_requests_change_nothing(shared: Cluster, call: Any, code: str, words: str) -> None:
    if "still" not in [vm.spec.name for vm in shared.admin.ListVms(admin_pb2.ListVmsRequest()).vms]:
        shared.create("still", "n1", memory_bytes=16 * MIB)
    before = shared.admin.ListVms(admin_pb2.ListVmsRequest())
    with pytest.raises(grpc.RpcError) as caught:
        call(shared)
    status, details = refusal(caught.value)
    assert status.name == code
    assert words in details
    assert shared.admin.ListVms(admin_pb2.ListVmsRequest()) == before


def test_a_file_that_cannot_be_read_takes_the_vm_back(shared: Cluster) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        shared.create("f", "n2", fill=common_pb2.FillSpec(kind="file", path="/nonexistent/file"))
    assert "/nonexistent/file" in refusal(caught.value)[1]
    names = [vm.spec.name for vm in shared.admin.ListVms(admin_pb2.ListVmsRequest()).vms]
    assert "f" not in names
    assert shared.nodes()["n2"].memory_used_bytes == 0


def test_queue_respects_both_hosts_limits_and_order(cluster: Cluster) -> None:
    names = [f"v{number}" for number in range(5)]
    for name in names:
        cluster.create(name, "n1", memory_bytes=16 * MIB)
    ids = [cluster.migrate(name, "n2") for name in names]
    open_states = ("preparing", "copying", "switching")

    def all_ended() -> bool:
        records = cluster.admin.ListMigrations(admin_pb2.ListMigrationsRequest()).migrations
        assert sum(record.state in open_states for record in records) <= 2
        return all(record.state == "completed" for record in records)

    eventually(all_ended, what="all moves")
    events = cluster.admin.ListEvents(admin_pb2.EventQuery()).events
    moved = [e.vm for e in events if e.event_id == 22507]
    assert sorted(moved) == sorted(names)
    assert len(ids) == len(set(ids))


def test_cancel_before_the_commit_leaves_the_vm_where_it_was(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 2, "--failpoints") as cluster:
        vm = cluster.create("a", "n1", workload="web")
        for phase in ("source.copying", "source.paused"):
            cluster.failpoint("n1", phase, "hold")
            move = cluster.migrate("a", "n2")
            cluster.wait_holding("n1", phase)
            cluster.admin.CancelMigration(admin_pb2.MigrationRequest(id=move), timeout=5)
            cluster.failpoint("n1", phase, "off")
            assert cluster.ended(move).state == "cancelled"
            after = cluster.wait_running("a")
            assert after.node == "n1"
            assert echo_once(after.echo_address, "a").boot_epoch == vm.epoch
            assert cluster.audit("a").ok
            assert eventually(lambda: cluster.nodes()["n2"].memory_used_bytes == 0)
