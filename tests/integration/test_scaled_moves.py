"""A cluster at scale, of real processes: times as the arithmetic says, figures emulated, memory small."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.test_cli_lab import LabRunner, topology_lab

from ferry_types.limits import PAGE_SIZE
from ferry_types.links import goodput_bytes_per_s
from ferry_types.units import parse_rate

SCALE = 64
TOPOLOGY = f"""
scale: {SCALE}
networks: {{live: {{role: migration}}}}
hosts:
  node1:
    memory: 16GiB
    nics: {{live: {{network: live, rate: 10Gbit/s}}}}
  node2:
    memory: 16GiB
    nics: {{live: {{network: live, rate: 10Gbit/s}}}}
"""
GIB = 2**30
MEMORY_BYTES = 3 * GIB
EXPECTED_S = MEMORY_BYTES / goodput_bytes_per_s(parse_rate("10Gbit/s"), 1500)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[LabRunner]:
    async with topology_lab(tmp_path, TOPOLOGY) as runner:
        yield runner


async def test_a_large_vm_moves_as_it_would_and_takes_little(lab: LabRunner, tmp_path: Path) -> None:
    agent = await _agent_pid(lab)
    resident_before_bytes = _resident_bytes(agent)
    created = await lab.json(
        *("vm", "create", "big", "--memory", "3GiB", "--fill", "random", "--node", "node1"),
        *("--workload", "web", "--working-set", "64MiB", "--write-rate", "8MiB/s"),
    )
    assert created["memory_bytes"] == MEMORY_BYTES
    assert _resident_bytes(agent) - resident_before_bytes < MEMORY_BYTES / SCALE + 32 * 2**20
    moved = await _moved_in_the_time_that_the_arithmetic_says(lab)
    _speaks_of_all_its_memory(moved)
    await _everybody_speaks_of_the_same_vm(lab, moved)
    await _what_does_not_fit_is_refused(lab)
    await _a_host_of_another_scale_is_turned_away(lab, tmp_path)


async def _moved_in_the_time_that_the_arithmetic_says(lab: LabRunner) -> dict[str, Any]:
    """None may be faster; of three, one has to be as fast, on a machine that others use too."""
    totals_s = []
    for node in ("node2", "node1", "node2"):
        moved: dict[str, Any] = await lab.json("vm", "migrate", "big", "--to", node, "--verify")
        assert (moved["state"], moved["verified"]) == ("completed", True), moved
        took_s = moved["passes"][0]["duration_s"]
        assert took_s > EXPECTED_S * 0.97
        # Chasing what a guest of 8 MiB/s dirties, and the hand-off, is little beside that.
        if took_s < EXPECTED_S * 1.1 and moved["total_s"] < EXPECTED_S * 1.1 + 0.5:
            return moved
        totals_s.append(moved["total_s"])
    pytest.fail(f"moves took {totals_s} s, where {EXPECTED_S:.3f} s are due")


def _speaks_of_all_its_memory(moved: dict[str, Any]) -> None:
    assert moved["memory_bytes"] == MEMORY_BYTES
    first = moved["passes"][0]
    assert 0.999 * MEMORY_BYTES / PAGE_SIZE < first["pages_sent"] <= MEMORY_BYTES / PAGE_SIZE
    assert 0.999 * MEMORY_BYTES < first["bytes_sent"] < 1.02 * MEMORY_BYTES
    assert moved["bytes_sent"] == sum(each["bytes_sent"] for each in (*moved["passes"], moved["final"]))


async def _everybody_speaks_of_the_same_vm(lab: LabRunner, moved: dict[str, Any]) -> None:
    shown = await lab.json("migration", "show", moved["id"])
    assert shown["estimate"]["brownout_s"] == pytest.approx(EXPECTED_S, rel=0.1)
    assert shown["estimate"]["bytes_sent"] == pytest.approx(moved["bytes_sent"], rel=0.1)
    audit = await lab.json("vm", "audit", "big")
    assert audit["ok"], audit["errors"]
    assert audit["pages_checked"] > 0.98 * MEMORY_BYTES / PAGE_SIZE
    nodes = {node["name"]: node for node in await lab.json("node", "list")}
    assert nodes[moved["target"]]["memory_used_bytes"] == MEMORY_BYTES
    assert (nodes["node2"]["memory_bytes"], nodes["node2"]["scale"]) == (16 * GIB, SCALE)
    assert (await lab.json("cluster", "show"))["scale"] == SCALE
    assert (await lab.json("lab", "status"))["scale"] == SCALE
    (network,) = await lab.json("network", "list")
    assert {nic["rate_bytes_per_s"] for nic in network["nics"]} == {parse_rate("10Gbit/s")}


async def _what_does_not_fit_is_refused(lab: LabRunner) -> None:
    code, _, err = await lab.run("vm", "create", "odd", "--memory", "128MiB")
    assert code == 5
    assert "at scale 64 a VM has at least 256 MiB" in err
    assert [vm["name"] for vm in await lab.json("vm", "list")] == ["big"]


async def _a_host_of_another_scale_is_turned_away(lab: LabRunner, tmp_path: Path) -> None:
    coordinator = (await lab.json("lab", "status"))["coordinator"]
    options = ("--name", "odd", "--dir", str(tmp_path / "odd"), "--coordinator", coordinator)
    code, _, err = await lab.run("agent", "run", *options, "--scale", "32")
    assert code == 5
    assert re.search("odd has scale 32, node[12] has scale 64: one cluster has one scale", err), err
    assert "start its agent with --scale 64" in err
    assert {node["name"] for node in await lab.json("node", "list")} == {"node1", "node2"}


async def _agent_pid(lab: LabRunner) -> int:
    """Of node1."""
    status = await lab.json("lab", "status")
    (pid,) = (process["pid"] for process in status["processes"] if process["name"] == "node1")
    return int(pid)


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * PAGE_SIZE
