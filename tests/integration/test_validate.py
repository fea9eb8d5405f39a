"""``ferry cluster validate`` on real processes: a healthy cluster passes, and what is wrong is named."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.faulty_link import FaultyLink
from tests.integration.processes import Cluster

VALIDATE = (sys.executable, "-c", "from ferry_cli.main import main; main()", "cluster", "validate")
COMMAND_S = 30
CLOCK_OFF = "--clock-offset=-5m"
FOREIGN = ("--processor", "amd:1", "--domain", "other.local", "--level", "2016", "--memory", "4TiB")


class OneWayCut(FaultyLink):
    """A link that holds up what one process sends, and passes on everybody else's."""

    def __init__(self) -> None:
        super().__init__()
        self.silenced_pid = 0

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        if self.silenced_pid and owns_port(self.silenced_pid, port):
            await self._hold_up(reader, writer)
            return
        await super()._accept(reader, writer)

    async def _hold_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what comes and answer nothing, until the other end gives up or the link is closed."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            await reader.read(-1)
        finally:
            writer.transport.abort()


def owns_port(pid: int, port: int) -> bool:
    """Whether a process has a TCP socket of that local port."""
    sockets = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            entry = line.split()
            if int(entry[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{entry[9]}]")
    held = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(str(descriptor.readlink()))
        except FileNotFoundError:
            continue  # closed meanwhile
    return bool(sockets & held)


def of_version(version: str, directory: Path) -> list[str]:
    """What a command is started with so that it takes itself for that version of Hyperferry."""
    described = directory / f"hyperferry-{version}.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hyperferry\nVersion: {version}\n")
    path = os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH"))))
    return ["env", f"PYTHONPATH={path}"]


def validate(cluster: Cluster, *options: str) -> tuple[int, Any, str]:
    """The command in the cluster's directory: its exit code, document and messages."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("FERRY_")}
    ran = subprocess.run(
        [*VALIDATE, "--coordinator", cluster.address("coordinator"), "-o", "json", *options],
        cwd=cluster.directory,
        env=kept,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    return ran.returncode, json.loads(ran.stdout), ran.stderr


def found(document: Any) -> dict[str, tuple[str, str]]:
    """By test: its outcome, and what was found."""
    return {test["name"]: (test["outcome"], test["found"]) for test in document["tests"]}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    own = Cluster(tmp_path)
    try:
        own.start_coordinator("--cluster", "east")
        yield own
    finally:
        own.close()


@pytest.fixture
def cut() -> Iterator[OneWayCut]:
    link = OneWayCut()
    yield link
    link.close()


def test_a_healthy_cluster_passes_and_a_dead_host_and_witness_are_named(cluster: Cluster) -> None:
    cluster.start_witness()
    cluster.use_witness()
    for name in ("n1", "n2", "n3"):
        cluster.start_agent(name, "--memory", "1GiB")
    cluster.wait_up("n1", "n2", "n3")
    cluster.wait_votes()
    cluster.create("a", "n1")

    code, document, messages = validate(cluster)
    assert (code, document["ok"]) == (0, True), document
    assert document["duration_s"] < 30
    tests = found(document)
    assert tests["Validate network communication"] == ("pass", "6 paths between nodes, all open")
    assert tests["Validate coordinator communication"][1].startswith("6 paths")
    assert tests["Validate witness communication"][1].startswith("4 paths")
    assert tests["Validate echo ports"] == ("pass", "a guest of n1 answers")
    assert tests["Validate clocks"][0] == "pass"
    [report] = cluster.directory.glob("validation-east-*.html")
    assert report.name in messages
    page = report.read_text(encoding="utf-8")
    assert "The cluster passes" in page
    assert all(name in page for name in tests)

    cluster.kill("n3")
    cluster.kill("witness")
    code, document, _ = validate(cluster, "--report", "other.html")
    assert (code, document["ok"]) == (1, False)
    tests = found(document)
    assert tests["Validate that processes answer"][1].startswith("n3 does not answer")
    assert tests["Validate witness communication"][0] == "failure"
    assert "n1 does not reach the witness" in tests["Validate witness communication"][1]
    assert "The cluster does not pass" in (cluster.directory / "other.html").read_text(encoding="utf-8")


def test_a_wrong_clock_a_foreign_host_an_older_version_too_little_memory_and_a_cut_are_named_each(
    cluster: Cluster, cut: OneWayCut
) -> None:
    behind = f"127.0.1.1:{cut.port}"
    cut.lead_to(behind)
    cluster.start_agent("n1")
    options = (CLOCK_OFF, "--advertise", "127.0.0.1", "--echo-listen", "127.0.0.1:0")
    cluster.start_agent("n2", *options, listen=behind)
    older = of_version("0.0.9", cluster.directory / "older")
    cluster.start_agent("n3", *FOREIGN, "--switches", "storage", prefix=older)
    cluster.wait_up("n1", "n2", "n3")
    cut.silenced_pid = cluster.processes["n1"].pid

    code, document, _ = validate(cluster)
    assert (code, document["ok"]) == (1, False)
    tests = found(document)
    for name, words in {
        "List software versions": "n3 runs version 0.0.9, the coordinator",
        "Validate clocks": "n2 is 5.0 min behind the coordinator's",
        "Validate processor vendors": "n3 has a processor of amd, others of intel",
        "Validate Active Directory configuration": "n3 is in the domain other.local",
        "List memory information": "too little memory: n3 offers 4.0 TiB",
        "Validate network communication": "n2 reaches n1: the path is cut one way",
    }.items():
        outcome, what = tests[name]
        assert (outcome, words in what) == ("failure", True), (name, what)
    outcome, what = tests["Validate network communication"]
    assert what.startswith("n1 does not reach n2:")
    assert "n3 does not reach" not in what
    assert tests["Validate coordinator communication"][0] == "pass"
    newer = "n3 is of level 2016, newer than the cluster's 2012r2"  # older ones are not let in
    assert tests["Validate functional levels"] == ("warning", newer)
    assert "n3 has no virtual switch external" in tests["Validate virtual switches"][1]
