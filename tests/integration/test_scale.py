"""Sixteen hosts and sixty-four VMs on one machine."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integration.processes import MIB, running_cluster

from ferry.v1 import admin_pb2

HOSTS = 16
VMS = 64
RUNNING_S_MAX = 60.0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("steady_s", [4.0, pytest.param(30.0, marks=pytest.mark.chaos)])
def test_many_hosts_and_vms_run_and_stay_up(tmp_path: Path, steady_s: float) -> None:
    with running_cluster(tmp_path, HOSTS, "--memory", "256MiB") as cluster:
        began_at = time.monotonic()
        with ThreadPoolExecutor(16) as creators:
            made = list(creators.map(lambda n: cluster.create(f"vm{n}", memory_bytes=16 * MIB), range(VMS)))
        assert all(vm.state == "running" for vm in made)
        assert time.monotonic() - began_at < RUNNING_S_MAX
        assert {len(node.vms) for node in cluster.nodes().values()} == {VMS // HOSTS}, "spread evenly"
        # An observation, not a wait: nobody may fall out while nothing happens.
        until = time.monotonic() + steady_s
        while time.monotonic() < until:
            states = {node.state for node in cluster.nodes().values()}
            assert states == {"up"}
            time.sleep(0.5)
        events = cluster.admin.ListEvents(admin_pb2.EventQuery(), timeout=10).events
        assert not [event.message for event in events if event.event_id == 1135]
        running = cluster.admin.ListVms(admin_pb2.ListVmsRequest(), timeout=10).vms
        assert {vm.state for vm in running} == {"running"}
