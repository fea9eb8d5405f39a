"""Draining a node between real processes: 20 VMs of 64 MiB, and whoever dies meanwhile."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from tests.integration.processes import MIB, Cluster, eventually, running_cluster

from ferry.v1 import admin_pb2, common_pb2
from ferry_types.events import DRAIN_CHANGED, MIGRATION_SUCCEEDED, VM_MOVING

VMS = [f"v{number:02}" for number in range(20)]
LIMIT = 2
HANDOVER_S_MAX = 0.05
"""Between the end of one move and the beginning of the next: one commit, on a busy machine."""

REPORT = (sys.executable, "-c", "from ferry_cli.main import main; main()", "report")
REPORT_S_MAX = 0.2
"""Between a move's own duration and the log's: the commits of its request and its end, on a busy machine."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three hosts; all VMs are on n1."""
    with running_cluster(tmp_path, 3) as running:

        def create(vm: str) -> None:
            running.create(vm, "n1", memory_bytes=64 * MIB, fill=common_pb2.FillSpec(kind="random"))

        with ThreadPoolExecutor(len(VMS)) as pool:
            list(pool.map(create, VMS))
        yield running


def begin(cluster: Cluster, to: str = "") -> None:
    request = admin_pb2.DrainNodeRequest(name="n1", to=to, stuck="stay")
    cluster.admin.DrainNode(request, timeout=5)


def wait_emptied(cluster: Cluster) -> admin_pb2.Node:
    """Until the drain has ended, and everything runs elsewhere."""

    def ended() -> admin_pb2.Node | None:
        node = cluster.nodes()["n1"]
        return node if node.drain.state != "active" else None

    node = eventually(ended, what="end of the drain")
    assert isinstance(node, admin_pb2.Node)
    assert node.drain.state == "completed", node.drain.reason
    assert not node.vms
    for vm in VMS:
        assert cluster.wait_running(vm).node in {"n2", "n3"}
    return node


def wait_moved(cluster: Cluster, count: int) -> None:
    """Until so many moves are done, and others under way."""
    eventually(lambda: len(cluster.nodes()["n1"].vms) <= len(VMS) - count, what=f"{count} moves")


def test_both_sides_slots_are_full_until_the_queue_is_empty(cluster: Cluster, tmp_path: Path) -> None:
    plan = cluster.admin.PlanDrain(admin_pb2.PlanDrainRequest(name="n1", to="n2"), timeout=5)
    begin(cluster, to="n2")
    wait_emptied(cluster)
    events = cluster.events()
    asked = [event.vm for event in events if "(drain)" in event.message]
    assert asked == [move.vm for move in plan.moves] == VMS
    under_way, freed_at_us = 0, 0
    for number, event in enumerate(events):
        if event.event_id == VM_MOVING.event_id:
            under_way += 1
            assert under_way <= LIMIT
            if freed_at_us:
                assert event.time_us - freed_at_us < HANDOVER_S_MAX * 1e6
        elif event.event_id == MIGRATION_SUCCEEDED.event_id:
            under_way -= 1
            freed_at_us = event.time_us
            still_queued = any(later.event_id == VM_MOVING.event_id for later in events[number:])
            following = [later.event_id for later in events[number : number + 4]]
            assert not still_queued or VM_MOVING.event_id in following, "its slot was taken at once"
    assert under_way == 0
    assert cluster.nodes()["n1"].state == "paused"
    cluster.check_traces()
    check_report(cluster, tmp_path / "drain.html")


def check_report(cluster: Cluster, page: Path) -> None:
    """The report knows every phase of every move from what was logged, and how many went at a time."""
    where = ("--coordinator", cluster.address("coordinator"))
    ran = subprocess.run(
        [*REPORT, "--node", "n1", "--out", str(page), "-o", "json", *where],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    (run,) = json.loads(ran.stdout)["runs"]
    assert [move["vm"] for move in run["moves"]] == VMS
    assert f"{len(VMS)} completed; at most {LIMIT} at a time" in "".join(run["readings"])
    for move in run["moves"]:
        phases = [phase["phase"] for phase in move["phases"]]
        assert phases == ["queued", "preparing", "copying", "black-out", "switching"]
        begin, end = (
            datetime.fromisoformat(move["phases"][i][key]) for i, key in ((0, "begin"), (-1, "end"))
        )
        assert (end - begin).total_seconds() == pytest.approx(move["total_s"], abs=REPORT_S_MAX)
    assert page.read_text(encoding="utf-8").count('class="phase-copying"') == len(VMS) + 1, "and the legend"


@pytest.mark.parametrize("victim", ["coordinator", "n2", "n1"])
def test_it_survives_the_death_of(victim: str, cluster: Cluster) -> None:
    begin(cluster, to="n2")
    wait_moved(cluster, 4)
    assert cluster.nodes()["n1"].drain.remaining, "it is in the middle of it"
    cluster.kill(victim)
    if victim == "coordinator":
        time.sleep(0.3)
        cluster.restart_coordinator()
    node = wait_emptied(cluster)
    if victim == "n2":
        told = [e.message for e in cluster.events() if e.event_id == 0 and e.source == DRAIN_CHANGED.source]
        assert any("n2 is lost or paused, the others take over" in message for message in told)
    elif victim == "n1":
        assert "failed over" in node.drain.reason
        cluster.start_agent("n1")
        eventually(lambda: cluster.nodes()["n1"].state == "paused", what="n1 is back, and paused")
    for vm in VMS[::7]:
        assert cluster.audit(vm).ok
    cluster.check_traces()
