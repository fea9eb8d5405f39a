"""``ferry cluster show|set``, and ``ferry lab up --resiliency-period``."""

from pathlib import Path
from typing import Any

import pytest

from ferry.v1 import admin_pb2
from ferry_cli.lab import launch, lifecycle, processes
from ferry_cli.lab.processes import ProcessIdentity
from ferry_cli.lab.state import COORDINATOR, Kind, Lab, LabProcess, LabSpec, read_lab, write_lab
from ferry_cli.main import execute
from ferry_types.eras import Era
from ferry_types.errors import FerryError

NOBODY = ProcessIdentity(2**22, 0, "an earlier boot")


@pytest.fixture
def summary(cluster: Any) -> admin_pb2.Cluster:
    cluster.summary = admin_pb2.Cluster(
        name="lab",
        era="2016",
        profile="fast",
        beat_s=0.25,
        lease_s=60.0,
        nodes=[admin_pb2.StateCount(state="paused", count=1), admin_pb2.StateCount(state="up", count=2)],
        policy=admin_pb2.Policy(
            enforced_anti_affinity=True,
            quarantine_threshold=3,
            quarantine_period_s=3600.0,
            quarantine_s=5400.0,
        ),
        scale=64,
    )
    summary: admin_pb2.Cluster = cluster.summary
    return summary


async def test_show_is_an_object_for_programs(ferry: Any, summary: admin_pb2.Cluster) -> None:
    shown = await ferry("cluster", "show", "-o", "json")
    assert (shown.code, shown.document) == (
        0,
        {
            "name": "lab",
            "era": "2016",
            "profile": "fast",
            "beat_s": 0.25,
            "lease_s": 60.0,
            "scale": 64,
            "nodes": {"paused": 1, "up": 2},
            "vms": {},
            "policy": {
                "enforced_anti_affinity": True,
                "quarantine_threshold": 3,
                "quarantine_period_s": 3600.0,
                "quarantine_duration_s": 5400.0,
            },
        },
    )


async def test_show_is_lines_for_people(ferry: Any, summary: admin_pb2.Cluster) -> None:
    shown = (await ferry("cluster", "show")).out
    lines = [line.strip().split(maxsplit=1) for line in shown.splitlines()]
    for line in (
        ["name", "lab"],
        ["era", "2016"],
        ["beat", "250.0 ms"],
        ["lease", "60.000 s"],
        ["nodes", "1 paused, 2 up"],
        ["VMs", "none"],
        ["anti-affinity", "enforced"],
        ["quarantine", "for 90m after 3 losses within 1h"],
    ):
        assert line in lines


async def test_set_tells_the_policy_that_holds_now(ferry: Any, summary: admin_pb2.Cluster) -> None:
    summary.policy.quarantine_threshold = 0
    ran = await ferry("cluster", "set", "--quarantine-threshold", "0")
    lines = [line.split() for line in ran.out.splitlines()]
    assert lines == [["anti-affinity", "enforced"], ["quarantine", "never"]]


@pytest.mark.parametrize(
    ("options", "change"),
    [
        (("--enforced-anti-affinity",), admin_pb2.PolicyChange(enforced_anti_affinity=True)),
        (("--no-enforced-anti-affinity",), admin_pb2.PolicyChange(enforced_anti_affinity=False)),
        (("--quarantine-threshold", "0"), admin_pb2.PolicyChange(quarantine_threshold=0)),
        (
            ("--quarantine-period", "1h", "--quarantine-duration", "2h"),
            admin_pb2.PolicyChange(quarantine_period_s=3600.0, quarantine_s=7200.0),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_set_sends_what_was_named_and_nothing_else(
    ferry: Any,
    cluster: Any,
    summary: admin_pb2.Cluster,
    options: tuple[str, ...],
    change: admin_pb2.PolicyChange,
) -> None:
    ran = await ferry("cluster", "set", *options, "-o", "json")
    assert (ran.code, ran.document["name"]) == (0, "lab")
    assert cluster.requests == [change]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("cluster", "set"), "nothing of the cluster"),
        (("cluster", "set", "--quarantine-threshold", "-1"), "--quarantine-threshold"),
        (("cluster", "set", "--quarantine-threshold", "101"), "--quarantine-threshold"),
        (("cluster", "set", "--quarantine-period", "0s"), "--quarantine-period"),
        (("cluster", "set", "--quarantine-period", "1 year"), "--quarantine-period"),
        (("cluster", "set", "--quarantine-duration", "169h"), "--quarantine-duration"),
        (("lab", "up", "--resiliency-period", "30s"), "--resiliency-period"),
        (("lab", "up", "--era", "2016", "--resiliency-period", "1s"), "--resiliency-period"),
        (("lab", "up", "--era", "2016", "--resiliency-period", "2h"), "--resiliency-period"),
        (("lab", "up", "--era", "2016", "--resiliency-period", "long"), "--resiliency-period"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_malformed_values_are_exit_2_and_name_their_option(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    named: str,
) -> None:
    monkeypatch.setenv("FERRY_COORDINATOR", "127.0.0.1:1")
    assert execute(arguments) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert named in captured.err


@pytest.mark.parametrize(
    ("verb", "cmdlet"), [("show", "Get-Cluster"), ("set", "ClusterEnforcedAntiAffinity")]
)
def test_help_names_the_cmdlet(capsys: pytest.CaptureFixture[str], verb: str, cmdlet: str) -> None:
    assert execute(("cluster", verb, "--help")) == 0
    assert cmdlet in capsys.readouterr().out


def test_a_lab_passes_its_resiliency_period_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "spawn", lambda *_: NOBODY)
    named = LabSpec(era=Era.WS2016, resiliency_period_s=30.0)
    command = launch.start_coordinator(tmp_path, named, "").command
    assert command[command.index("--resiliency-period") + 1] == "30.0s"
    assert command[command.index("--era") + 1] == "2016"
    assert (
        "--resiliency-period" not in launch.start_coordinator(tmp_path, LabSpec(era=Era.WS2016), "").command
    )
    write_lab(tmp_path, Lab(named))
    assert read_lab(tmp_path) == Lab(named)


def test_a_lab_waits_for_the_lease_of_a_former_life() -> None:
    brief, patient = LabSpec(), LabSpec(era=Era.WS2016, resiliency_period_s=300.0)
    assert lifecycle._join_deadline_s(brief) < 40
    assert lifecycle._join_deadline_s(patient) > lifecycle.JOIN_DEADLINE_S + 300


@pytest.mark.parametrize("state", ["up", "paused", "draining", "quarantined"])
async def test_a_node_that_gets_no_vms_has_joined_all_the_same(
    cluster: Any, tmp_path: Path, state: str
) -> None:
    lab = Lab(LabSpec(), (LabProcess(COORDINATOR, Kind.COORDINATOR, (), cluster.address, NOBODY),))
    cluster.nodes = [admin_pb2.Node(name="node1", state=state, incarnation="b")]
    assert await lifecycle._joined(tmp_path, lab, {"node1": "a"}, 1.0) == cluster.nodes


async def test_the_former_life_of_a_node_has_not_joined(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "coordinator.log").touch()
    lab = Lab(LabSpec(), (LabProcess(COORDINATOR, Kind.COORDINATOR, (), cluster.address, NOBODY),))
    cluster.nodes = [admin_pb2.Node(name="node1", state="paused", incarnation="a")]
    with pytest.raises(FerryError):
        await lifecycle._joined(tmp_path, lab, {"node1": "a"}, 1.0)
