"""A machine that has too much to do is no dead host."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.integration.processes import Cluster, running_cluster

from ferry.v1 import admin_pb2
from ferry_types.events import NODE_LOST, VM_FAILOVER

LASTS_S = 600.0
VMS = 6


@contextmanager
def saturated() -> Iterator[None]:
    """Every processor spins, at the priority of everybody else; ends by itself, too."""
    spin = f"import time; end = time.monotonic() + {2 * LASTS_S}\nwhile time.monotonic() < end: pass"
    spinners = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def losses(cluster: Cluster) -> list[str]:
    events = cluster.admin.ListEvents(admin_pb2.EventQuery(), timeout=10).events
    alarms = {(kind.source, kind.event_id) for kind in (NODE_LOST, VM_FAILOVER)}
    return [event.message for event in events if (event.source, event.event_id) in alarms]


@pytest.mark.timeout(2 * LASTS_S)
def test_ten_saturated_minutes_cost_nobody_anything(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 3, profile="windows") as cluster:
        names = [f"vm{number}" for number in range(VMS)]
        epochs = {name: cluster.create(name, workload="web").epoch for name in names}
        with saturated():
            until = time.monotonic() + LASTS_S
            while time.monotonic() < until:  # an observation, not a wait
                time.sleep(5)
                assert losses(cluster) == []
        assert {name: cluster.vm(name).epoch for name in names} == epochs
        assert {cluster.vm(name).state for name in names} == {"running"}
        assert {node.state for node in cluster.nodes().values()} == {"up"}
