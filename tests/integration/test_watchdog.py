"""The watchdog as the agent's parent, with real processes: certificates, and deaths without one (C1, C2)."""

import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.integration.processes import MIB, Cluster, eventually

from ferry.v1 import admin_pb2
from ferry.v1.membership_pb2 import DeathCertificate
from ferry.v1.membership_pb2_grpc import MembershipStub
from ferry_types.profiles import PROFILES

CERTIFIED_S_MAX = 1.0
"""Profile fast: SIGKILL of an agent to its VM running elsewhere, median, with a certificate."""

UNCERTIFIED_S_MAX = 4.0

FAST = PROFILES["fast"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two hosts under their watchdogs."""
    own = Cluster(tmp_path)
    try:
        own.start_witness()
        own.start_coordinator()
        own.use_witness()
        for name in ("n1", "n2"):
            own.start_watched(name)
        own.wait_up("n1", "n2")
        own.wait_votes()
        yield own
    finally:
        pids = [own.agent_pid(name) for name in ("n1", "n2")]
        own.close()
        for pid in pids:
            with suppress(ProcessLookupError):  # one whose watchdog was killed
                os.kill(pid, signal.SIGKILL)


def fails_over(cluster: Cluster, vm: str, former: str, since_s: float) -> float:
    """Seconds until the VM runs elsewhere."""

    def elsewhere() -> bool:
        found = cluster.vm(vm)
        return bool(found.node not in ("", former) and found.state == "running")

    eventually(elsewhere, what=f"failover of {vm}")
    return time.monotonic() - since_s


def lost_because(cluster: Cluster, node: str) -> str:
    """What the newest event about a lost node says."""
    events = cluster.admin.ListEvents(admin_pb2.EventQuery(node=node), timeout=5).events
    return str(next(event.message for event in reversed(events) if "is lost" in event.message))


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> float:
    os.kill(pid, number)
    return time.monotonic()


def test_a_certified_death_fails_over_at_once_and_the_host_may_come_back(cluster: Cluster) -> None:
    cluster.create("a", "n1", memory_bytes=16 * MIB)
    took_s = []
    for former, other in (("n1", "n2"), ("n2", "n1"), ("n1", "n2")):
        killed_at = kill(cluster.agent_pid(former))
        took_s.append(fails_over(cluster, "a", former, killed_at))
        assert "its watchdog certifies its death: it was killed by SIGKILL" in lost_because(cluster, former)
        assert cluster.vm("a").node == other
        assert cluster.processes[former].wait(10) == 128 + signal.SIGKILL
        assert cluster.nodes()[former].state == "down"
        cluster.start_watched(former)
        cluster.wait_up(former)
    assert statistics.median(took_s) <= CERTIFIED_S_MAX, took_s
    cluster.check_traces()


def test_without_a_certificate_the_lease_has_to_run_out(cluster: Cluster) -> None:
    cluster.create("a", "n1", memory_bytes=16 * MIB)
    agent = cluster.agent_pid("n1")
    cluster.kill("n1")  # the watchdog first, so that nobody is left to tell
    took_s = fails_over(cluster, "a", "n1", kill(agent))
    assert FAST.host_span_s - 2 * FAST.beat_s < took_s <= UNCERTIFIED_S_MAX
    assert "it renewed no lease" in lost_because(cluster, "n1")
    cluster.check_traces()


def test_an_agent_that_falls_silent_is_killed_and_certified(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_watched("n3", "--watchdog-patience", "1s")
    cluster.wait_up("n3")
    cluster.create("a", "n3", memory_bytes=16 * MIB)
    stopped_at = kill(cluster.agent_pid("n3"), signal.SIGSTOP)
    took_s = fails_over(cluster, "a", "n3", stopped_at)
    assert 1.0 < took_s < FAST.coordinator_span_s + 1.0
    assert cluster.processes["n3"].wait(10) == 128 + signal.SIGKILL
    assert "was silent for 1 s" in cluster.log("n3")
    cluster.check_traces()


def test_a_machine_that_stood_still_has_starved_nobody(cluster: Cluster) -> None:
    """Agent and watchdog stop together for longer than the watchdog bears."""
    cluster.start_watched("n3", "--watchdog-patience", "2s")
    cluster.wait_up("n3")
    watchdog, agent = cluster.processes["n3"].pid, cluster.agent_pid("n3")
    kill(watchdog, signal.SIGSTOP)
    kill(agent, signal.SIGSTOP)
    eventually(lambda: cluster.nodes()["n3"].state == "down", what="n3 down")
    time.sleep(1.0)
    kill(watchdog, signal.SIGCONT)
    time.sleep(0.2)  # the watchdog looks before the agent can speak
    kill(agent, signal.SIGCONT)
    eventually(lambda: cluster.nodes()["n3"].state == "up", what="n3 up again")
    assert cluster.agent_pid("n3") == agent


def test_a_watchdog_that_was_started_again_certifies_no_earlier_agent(cluster: Cluster) -> None:
    cluster.create("a", "n1", memory_bytes=16 * MIB)
    orphan = cluster.agent_pid("n1")
    cluster.kill("n1")
    cluster.start_watched("n1")  # finds the data directory taken by the agent that lives on
    assert cluster.processes["n1"].wait(10) != 0
    time.sleep(0.5)
    assert cluster.vm("a").node == "n1"
    assert cluster.nodes()["n1"].state == "up"
    fails_over(cluster, "a", "n1", kill(orphan))
    assert "it renewed no lease" in lost_because(cluster, "n1")


def test_a_host_that_is_told_to_stop_gives_its_vms_up_at_once(cluster: Cluster) -> None:
    cluster.create("a", "n1", memory_bytes=16 * MIB)
    cluster.signal("n1", signal.SIGTERM)
    assert fails_over(cluster, "a", "n1", time.monotonic()) < FAST.host_span_s
    assert cluster.processes["n1"].wait(10) == 0
    assert "it was told to stop" in lost_because(cluster, "n1")


def test_a_death_is_certified_to_a_coordinator_that_was_away(cluster: Cluster) -> None:
    cluster.create("a", "n1", memory_bytes=16 * MIB)
    cluster.kill("coordinator")
    killed_at = kill(cluster.agent_pid("n1"))
    time.sleep(0.5)
    cluster.restart_coordinator()
    # Without the certificate it would wait a whole L(1+e) from its start (rule L5).
    assert fails_over(cluster, "a", "n1", killed_at) < FAST.coordinator_span_s + 1.5
    assert "its watchdog certifies its death" in lost_because(cluster, "n1")


@pytest.mark.parametrize(("node", "incarnation"), [("n1", "0" * 32), ("n9", "0" * 32)])
def test_a_certificate_of_nobody_who_lives_here_changes_nothing(
    cluster: Cluster, node: str, incarnation: str
) -> None:
    stub: Any = MembershipStub(cluster.channel(cluster.address("coordinator")))
    stub.CertifyDeath(DeathCertificate(node=node, incarnation=incarnation, cause="killed"), timeout=5)
    assert {name: seen.state for name, seen in cluster.nodes().items()} == {"n1": "up", "n2": "up"}


def test_a_certificate_with_a_novel_in_it_is_malformed(cluster: Cluster) -> None:
    stub: Any = MembershipStub(cluster.channel(cluster.address("coordinator")))
    living = cluster.nodes()["n1"].incarnation
    with pytest.raises(grpc.RpcError) as refused:
        stub.CertifyDeath(DeathCertificate(node="n1", incarnation=living, cause="x" * 10_000), timeout=5)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert cluster.nodes()["n1"].state == "up"
