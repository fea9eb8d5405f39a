"""Real coordinator and agent processes for tests, each test's own, on free ports, all gone at the end."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc

from ferry.v1 import admin_pb2, admin_pb2_grpc, common_pb2, events_pb2, host_pb2, host_pb2_grpc
from ferry_agent.guest.trace import RunInterval, read_trace
from ferry_types.profiles import PROFILES
from ferry_types.workloads import resolve

MIB = 2**20
DEADLINE_S = 30.0


def eventually(condition: Callable[[], Any], deadline_s: float = DEADLINE_S, what: str = "condition") -> Any:
    """The first truthy value of ``condition``; fails loudly when it does not come in time."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            value = condition()
        except grpc.RpcError:
            value = None
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come true in {deadline_s} s"
        time.sleep(0.02)


class Cluster:
    """One coordinator and its agents. ``prefix`` runs a process elsewhere, for example in a namespace."""

    def __init__(self, directory: Path, profile: str = "fast") -> None:
        self.directory = directory
        self.profile = profile
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.commands: dict[str, Sequence[str]] = {}
        self.channels: dict[str, grpc.Channel] = {}

    # --- processes --------------------------------------------------------------------------------

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process that logs into its own file."""
        self.commands[name] = command
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def address(self, name: str) -> str:
        """Where a process listens, once it does."""
        path = self.directory / f"{name}.address"

        def read() -> str:
            process = self.processes[name]
            assert process.poll() is None, f"{name} ended: {self.log(name)}"
            return path.read_text(encoding="ascii").strip() if path.exists() else ""

        return str(eventually(read, what=f"address of {name}"))

    def log(self, name: str) -> str:
        """The end of what a process has logged."""
        return (self.directory / f"{name}.log").read_text(encoding="utf-8")[-4000:]

    def start_coordinator(
        self, *options: str, listen: str = "127.0.0.1:0", prefix: Sequence[str] = ()
    ) -> str:
        (self.directory / "coordinator.address").unlink(missing_ok=True)
        command = [
            *prefix, sys.executable, "-m", "ferry_coordinator",
            "--dir", str(self.directory / "coordinator"), "--listen", listen, "--profile", self.profile,
            "--address-file", str(self.directory / "coordinator.address"), *options,
        ]  # fmt: skip
        self.start("coordinator", command)
        return self.address("coordinator")

    def start_witness(self, *options: str) -> None:
        """A file-share witness; started again, it keeps its records and takes another port."""
        (self.directory / "witness.address").unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "ferry_witness", "--dir", str(self.directory / "witness"),
            "--address-file", str(self.directory / "witness.address"), *options,
        ]  # fmt: skip
        self.start("witness", command)

    def restart_coordinator(self) -> None:
        """Start it again where it was."""
        address = (self.directory / "coordinator.address").read_text(encoding="ascii").strip()
        command = list(self.commands["coordinator"])
        command[command.index("--listen") + 1] = address
        self.start("coordinator", command)

    def start_agent(
        self,
        name: str,
        *options: str,
        listen: str = "127.0.0.1:0",
        prefix: Sequence[str] = (),
        module: str = "ferry_agent",
    ) -> None:
        address_file = self.directory / f"{name}.address"
        address_file.unlink(missing_ok=True)
        coordinator = (self.directory / "coordinator.address").read_text(encoding="ascii").strip()
        command = [
            *prefix, sys.executable, "-m", module, "--name", name,
            "--dir", str(self.directory / name), "--coordinator", coordinator, "--listen", listen,
            "--address-file", str(address_file), "--trace", str(self.directory / f"{name}.trace"), *options,
        ]  # fmt: skip
        self.start(name, command)

    def start_watched(self, name: str, *options: str) -> None:
        """An agent under its watchdog, as users start it; the process of that name is the watchdog."""
        self.start_agent(name, *options, module="ferry_agent.watchdog")

    def agent_pid(self, name: str) -> int:
        """The process that has claimed the data directory."""
        return int((self.directory / name / "agent.lock").read_text(encoding="ascii"))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Signal a process; SIGKILL also reaps it."""
        self.processes[name].send_signal(number)
        if number is signal.SIGKILL:
            self.processes[name].wait(DEADLINE_S)

    def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)

    def close(self) -> None:
        """End every process; nothing is left over."""
        for channel in self.channels.values():
            channel.close()
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for name, process in self.processes.items():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
                raise AssertionError(f"{name} did not end on SIGTERM: {self.log(name)}") from None

    # --- the coordinator's answers ----------------------------------------------------------------

    def channel(self, address: str) -> Any:
        """A blocking channel; the generated stubs are typed for asyncio only, hence Any."""
        if address not in self.channels:
            options = [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 200)]
            self.channels[address] = grpc.insecure_channel(address, options=options)
        return self.channels[address]

    @property
    def admin(self) -> Any:
        address = (self.directory / "coordinator.address").read_text(encoding="ascii").strip()
        return admin_pb2_grpc.AdminStub(self.channel(address))

    def host(self, node: str) -> Any:
        """The Host service of a node's agent."""
        return host_pb2_grpc.HostStub(self.channel(self.address(node)))

    def nodes(self) -> dict[str, admin_pb2.Node]:
        answer = self.admin.ListNodes(admin_pb2.ListNodesRequest(), timeout=5)
        return {node.name: node for node in answer.nodes}

    def set_quorum(self, **change: Any) -> admin_pb2.Quorum:
        """Name a witness to the cluster (``witness=address``, empty: none), or set ``dynamic``."""
        answer: admin_pb2.Quorum = self.admin.SetQuorum(admin_pb2.QuorumChange(**change), timeout=5)
        return answer

    def use_witness(self) -> None:
        """Name the witness that was started to the cluster."""
        self.set_quorum(witness=self.address("witness"))

    def wait_votes(self) -> None:
        """Until everybody who should has a vote."""
        eventually(lambda: not self.quorum().reason, what="votes")

    def let_votes_be_known(self) -> None:
        """Hosts learn with their grants who votes: give them two beats."""
        time.sleep(2 * PROFILES[self.profile].beat_s)

    def events(self) -> list[events_pb2.Event]:
        return list(self.admin.ListEvents(admin_pb2.EventQuery(), timeout=5).events)

    def quorum(self) -> admin_pb2.Quorum:
        answer: admin_pb2.Quorum = self.admin.ShowQuorum(admin_pb2.QuorumQuery(), timeout=5)
        return answer

    def wait_up(self, *names: str, deadline_s: float = DEADLINE_S) -> None:
        """Until all these nodes are up."""

        def up() -> bool:
            for name in names:
                assert self.processes[name].poll() is None, f"{name} ended: {self.log(name)}"
            nodes = self.nodes()
            return all(name in nodes and nodes[name].state == "up" for name in names)

        eventually(up, deadline_s, f"{names} up")

    def create(self, name: str, node: str = "", **spec: Any) -> admin_pb2.Vm:
        memory_bytes = spec.pop("memory_bytes", 32 * MIB)
        fill = spec.pop("fill", common_pb2.FillSpec(kind="random"))
        workload = make_workload(memory_bytes, **spec)
        request = admin_pb2.CreateVmRequest(
            spec=common_pb2.VmSpec(
                name=name, memory_bytes=memory_bytes, workload=workload, fill=fill, priority="medium"
            ),
            node=node,
        )
        answer: admin_pb2.Vm = self.admin.CreateVm(request, timeout=60)
        return answer

    def vm(self, name: str) -> admin_pb2.Vm:
        answer: admin_pb2.VmList = self.admin.ListVms(admin_pb2.ListVmsRequest(name=name), timeout=5)
        return answer.vms[0]

    def migrate(self, vm: str, to: str, **options: Any) -> str:
        chosen = {"type": "live", "option": "tcpip", "pass_limit": 10, "blackout_allowed_s": 0.05, **options}
        request = admin_pb2.MigrateVmRequest(vm=vm, to=to, options=common_pb2.MigrationOptions(**chosen))
        return str(self.admin.MigrateVm(request, timeout=5).id)

    def migration(self, migration_id: str) -> admin_pb2.MigrationRecord:
        query = admin_pb2.ListMigrationsRequest(id=migration_id)
        answer: admin_pb2.MigrationList = self.admin.ListMigrations(query, timeout=5)
        return answer.migrations[0]

    def ended(self, migration_id: str, deadline_s: float = DEADLINE_S) -> admin_pb2.MigrationRecord:
        """The record of a move, once it has ended."""

        def look() -> admin_pb2.MigrationRecord | None:
            record = self.migration(migration_id)
            return record if record.state in ("completed", "failed", "cancelled") else None

        record = eventually(look, deadline_s, f"end of {migration_id}")
        assert isinstance(record, admin_pb2.MigrationRecord)
        return record

    def wait_running(self, vm: str, deadline_s: float = DEADLINE_S) -> admin_pb2.Vm:
        def look() -> admin_pb2.Vm | None:
            found = self.vm(vm)
            return found if found.state == "running" else None

        found = eventually(look, deadline_s, f"{vm} running")
        assert isinstance(found, admin_pb2.Vm)
        return found

    def audit(self, vm: str) -> host_pb2.AuditReport:
        address = self.vm(vm).host_address
        stub: Any = host_pb2_grpc.HostStub(self.channel(address))
        report: host_pb2.AuditReport = stub.Audit(host_pb2.AuditRequest(vm=vm), timeout=30)
        return report

    def failpoint(self, node: str, name: str, action: str) -> None:
        self.host(node).SetFailpoint(host_pb2.Failpoint(name=name, action=action), timeout=5)

    def wait_holding(self, node: str, name: str) -> None:
        """Until something waits at a failpoint."""

        def holding() -> bool:
            answer = self.host(node).ListFailpoints(host_pb2.FailpointQuery(), timeout=5)
            return any(point.name == name and point.holding for point in answer.failpoints)

        eventually(holding, what=f"{node} holding at {name}")

    # --- what can be seen from outside ------------------------------------------------------------

    def trace(self, name: str) -> list[RunInterval]:
        """When the guests of a host ran, by its own record."""
        return read_trace(self.directory / f"{name}.trace")

    def check_traces(self) -> None:
        """No VM ran on two hosts at one time, by the hosts' own records of the shared monotonic clock."""
        runs = [
            (interval.vm, interval.begin_ns, interval.end_ns, path.stem)
            for path in self.directory.glob("*.trace")
            for interval in read_trace(path)
        ]
        for (vm, _, end_ns, node), (next_vm, begin_ns, _, next_node) in pairwise(sorted(runs)):
            assert vm != next_vm or begin_ns >= end_ns, f"{vm} ran on {node} and {next_node} at once"

    def resident_bytes(self, name: str) -> int:
        statm = Path(f"/proc/{self.processes[name].pid}/statm").read_text(encoding="ascii")
        return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def make_workload(memory_bytes: int, **changes: Any) -> common_pb2.WorkloadSpec:
    """A resolved workload as the CLI would send it."""
    spec = resolve(changes.pop("workload", "idle"), memory_bytes, **changes)
    return common_pb2.WorkloadSpec(
        profile=spec.profile,
        write_rate_bytes_per_s=spec.write_rate_bytes_per_s,
        read_rate_bytes_per_s=spec.read_rate_bytes_per_s,
        working_set_bytes=spec.working_set_bytes,
        access=spec.access,
        compressibility=spec.compressibility,
    )


@contextlib.contextmanager
def running_cluster(
    directory: Path, hosts: int = 2, *options: str, profile: str = "fast"
) -> Iterator[Cluster]:
    """A coordinator and ``hosts`` agents n1, n2, ... that are up, and have the votes that they should.

    An even number has a witness. ``options`` go to every agent.
    """
    cluster = Cluster(directory, profile)
    try:
        if hosts % 2 == 0:
            cluster.start_witness()
        cluster.start_coordinator()
        if hosts % 2 == 0:
            cluster.use_witness()
        names = [f"n{number}" for number in range(1, hosts + 1)]
        for name in names:
            cluster.start_agent(name, *options)
        cluster.wait_up(*names)
        cluster.wait_votes()
        yield cluster
    finally:
        cluster.close()
