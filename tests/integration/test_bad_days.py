"""Bad input and bad days, from outside: one clear answer, the right exit code, and nothing has changed."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.integration.processes import eventually

from ferry.v1 import admin_pb2, admin_pb2_grpc, host_pb2, host_pb2_grpc, membership_pb2, migration_pb2
from ferry_cli.lab.processes import find_marked
from ferry_cli.main import execute

FERRY = (sys.executable, "-c", "from ferry_cli.main import main; main()")
COMMAND_S = 30
LEASE_S = 2.0
"""Of the profile ``fast``."""

HALF_OPEN_STREAMS = 2000
"""More than a server takes at a time."""

GROWTH_BYTES_MAX = 150 * 2**20
"""What a process may grow by while it is molested: gRPC's own buffers for a thousand calls."""


@dataclass
class Lab:
    """A lab of two hosts of 256 MiB each; ``web`` runs on node1, ``still`` is off."""

    directory: Path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FERRY_")}
        return subprocess.Popen(
            (*FERRY, *arguments),
            env={**kept, "FERRY_LAB": str(self.directory)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=COMMAND_S)
        finally:
            process.kill()
        return process.returncode, out, err

    def json(self, *arguments: str) -> Any:
        code, out, err = self.run(*arguments, "-o", "json")
        assert code == 0, f"{arguments}: {code} {out} {err}"
        return json.loads(out)

    def process(self, name: str) -> dict[str, Any]:
        document = json.loads((self.directory / "lab.json").read_text())
        found: dict[str, Any] = next(entry for entry in document["processes"] if entry["name"] == name)
        return found

    def channel(self, name: str) -> Any:
        """A blocking channel; the generated stubs are typed for asyncio only, hence Any."""
        return grpc.insecure_channel(self.process(name)["address"])

    @property
    def admin(self) -> Any:
        return admin_pb2_grpc.AdminStub(self.channel("coordinator"))

    def host(self, node: str) -> Any:
        return host_pb2_grpc.HostStub(self.channel(node))

    def what_there_is(self) -> tuple[object, ...]:
        """All that a bad command must not change."""
        admin = self.admin
        nodes = admin.ListNodes(admin_pb2.ListNodesRequest(), timeout=5).nodes
        return (
            list(admin.ListVms(admin_pb2.ListVmsRequest(), timeout=5).vms),
            [(node.name, node.incarnation, list(node.vms), node.memory_used_bytes) for node in nodes],
            len(admin.ListMigrations(admin_pb2.ListMigrationsRequest(), timeout=5).migrations),
        )

    def move_state(self, id_: str) -> str:
        query = admin_pb2.ListMigrationsRequest(id=id_)
        return str(self.admin.ListMigrations(query, timeout=5).migrations[0].state)


@dataclass
class Refusals:
    """The errors of commands that fail. The commands run in this process, where they start sooner."""

    captured: pytest.CaptureFixture[str]

    def of(self, command: str) -> tuple[int, dict[str, Any]]:
        """Exit code and error of a command."""
        code = execute([*command.split(), "-o", "json"])
        out, _ = self.captured.readouterr()
        assert code != 0, f"{command} did not fail: {out}"
        error: dict[str, Any] = json.loads(out)["error"]
        assert set(error) == {"code", "rule", "message", "hint"}
        assert error["message"]
        return code, error


@pytest.fixture
def refusals(lab: Lab, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refusals:
    monkeypatch.delenv("FERRY_COORDINATOR", raising=False)
    monkeypatch.setenv("FERRY_LAB", str(lab.directory))
    return Refusals(capsys)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    running = Lab(tmp_path_factory.mktemp("bad") / "lab")
    try:
        running.json("lab", "up", "--hosts", "2", "--memory", "256MiB", "--failpoints")
        running.json("vm", "create", "web", "--memory", "64MiB", "--workload", "web", "--node", "node1")
        running.json("vm", "create", "still", "--memory", "64MiB", "--no-start")
        yield running
    finally:
        running.run("lab", "down")
        assert not list(find_marked(running.directory))


BAD_COMMANDS = [
    ("vm create x --memory 3MiB", 2, None, "out of range"),
    ("vm create x --memory 4097KiB", 2, None, "multiple of 4096"),
    ("vm create x --memory lots", 2, None, "is not a size"),
    ("vm create x --memory 64furlongs", 2, None, "unit"),
    ("vm create ../x", 2, None, "name"),
    ("vm create x --workload chess", 2, None, "workload"),
    ("vm create x --write-rate 5MiB", 2, None, "rate"),
    ("vm create x --memory 16MiB --working-set 1GiB", 2, None, "working set"),
    ("vm create x --memory 512MiB", 5, "memory", "the most is"),
    ("vm create x --memory 200MiB --node node1", 5, "memory", "node1 is full"),
    ("vm create x --memory 16MiB --fill /no/such/file", 1, None, "/no/such/file"),
    ("vm create x --memory 16MiB --fill /dev/zero", 1, None, "neither a file nor a directory"),
    ("vm create x --node nowhere", 4, None, "nowhere"),
    ("vm create web", 5, "unique name", "web"),
    ("vm migrate web --to node1", 5, "same node", "node1"),
    ("vm migrate web --to nowhere", 4, None, "nowhere"),
    ("vm migrate nobody --to node2", 4, None, "nobody"),
    ("vm migrate still --to node2", 5, "vm running", "does not run"),
    ("vm remove web", 5, "vm off", "stop it first"),
    ("vm stop still", 5, "vm running", "off already"),
    ("migration show m99", 4, None, "m99"),
    ("node show nowhere", 4, None, "nowhere"),
    ("events --since 10x", 2, None, "duration"),
    ("lab kill nobody", 4, None, "node1"),
    ("lab start node1", 5, "process dead", "running"),
]


def test_bad_commands_are_refused_with_words_and_change_nothing(lab: Lab, refusals: Refusals) -> None:
    before = lab.what_there_is()
    for command, code, rule, words in BAD_COMMANDS:
        exit_code, error = refusals.of(command)
        assert (exit_code, error["rule"]) == (code, rule), f"{command}: {error}"
        assert words in error["message"] + (error["hint"] or ""), f"{command}: {error}"
    assert lab.what_there_is() == before


def test_without_a_coordinator_every_command_says_so(lab: Lab, refusals: Refusals) -> None:
    commands = [
        "node list", "node show node1", "vm list", "vm show web", "vm create x", "vm start still",
        "vm stop web", "vm remove still", "vm migrate web", "vm ping web --count 1", "vm audit web",
        "migration list", "migration show m1", "migration watch m1", "migration cancel m1",
        "events", "events --follow",
    ]  # fmt: skip
    before = lab.what_there_is()
    lab.json("lab", "kill", "coordinator")
    try:
        for command in commands:
            code, error = refusals.of(command)
            assert (code, error["code"]) == (3, "unreachable"), f"{command}: {error}"
    finally:
        lab.json("lab", "start", "coordinator")
    eventually(lambda: lab.what_there_is() == before, what="the same cluster")


def test_a_moving_vm_is_left_alone_and_its_watchers_may_go(lab: Lab, refusals: Refusals) -> None:
    node = lab.json("vm", "show", "web")["node"]
    other = "node2" if node == "node1" else "node1"
    host = lab.host(node)
    host.SetFailpoint(host_pb2.Failpoint(name="source.copying", action="hold"), timeout=5)
    waiting = lab.start("vm", "migrate", "web", "--to", other)
    eventually(lambda: lab.json("vm", "show", "web")["migration"], what="the move")
    move = lab.json("vm", "show", "web")["migration"]
    for command in (f"vm migrate web --to {other}", "vm stop web", "vm remove web"):
        code, error = refusals.of(command)
        assert (code, error["code"]) == (5, "refused"), f"{command}: {error}"

    waiting.send_signal(signal.SIGTERM)
    _, said = waiting.communicate(timeout=COMMAND_S)
    assert waiting.returncode == 130
    assert f"ferry migration cancel {move}" in said
    assert lab.move_state(move) == "copying"

    lab.json("migration", "cancel", move)
    host.SetFailpoint(host_pb2.Failpoint(name="source.copying", action="off"), timeout=5)
    eventually(lambda: lab.move_state(move) == "cancelled", what="the cancelled move")
    vm = lab.json("vm", "show", "web")
    assert (vm["state"], vm["node"]) == ("running", node)


def test_processes_whose_ports_or_files_are_taken_say_which(lab: Lab, tmp_path: Path) -> None:
    coordinator = lab.process("coordinator")["address"]
    node = lab.json("node", "show", "node1")
    port = coordinator.rpartition(":")[2]
    store = ("coordinator", "run")
    agent = ("agent", "run", "--name", "late", "--coordinator", coordinator)
    cases = {
        (*store, "--metrics-listen", coordinator): (1, coordinator),
        (*store, "--address-file", "/no/such/file"): (1, "/no/such/file"),
        ("witness", "run", "--listen", coordinator): (1, port),
        ("witness", "run", "--dir", str(lab.directory / "witness")): (5, "another witness"),
        (*agent, "--listen", coordinator): (1, port),
        (*agent, "--metrics-listen", coordinator): (1, coordinator),
        (*agent, "--echo-listen", node["echo_address"]): (1, "UDP"),
        (*agent, "--name", "node1"): (5, "node1"),
        (*agent, "--dir", str(lab.directory / "nodes" / "node1")): (5, "another agent"),
    }
    before = lab.what_there_is()
    with ThreadPoolExecutor(3) as pool:
        runs = [
            pool.submit(lab.run, *command[:2], "--dir", str(tmp_path / str(number)), *command[2:])
            for number, command in enumerate(cases)
        ]
        answers = [run.result() for run in runs]
    for (command, (expected, words)), (code, _, err) in zip(cases.items(), answers, strict=True):
        assert (code, "Traceback" in err) == (expected, False), f"{command}: {err}"
        assert words in err, f"{command}: {err}"
    assert lab.what_there_is() == before


def test_hostile_clients_cost_the_processes_little_and_the_guests_nothing(lab: Lab) -> None:
    before = lab.what_there_is()
    addresses = {name: lab.process(name)["address"] for name in ("coordinator", "node1")}
    pids = {name: lab.process(name)["identity"]["pid"] for name in addresses}
    resident = {name: resident_bytes(pid) for name, pid in pids.items()}
    pinging = lab.start("vm", "ping", "web", "--count", "300", "-o", "json")

    for address in addresses.values():
        for opening in (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            with contextlib.suppress(OSError), connected(address) as garbage:
                garbage.sendall(opening + os.urandom(4096))
    flood_with_datagrams(lab.json("node", "show", "node1")["echo_address"])
    asyncio.run(half_open(addresses["coordinator"], "/ferry.v1.Membership/Attend"))
    asyncio.run(half_open(addresses["node1"], "/ferry.v1.Migration/Bulk"))
    assert_refused(addresses["coordinator"], "/ferry.v1.Membership/Attend", membership_pb2.FromHost())
    assert_refused(addresses["node1"], "/ferry.v1.Migration/Control", migration_pb2.ControlFromSource())
    assert_refused(addresses["node1"], "/ferry.v1.Migration/Bulk", migration_pb2.PageFrame())
    query = admin_pb2.EventQuery(limit=2**32 - 1, since_us=1)
    assert lab.admin.ListEvents(query, timeout=10).events

    for name, pid in pids.items():
        assert resident_bytes(pid) < resident[name] + GROWTH_BYTES_MAX, name
    out, _ = pinging.communicate(timeout=COMMAND_S)
    pinged = json.loads(out)
    # A flooded socket may lose a datagram; the guest stands still for no longer than a busy machine takes.
    assert (pinged["sent"], pinged["steps_fell"]) == (300, 0)
    assert pinged["longest_gap_s"] < LEASE_S
    assert lab.json("vm", "audit", "web")["ok"]
    assert lab.what_there_is() == before


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def flood_with_datagrams(address: str) -> None:
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for size in range(1000):
            sender.sendto(os.urandom(size), (host, int(port)))


async def half_open(address: str, method: str) -> None:
    """Open more streams than are allowed and say nothing on them, until one is turned away.

    The first that ends is: the others have seconds to say something, and their ends are of no interest.
    """
    async with grpc.aio.insecure_channel(address) as channel:
        open_stream: Any = channel.stream_stream(method)
        streams = [open_stream() for _ in range(HALF_OPEN_STREAMS)]
        codes = [asyncio.ensure_future(stream.code()) for stream in streams]
        ended, _ = await asyncio.wait(codes, timeout=COMMAND_S, return_when=asyncio.FIRST_COMPLETED)
        assert ended, "none is turned away"
        # Whether the server or gRPC's core turns it away is a matter of which is faster.
        assert ended.pop().result() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED)
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*codes)


def assert_refused(address: str, method: str, first: Any) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as raised:
        list(channel.stream_stream(method)(iter([first.SerializeToString()]), timeout=10))
    assert raised.value.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


def resident_bytes(pid: int) -> int:
    statm = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
