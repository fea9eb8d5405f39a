"""``ferry lab`` on real processes: what it starts it finds again, and it leaves nothing behind."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ferry_cli.lab.processes import find_marked

FERRY = (sys.executable, "-c", "from ferry_cli.main import main; main()")
COMMAND_S = 50
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")


@dataclass
class LabRunner:
    """The ``ferry`` command for the lab of one directory."""

    directory: Path

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FERRY_")}
        return await asyncio.create_subprocess_exec(
            *FERRY,
            *arguments,
            env={**kept, "FERRY_LAB": str(self.directory)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        process = await self.start(*arguments)
        async with asyncio.timeout(COMMAND_S):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def json(self, *arguments: str) -> Any:
        code, out, err = await self.run(*arguments, "-o", "json")
        assert code == 0, f"{arguments}: {code} {out} {err}"
        return json.loads(out)

    def running(self) -> set[str]:
        return {name for name, _ in find_marked(self.directory)}


@asynccontextmanager
async def topology_lab(directory: Path, topology: str) -> AsyncIterator[LabRunner]:
    """A lab of a topology file, with everything that it needs in this directory."""
    file = directory / "topology.yaml"
    file.write_text(topology)
    runner = LabRunner(directory / "lab")
    await runner.json("lab", "up", "--topology", str(file))
    yield runner
    code, _, err = await runner.run("lab", "down")
    assert code == 0, err


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[LabRunner]:
    runner = LabRunner(tmp_path / "lab")
    yield runner
    code, _, err = await runner.run("lab", "down")
    assert code == 0, err
    assert runner.running() == set()


def logs(status: Any) -> set[str]:
    """Names of the log files that are there."""
    return {process["log"] for process in status["processes"] if Path(process["log"]).is_file()}


def states(status: Any) -> dict[str, str]:
    return {process["name"]: process["state"] for process in status["processes"]}


async def test_a_lab_comes_up_is_seen_and_goes_down(lab: LabRunner) -> None:
    status = await lab.json("lab", "up", "--hosts", "2")
    names = {"broker", "witness", "coordinator", "node1", "node2"}
    assert states(status) == dict.fromkeys(names, "running")
    assert lab.running() == names
    assert {node["name"]: node["state"] for node in status["nodes"]} == {"node1": "up", "node2": "up"}
    assert logs(status) == {str(lab.directory / "logs" / f"{name}.log") for name in names}
    assert await lab.json("lab", "status") == status
    assert [node["name"] for node in await lab.json("node", "list")] == ["node1", "node2"]

    code, out, _ = await lab.run("lab", "up", "-o", "json")
    assert (code, json.loads(out)["error"]["rule"]) == (5, "one lab per directory")

    ended = await lab.json("lab", "down")
    assert set(ended["ended"]) == names
    assert lab.running() == set()
    assert not (lab.directory / "lab.json").exists()
    assert not (lab.directory / "run").exists()
    assert (lab.directory / "logs" / "node1.log").is_file()
    code, out, _ = await lab.run("lab", "status", "-o", "json")
    assert (code, json.loads(out)["error"]["code"]) == (4, "not_found")
    assert await lab.json("lab", "down") == {"dir": str(lab.directory), "ended": []}


async def test_processes_are_killed_stopped_and_started_again(lab: LabRunner) -> None:
    before = await lab.json("lab", "up", "--hosts", "2")
    addresses = {process["name"]: process["address"] for process in before["processes"]}
    incarnations = {node["name"]: node["incarnation"] for node in before["nodes"]}

    killed = await lab.json("lab", "kill", "node1")
    assert (killed["state"], killed["pid"]) == ("dead", None)
    code, _, err = await lab.run("lab", "kill", "node1")
    assert (code, "ferry lab start node1" in err) == (5, True)
    started = await lab.json("lab", "start", "node1")
    assert (started["state"], started["address"]) == ("running", addresses["node1"])
    node = await lab.json("node", "show", "node1")
    assert node["state"] == "up"
    assert node["incarnation"] != incarnations["node1"]

    assert (await lab.json("lab", "kill", "node2", "--signal", "STOP"))["state"] == "stopped"
    assert states(await lab.json("lab", "status"))["node2"] == "stopped"
    assert (await lab.run("lab", "start", "node2"))[0] == 5
    assert (await lab.json("lab", "kill", "node2", "--signal", "CONT"))["state"] == "running"

    assert (await lab.json("lab", "kill", "node2/watchdog"))["state"] == "dead"
    orphan = next(each for each in (await lab.json("lab", "status"))["processes"] if each["name"] == "node2")
    assert (orphan["state"], orphan["watchdog_pid"]) == ("running", None)
    assert (await lab.run("lab", "start", "node2"))[0] == 5
    assert (await lab.json("lab", "kill", "node2/power"))["pid"] is None
    assert (await lab.run("lab", "kill", "node2/power"))[0] == 5
    await lab.json("lab", "start", "node2")

    await lab.json("lab", "kill", "coordinator")
    assert (await lab.run("node", "list"))[0] == 3
    assert (await lab.json("lab", "status"))["nodes"] is None
    assert (await lab.json("lab", "start", "coordinator"))["address"] == addresses["coordinator"]
    assert {node["state"] for node in await lab.json("node", "list")} == {"up"}

    await lab.json("lab", "kill", "broker")
    assert (await lab.json("lab", "start", "broker"))["address"] == addresses["broker"]
    assert (await lab.json("lab", "kill", "witness", "--signal", "STOP"))["state"] == "stopped"
    assert (await lab.json("lab", "kill", "witness", "--signal", "CONT"))["state"] == "running"
    await lab.json("lab", "kill", "witness")
    assert states(await lab.json("lab", "status"))["witness"] == "dead"
    assert (await lab.json("lab", "start", "witness"))["address"] == addresses["witness"]
    for nobody in ("node9", "node1/wall", "broker/power", "witness/power"):
        code, out, _ = await lab.run("lab", "kill", nobody, "-o", "json")
        assert (code, json.loads(out)["error"]["code"]) == (4, "not_found")


async def test_down_cleans_up_without_notes_and_frozen_processes(lab: LabRunner) -> None:
    await lab.json("lab", "up", "--hosts", "2")
    await lab.json("lab", "kill", "node1", "--signal", "STOP")
    await lab.json("lab", "kill", "coordinator")
    (lab.directory / "lab.json").write_text('{"format": 1, "processes": [')
    code, _, err = await lab.run("lab", "status")
    assert (code, "ferry lab down" in err) == (1, True)
    (lab.directory / "lab.json").unlink()
    assert (await lab.run("lab", "up"))[0] == 5
    assert set((await lab.json("lab", "down"))["ended"]) == {"broker", "witness", "node1", "node2"}
    assert lab.running() == set()


async def test_an_interrupted_up_leaves_nothing(lab: LabRunner) -> None:
    process = await lab.start("lab", "up", "--hosts", "3")
    assert process.stderr is not None
    async with asyncio.timeout(COMMAND_S):
        await process.stderr.readline()
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 130
    assert lab.running() == set()
    assert not (lab.directory / "lab.json").exists()


async def test_a_process_that_does_not_come_up_is_named_with_its_log(lab: LabRunner) -> None:
    (lab.directory / "nodes").mkdir(parents=True)
    (lab.directory / "nodes" / "node2").write_text("in the way")
    code, out, _ = await lab.run("lab", "up", "-o", "json")
    error = json.loads(out)["error"]
    assert code == 1
    assert error["message"].startswith("node2 ")
    assert str(lab.directory / "logs" / "node2.log") in error["message"]
    assert lab.running() == set()


async def test_labs_in_different_directories_do_not_meet(lab: LabRunner, tmp_path: Path) -> None:
    other = LabRunner(tmp_path / "other")
    try:
        first, second = await asyncio.gather(
            lab.json("lab", "up", "--hosts", "1"), other.json("lab", "up", "--hosts", "1")
        )
        uuids = {node["uuid"] for status in (first, second) for node in status["nodes"]}
        assert len(uuids) == 2
        await other.json("lab", "down")
        assert states(await lab.json("lab", "status"))["node1"] == "running"
    finally:
        await other.run("lab", "down")


async def test_a_lab_goes_on_where_it_was(lab: LabRunner) -> None:
    await lab.json("lab", "up", "--hosts", "1")
    await lab.json("vm", "create", "kept", "--memory", "16MiB", "--no-start")
    await lab.json("lab", "down")
    status = await lab.json("lab", "up", "--hosts", "1")
    assert [vm["name"] for vm in await lab.json("vm", "list")] == ["kept"]
    [witness] = [process for process in status["processes"] if process["name"] == "witness"]
    assert (await lab.json("quorum", "show"))["witness"] == witness["address"], "where it listens now"


@pytest.mark.skipif(
    shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin") is None
    and not os.environ.get("CI"),
    reason="mosquitto is not installed",
)
async def test_mosquitto_serves_in_place_of_the_own_broker(
    lab: LabRunner, tmp_path: Path, unused_tcp_port: int
) -> None:
    assert MOSQUITTO is not None, "in CI mosquitto must be installed"
    broker = await asyncio.create_subprocess_exec(
        MOSQUITTO, "-p", str(unused_tcp_port), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        status = await lab.json("lab", "up", "--hosts", "1", "--broker", f"127.0.0.1:{unused_tcp_port}")
        assert set(states(status)) == {"witness", "coordinator", "node1"}
    finally:
        broker.terminate()
        await broker.wait()
