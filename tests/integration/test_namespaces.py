"""Several machines: coordinator and agents in network namespaces with addresses of their own."""

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.echo import echo_once
from tests.integration.processes import Cluster, eventually

from ferry_types.profiles import PROFILES

NETWORK = "10.213.77"
FAST = PROFILES["fast"]
FAILOVER_S_MAX = 4.0


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Machines:
    """One bridge and four namespaces on it; the first is the coordinator's.

    Their names are this process's and this object's alone: the kernel takes a deleted namespace's
    cables away in its own time, and until then their names are taken.
    """

    made = itertools.count()

    def __init__(self) -> None:
        self.name = f"{os.getpid()}-{next(self.made)}"
        self.bridge = f"fb{self.name}"
        self.names = [f"ferry-{self.name}-{number}" for number in range(4)]

    def make(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{NETWORK}.254/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for number, name in enumerate(self.names):
            outer, inner = self.cable(number), f"fw{self.name}-{number}"
            ip("netns", "add", name)
            ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
            ip("link", "set", outer, "master", self.bridge, "up")
            ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", inner)
            ip("-n", name, "link", "set", inner, "up")
            ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        for number, name in enumerate(self.names):
            subprocess.run(["ip", "link", "del", self.cable(number)], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)

    def cable(self, number: int) -> str:
        """The switch's end of it."""
        return f"fv{self.name}-{number}"

    def plug(self, number: int, state: str) -> None:
        """Put a machine's cable ``up`` or ``down``."""
        ip("link", "set", self.cable(number), state)

    def address(self, number: int) -> str:
        return f"{NETWORK}.{number + 1}"

    def inside(self, number: int) -> list[str]:
        return ["ip", "netns", "exec", self.names[number]]


@pytest.fixture
def machines() -> Iterator[Machines]:
    reason = ""
    if shutil.which("ip") is None:
        reason = "the ip command (Debian: iproute2) is not here"
    elif os.geteuid() != 0:
        reason = "only root makes network namespaces"
    made = Machines()
    if not reason:
        try:
            made.make()
        except subprocess.CalledProcessError as error:
            made.remove()
            reason = f"network namespaces cannot be made here: {error.stderr.decode().strip()}"
    if reason:
        assert not os.environ.get("CI"), f"in CI this must run, but {reason}"
        pytest.skip(reason)
    yield made
    made.remove()


@pytest.fixture
def cluster(machines: Machines, tmp_path: Path) -> Iterator[Cluster]:
    """A coordinator and three hosts, each on its machine."""
    own = Cluster(tmp_path)
    try:
        own.start_coordinator(listen=f"{machines.address(0)}:0", prefix=machines.inside(0))
        for number in (1, 2, 3):
            own.start_agent(
                f"n{number}", listen=f"{machines.address(number)}:0", prefix=machines.inside(number)
            )
        own.wait_up("n1", "n2", "n3")
        own.wait_votes()
        yield own
    finally:
        own.close()


def test_a_vm_moves_between_machines(cluster: Cluster, machines: Machines) -> None:
    vm = cluster.create("a", "n1", workload="web")
    assert vm.host_address.startswith(machines.address(1))
    record = cluster.ended(cluster.migrate("a", "n2", verify=True))
    assert record.state == "completed", record.reason
    assert record.figures.verified
    after = cluster.wait_running("a")
    assert after.echo_address.startswith(machines.address(2))
    assert echo_once(after.echo_address, "a").boot_epoch == vm.epoch
    assert cluster.audit("a").ok


def test_a_machine_cut_off_from_everything_pauses_and_its_vms_run_elsewhere(
    cluster: Cluster, machines: Machines
) -> None:
    cluster.create("a", "n1", workload="web")
    cluster.let_votes_be_known()
    machines.plug(1, "down")
    cut_at = time.monotonic()
    eventually(lambda: cluster.vm("a").node in ("n2", "n3"), what="failover")
    cluster.wait_running("a")
    assert FAST.coordinator_span_s - FAST.beat_s < time.monotonic() - cut_at < FAILOVER_S_MAX
    machines.plug(1, "up")
    cluster.wait_up("n1")
    [ran] = cluster.trace("n1")
    assert ran.end_ns / 1e9 - cut_at < FAST.lease_s, "it paused by itself"
    [event] = [event for event in cluster.events() if event.event_id == 1177]
    assert "1 of 3 votes promised" in event.message
    cluster.check_traces()


def test_a_machine_that_reaches_the_others_runs_on_without_the_coordinator(
    cluster: Cluster, machines: Machines
) -> None:
    vm = cluster.create("a", "n1", workload="web")
    cluster.let_votes_be_known()
    machines.plug(0, "down")
    time.sleep(3 * FAST.lease_s)
    machines.plug(0, "up")
    cluster.wait_up("n1", "n2", "n3")
    after = cluster.wait_running("a")
    assert (after.node, after.epoch) == ("n1", vm.epoch)
    [ran] = cluster.trace("n1")
    assert ran.end_ns / 1e9 > time.monotonic() - 1.0, "without a break"
