"""Three machines: coordinator and two agents in network namespaces with addresses of their own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.echo import echo_once
from tests.integration.processes import Cluster

NETWORK = "10.213.77"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Machines:
    """One bridge and three namespaces on it, named after this process."""

    def __init__(self) -> None:
        self.bridge = f"fb{os.getpid()}"
        self.names = [f"ferry-{os.getpid()}-{number}" for number in range(3)]

    def make(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("addr", "add", f"{NETWORK}.254/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        for number, name in enumerate(self.names):
            outer, inner = f"fv{os.getpid()}{number}", f"fw{os.getpid()}{number}"
            ip("netns", "add", name)
            ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
            ip("link", "set", outer, "master", self.bridge, "up")
            ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", inner)
            ip("-n", name, "link", "set", inner, "up")
            ip("-n", name, "link", "set", "lo", "up")

    def remove(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], check=False, capture_output=True)

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


def test_a_vm_moves_between_machines(machines: Machines, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.start_coordinator(listen=f"{machines.address(0)}:0", prefix=machines.inside(0))
        for number in (1, 2):
            cluster.start_agent(
                f"n{number}", listen=f"{machines.address(number)}:0", prefix=machines.inside(number)
            )
        cluster.wait_up("n1", "n2")
        vm = cluster.create("a", "n1", workload="web")
        assert vm.host_address.startswith(machines.address(1))
        record = cluster.ended(cluster.migrate("a", "n2", verify=True))
        assert record.state == "completed", record.reason
        assert record.figures.verified
        after = cluster.wait_running("a")
        assert after.echo_address.startswith(machines.address(2))
        assert echo_once(after.echo_address, "a").boot_epoch == vm.epoch
        assert cluster.audit("a").ok
    finally:
        cluster.close()
