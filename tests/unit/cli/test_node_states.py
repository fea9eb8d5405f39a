"""``ferry node pause|drain|resume|evict``: what is asked, watched and told."""

import asyncio
import signal
from typing import Any

import pytest

from ferry.v1 import admin_pb2, common_pb2
from ferry_cli import draining, views
from ferry_cli.main import execute
from ferry_types.errors import FerryError, not_found


def draining_node(state: str, *left: str, reason: str = "") -> admin_pb2.Node:
    """A node that had ``a`` and ``b`` when its drain began."""
    drain = admin_pb2.Drain(node="n1", state=state, reason=reason, taken=["a", "b"], remaining=left)
    shown = "draining" if state == "active" else "paused"
    return admin_pb2.Node(name="n1", state=shown, vms=left, paused=True, drain=drain)


@pytest.fixture
def node(cluster: Any) -> admin_pb2.Node:
    node = draining_node("active", "a", "b")
    cluster.nodes = [node]
    return node


async def test_pause_and_resume_name_the_node(ferry: Any, cluster: Any) -> None:
    cluster.nodes = [admin_pb2.Node(name="n1", state="paused", vms=["a"], paused=True)]
    assert (await ferry("node", "pause", "n1")).out == "n1 is paused; on it: a\n"
    paused = await ferry("node", "pause", "n1", "-o", "json")
    assert (paused.code, paused.document["state"], paused.document["paused"]) == (0, "paused", True)
    cluster.nodes = [admin_pb2.Node(name="n1", state="up")]
    assert (await ferry("node", "resume", "n1")).out == "n1 is up\n"
    assert "ferry migration list" in (await ferry("node", "resume", "n1", "--failback")).out
    asked = admin_pb2.NodeRequest(name="n1")
    resumed = [admin_pb2.ResumeNodeRequest(name="n1", failback=failback) for failback in (False, True)]
    assert cluster.requests == [asked, asked, *resumed]


async def test_evict_sends_whether_it_is_forced(ferry: Any, cluster: Any, node: admin_pb2.Node) -> None:
    for options in ((), ("--force",)):
        assert (await ferry("node", "evict", "n1", *options)).out == "n1 is evicted\n"
    assert [request.force for request in cluster.requests] == [False, True]


async def test_a_drain_is_asked_for_as_the_options_say(
    ferry: Any, cluster: Any, node: admin_pb2.Node
) -> None:
    ran = await ferry(
        *("node", "drain", "n1", "--to", "n2", "--deadline", "10m", "--stuck", "stop", "--detach"),
        *("-o", "json"),
    )
    assert (ran.code, ran.document["drain"]["state"]) == (0, "active")
    assert (await ferry("node", "drain", "n1", "--to", "best", "--detach")).code == 0
    assert cluster.requests == [
        admin_pb2.DrainNodeRequest(name="n1", to="n2", within_s=600.0, stuck="stop"),
        admin_pb2.DrainNodeRequest(name="n1", stuck="stay"),
    ]


async def test_detach_says_how_to_watch_and_how_to_end(
    ferry: Any, cluster: Any, node: admin_pb2.Node
) -> None:
    ran = await ferry("node", "drain", "n1", "--detach")
    assert ran.out == "n1 is draining: 0 of 2 VMs have left, on it: a, b\n"
    assert "ferry node show n1" in ran.err
    assert "ferry node resume n1" in ran.err


async def test_an_empty_node_is_drained_at_once(ferry: Any, cluster: Any) -> None:
    drain = admin_pb2.Drain(node="n1", state="completed")
    cluster.nodes = [admin_pb2.Node(name="n1", state="paused", paused=True, drain=drain)]
    for options in ((), ("--detach",)):
        ran = await ferry("node", "drain", "n1", *options)
        assert (ran.code, ran.out) == (0, "n1 is drained\n")
        assert "goes on without you" not in ran.err


async def test_a_drain_is_watched_until_the_node_is_empty(
    ferry: Any, cluster: Any, node: admin_pb2.Node
) -> None:
    cluster.drains = [node, draining_node("active", "b"), draining_node("active", "b", reason="no slot")]
    cluster.drains += [draining_node("completed")]
    ran = await ferry("node", "drain", "n1")
    assert (ran.code, ran.out) == (0, "n1 is drained; it had a, b\n")
    assert ran.err.splitlines() == [
        "drain of n1: 0 of 2 VMs have left, on it: a, b",
        "drain of n1: 1 of 2 VMs have left, on it: b",
        "drain of n1: 1 of 2 VMs have left, on it: b; no slot",
        "it gets no VM until it is resumed: ferry node resume n1",
    ]


async def test_a_drain_that_failed_is_exit_1_with_who_stayed_and_why(
    ferry: Any, cluster: Any, node: admin_pb2.Node
) -> None:
    cluster.drains = [draining_node("failed", "b", reason="cannot move: b (memory)")]
    plain = await ferry("node", "drain", "n1")
    assert (plain.code, plain.out) == (1, "")
    for words in ("cannot move: b (memory)", "still on it: b", "ferry node resume n1"):
        assert words in plain.err
    ran = await ferry("node", "drain", "n1", "-o", "json")
    assert (ran.code, ran.document["drain"]["remaining"]) == (1, ["b"])
    assert "b (memory)" in ran.document["error"]["message"]


async def test_a_node_that_is_resumed_meanwhile_is_not_drained(
    ferry: Any, cluster: Any, node: admin_pb2.Node
) -> None:
    cluster.drains = [admin_pb2.Node(name="n1", state="up", vms=["a"])]
    ran = await ferry("node", "drain", "n1")
    assert ran.code == 1
    assert "was resumed before it was empty: a on it" in ran.err


async def test_ctrl_c_detaches_from_a_drain(ferry: Any, cluster: Any, node: admin_pb2.Node) -> None:
    process = await ferry.start("node", "drain", "n1")
    async with asyncio.timeout(20):
        assert b"0 of 2" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    assert process.returncode == 130
    assert b"ferry node show n1" in err
    assert b"ferry node resume n1" in err
    assert not any(isinstance(request, admin_pb2.ResumeNodeRequest) for request in cluster.requests)


@pytest.fixture
def plan(cluster: Any) -> admin_pb2.DrainPlan:
    refusal = common_pb2.Refusal(code="refused", rule="memory", message="no host has 8 GiB free")
    cluster.plan = admin_pb2.DrainPlan(
        node="n1",
        moves=[
            admin_pb2.PlannedMove(vm="a", memory_bytes=2**28, target="n2", estimated_s=1.5),
            admin_pb2.PlannedMove(vm="b", memory_bytes=2**20, target="n3"),
        ],
        stuck=[admin_pb2.StuckVm(vm="c", refusal=refusal)],
        estimated_s=2.0,
    )
    plan: admin_pb2.DrainPlan = cluster.plan
    return plan


async def test_a_dry_run_tells_the_plan_and_changes_nothing(
    ferry: Any, cluster: Any, plan: admin_pb2.DrainPlan
) -> None:
    ran = await ferry("node", "drain", "n1", "--to", "n2", "--dry-run", "-o", "json")
    assert (ran.code, ran.document) == (
        0,
        {
            "node": "n1",
            "moves": [
                {"vm": "a", "memory_bytes": 2**28, "target": "n2", "estimated_s": 1.5},
                {"vm": "b", "memory_bytes": 2**20, "target": "n3", "estimated_s": None},
            ],
            "stuck": [{"vm": "c", "rule": "memory", "message": "no host has 8 GiB free"}],
            "estimated_s": 2.0,
        },
    )
    assert cluster.requests == [admin_pb2.PlanDrainRequest(name="n1", to="n2")]


async def test_a_dry_run_is_a_table_for_people(ferry: Any, plan: admin_pb2.DrainPlan) -> None:
    ran = await ferry("node", "drain", "n1", "--dry-run")
    assert [line.split() for line in ran.out.splitlines()[:3]] == [
        ["VM", "MEMORY", "TARGET", "ESTIMATE"],
        ["a", "256", "MiB", "n2", "1.500", "s"],
        ["b", "1", "MiB", "n3", "-"],
    ]
    stays, takes = ran.out.splitlines()[3:]
    assert (stays, takes) == ("c would stay: no host has 8 GiB free (memory)", "about 2.000 s in all")
    stopped = await ferry("node", "drain", "n1", "--dry-run", "--stuck", "stop")
    assert "c would be turned off: no host has 8 GiB free (memory)" in stopped.out
    plan.Clear()
    plan.node = "n1"
    assert (await ferry("node", "drain", "n1", "--dry-run")).out == "n1 has no VM\n"


async def test_what_the_coordinator_refuses_is_told(ferry: Any, cluster: Any) -> None:
    for method in ("PauseNode", "DrainNode", "PlanDrain", "ResumeNode", "EvictNode"):
        cluster.refusals[method] = FerryError(not_found("there is no node n9"))
    for arguments in (("pause",), ("drain",), ("drain", "--dry-run"), ("resume",), ("evict",)):
        ran = await ferry("node", *arguments, "n9", "-o", "json")
        assert (ran.code, ran.document["error"]["code"]) == (4, "not_found")


def test_a_node_tells_what_it_is_made_of_and_how_far_its_drain_is() -> None:
    capacity = common_pb2.Capacity(
        processor=common_pb2.Processor(vendor="intel", generation=4),
        switches=["external", "backup"],
        domain="ferry.local",
        level="2012",
    )
    node = draining_node("active", "b", reason="no slot")
    node.capacity.CopyFrom(capacity)
    view = views.node_view(node)
    assert (view["processor"], view["switches"]) == ("intel:4", ["external", "backup"])
    assert (view["domain"], view["level"], view["paused"]) == ("ferry.local", "2012", True)
    assert view["drain"] == {
        "state": "active",
        "to": None,
        "reason": "no slot",
        "taken": ["a", "b"],
        "remaining": ["b"],
    }
    bare = views.node_view(admin_pb2.Node(name="n1", state="up"))
    assert [bare[name] for name in ("drain", "paused", "level", "processor")] == [None, False, None, None]


async def test_show_tells_people_the_same(ferry: Any, cluster: Any) -> None:
    node = draining_node("active", "b", reason="no slot")
    node.capacity.processor.vendor, node.capacity.processor.generation = "amd", 2
    cluster.nodes = [node]
    shown = (await ferry("node", "show", "n1")).out
    lines = [line.strip().split(maxsplit=1) for line in shown.splitlines()]
    assert ["state", "draining"] in lines
    assert ["processor", "amd:2"] in lines
    assert ["paused", "it gets no VM"] in lines
    assert ["drain", "active: 1 of 2 VMs have left, on it: b; no slot"] in lines


@pytest.mark.parametrize(
    ("state", "ended"), [("active", False), ("completed", True), ("failed", True)], ids=str
)
def test_two_states_of_a_drain_are_ends(state: str, ended: bool) -> None:
    assert draining.has_ended(draining_node(state)) is ended


@pytest.mark.parametrize(
    ("verb", "cmdlet"),
    [
        ("pause", "Suspend-ClusterNode"),
        ("drain", "Suspend-ClusterNode -Drain"),
        ("resume", "Resume-ClusterNode [-Failback Immediate]"),
        ("evict", "Remove-ClusterNode -Force"),
    ],
)
def test_help_names_the_cmdlet(capsys: pytest.CaptureFixture[str], verb: str, cmdlet: str) -> None:
    assert execute(("node", verb, "--help")) == 0
    assert cmdlet in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("deadline", ["soon", "0s", "200h", "10 fortnights", "-5m"])
def test_a_deadline_is_a_span_of_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, deadline: str
) -> None:
    monkeypatch.setenv("FERRY_COORDINATOR", "127.0.0.1:1")
    assert execute(("node", "drain", "n1", "--deadline", deadline)) == 2
    assert "--deadline" in capsys.readouterr().err


def test_what_is_stuck_stays_or_stops(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(("node", "drain", "n1", "--stuck", "vanish")) == 2
    assert "--stuck" in capsys.readouterr().err
