"""What goes wrong in each phase of a move, and what must be true after it, between real processes.

The guests' own traces tell whether one ever ran on two hosts at a time; their books, whether a page was lost.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.faulty_link import FaultyLink, Way
from tests.integration.echo import echo_once
from tests.integration.processes import Cluster, eventually

from ferry.v1 import host_pb2_grpc
from ferry_agent import failpoints
from ferry_types.profiles import PROFILES

LEASE_S = PROFILES["fast"].lease_s
SHORT_S, LONG_S = 0.3 * LEASE_S, 3 * LEASE_S
BUSY = {"workload": "web", "write_rate_bytes_per_s": 8 * 2**20, "working_set_bytes": 8 * 2**20}
VM = "vm"
SOURCE, TARGET, SPARE, COORDINATOR = "n1", "n2", "n3", "coordinator"
ROLES = {"source": SOURCE, "target": TARGET, COORDINATOR: COORDINATOR}
PHASES = failpoints.NAMES
"""Held when the fault strikes; what comes next happens under it."""


class LinkedCluster(Cluster):
    """A cluster whose hosts reach the coordinator, and the target of a move, over links that can be cut."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.links: dict[str, FaultyLink] = {}

    def link(self, name: str) -> FaultyLink:
        self.links[name] = FaultyLink()
        return self.links[name]

    def start_linked(self, name: str) -> None:
        """An agent that listens on 127.0.1.1, behind a link on the same port of 127.0.0.1."""
        to_coordinator, to_agent = self.link(f"{name}-coordinator"), self.link(f"peers-{name}")
        to_coordinator.lead_to(self.address("coordinator"))
        to_agent.lead_to(f"127.0.1.1:{to_agent.port}")
        self.start(name, [
            sys.executable, "-m", "ferry_agent", "--name", name, "--dir", str(self.directory / name),
            "--coordinator", to_coordinator.address, "--listen", f"127.0.1.1:{to_agent.port}",
            "--advertise", "127.0.0.1", "--echo-listen", "127.0.0.1:0",
            "--trace", str(self.directory / f"{name}.trace"), "--failpoints",
        ])  # fmt: skip

    def host(self, node: str) -> Any:
        """Its services, past the link."""
        return host_pb2_grpc.HostStub(self.channel(f"127.0.1.1:{self.links[f'peers-{node}'].port}"))

    def close(self) -> None:
        try:
            super().close()
        finally:
            for link in self.links.values():
                link.close()


@contextmanager
def linked_cluster(directory: Path) -> Iterator[LinkedCluster]:
    """A coordinator and three hosts that are up."""
    cluster = LinkedCluster(directory)
    try:
        cluster.start_coordinator()
        for name in (SOURCE, TARGET, SPARE):
            cluster.start_linked(name)
        cluster.wait_up(SOURCE, TARGET, SPARE)
        cluster.wait_votes()
        cluster.let_votes_be_known()
        yield cluster
    finally:
        cluster.close()


@dataclass(frozen=True)
class Fault:
    """``strike`` and ``undo``; ``role``: of whom it ``kills`` or freezes, if it does.

    ``keeps_memory``: whatever becomes of the move, the VM must not have been booted anew.
    """

    name: str
    strike: Callable[[LinkedCluster], None]
    undo: Callable[[LinkedCluster], None]
    lasts_s: float
    role: str = ""
    kills: bool = False
    keeps_memory: bool = False

    @property
    def dead_host(self) -> str:
        """Which of the hosts is not there afterwards, or empty: the coordinator is started again."""
        return ROLES[self.role] if self.kills and self.role != COORDINATOR else ""


def _kill(role: str) -> Fault:
    def undo(cluster: LinkedCluster) -> None:
        if role == COORDINATOR:
            cluster.restart_coordinator()

    return Fault(
        f"kill {role}",
        lambda cluster: cluster.kill(ROLES[role]),
        undo,
        SHORT_S,
        role,
        kills=True,
        keeps_memory=role == COORDINATOR,
    )


def _freeze(role: str, seconds: float) -> Fault:
    return Fault(
        f"freeze {role} for {seconds / LEASE_S:.1f} leases",
        lambda cluster: cluster.signal(ROLES[role], signal.SIGSTOP),
        lambda cluster: cluster.signal(ROLES[role], signal.SIGCONT),
        seconds,
        role,
        keeps_memory=role == COORDINATOR or seconds < LEASE_S,
    )


def _cut(link: str, ways: tuple[Way, ...]) -> Fault:
    return Fault(
        f"cut {link} {' and '.join(ways)}",
        lambda cluster: cluster.links[link].cut(*ways),
        lambda cluster: cluster.links[link].heal(broken=True),
        LONG_S,
        keeps_memory=link.startswith("peers"),
    )


WAYS: tuple[tuple[Way, ...], ...] = (("there",), ("back",), ("there", "back"))
FAULTS = (
    *(_kill(role) for role in ROLES),
    *(_freeze(role, seconds) for role in ROLES for seconds in (SHORT_S, LONG_S)),
    *(
        _cut(link, ways)
        for link in (f"{SOURCE}-coordinator", f"{TARGET}-coordinator", f"peers-{TARGET}")
        for ways in WAYS
    ),
)


def survive(cluster: LinkedCluster, phase: str, fault: Fault) -> None:
    """Hold a move in a phase, let a fault strike, go on under it, undo it; then all must be well."""
    holder = SOURCE if phase.startswith("source.") else TARGET
    cluster.create(VM, SOURCE, **BUSY)
    boot_epoch = echo_once(cluster.vm(VM).echo_address, VM).boot_epoch
    cluster.failpoint(holder, phase, "hold")
    move = cluster.migrate(VM, TARGET, verify=True)
    cluster.wait_holding(holder, phase)
    fault.strike(cluster)
    holder_is_away = bool(fault.role) and ROLES[fault.role] == holder
    if not holder_is_away:
        cluster.failpoint(holder, phase, "off")
    time.sleep(fault.lasts_s)  # that is the fault
    fault.undo(cluster)
    if holder_is_away and not fault.kills:
        cluster.failpoint(holder, phase, "off")
    cluster.ended(move)
    _all_is_well(cluster, fault)
    if fault.keeps_memory:
        kept = echo_once(cluster.vm(VM).echo_address, VM).boot_epoch == boot_epoch
        assert kept, f"{fault.name} at {phase} has cost the VM its memory"


def _all_is_well(cluster: LinkedCluster, fault: Fault) -> None:
    """One host runs the VM and knows it, its books are clean, and it never ran on two."""
    survivors = {SOURCE, TARGET, SPARE} - {fault.dead_host}
    cluster.wait_up(*survivors)

    def runs() -> bool:
        vm = cluster.vm(VM)
        return vm.state == "running" and vm.node in survivors

    eventually(runs, what=f"{VM} running")
    eventually(lambda: cluster.audit(VM).ok, what="clean books")
    cluster.check_traces()
