"""SIGKILL of either agent in every phase of a move: exactly one host runs the VM afterwards.

With its memory, if the source survived and the target had not raised its epoch.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.echo import echo_once
from tests.integration.processes import Cluster, eventually, running_cluster

BEFORE_THE_COMMIT = (
    pytest.param("source.connecting", marks=pytest.mark.chaos),
    "source.copying",
    pytest.param("source.arming", marks=pytest.mark.chaos),
    "source.paused",
    pytest.param("target.preparing", marks=pytest.mark.chaos),
    pytest.param("target.receiving", marks=pytest.mark.chaos),
    "target.before_ready",
)
"""Some of them in every run of the suite, all of them in `make chaos`."""

AROUND_THE_COMMIT = ("source.final_sent",)
"""The target goes on by itself while the source is held here."""
AFTER_THE_COMMIT = ("target.committed", "target.raised")
BUSY = {"workload": "web", "write_rate_bytes_per_s": 8 * 2**20, "working_set_bytes": 8 * 2**20}


def holder_of(phase: str) -> str:
    return "n1" if phase.startswith("source.") else "n2"


def hold_a_move(cluster: Cluster, phase: str) -> tuple[str, int]:
    """Create a busy VM on n1 and stop its move to n2 in a phase; the move and the VM's boot epoch."""
    booted = cluster.create("vm", "n1", **BUSY)
    cluster.failpoint(holder_of(phase), phase, "hold")
    move = cluster.migrate("vm", "n2", verify=True)
    cluster.wait_holding(holder_of(phase), phase)
    return move, booted.epoch


def runs_once(cluster: Cluster, *survivors: str) -> str:
    """The VM's only host; its books are clean, and it never ran on two hosts at once."""

    def runs_there() -> bool:
        vm = cluster.vm("vm")
        return vm.node in survivors and vm.state == "running"

    eventually(runs_there, what=f"vm running on one of {survivors}")
    eventually(lambda: cluster.audit("vm").ok, what="clean audit")
    cluster.check_traces()
    return str(cluster.vm("vm").node)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path, 3, "--failpoints") as running:
        yield running


@pytest.mark.parametrize("phase", BEFORE_THE_COMMIT)
def test_target_killed_before_the_commit(cluster: Cluster, phase: str) -> None:
    move, boot_epoch = hold_a_move(cluster, phase)
    cluster.kill("n2")
    if holder_of(phase) == "n1":
        cluster.failpoint("n1", phase, "off")
    assert cluster.ended(move).state == "failed"
    assert runs_once(cluster, "n1", "n3") == "n1"
    assert boot_epoch_of(cluster) == boot_epoch, "the memory was lost"


@pytest.mark.parametrize("phase", AROUND_THE_COMMIT + AFTER_THE_COMMIT)
def test_target_killed_from_the_commit_on(cluster: Cluster, phase: str) -> None:
    _, boot_epoch = hold_a_move(cluster, phase)
    cluster.kill("n2")
    if holder_of(phase) == "n1":
        cluster.failpoint("n1", phase, "off")
    survivor = runs_once(cluster, "n1", "n3")
    if phase == "target.committed":
        assert survivor == "n1"
        assert boot_epoch_of(cluster) == boot_epoch, "the memory was not taken back"
    elif phase == "target.raised":
        assert boot_epoch_of(cluster) > boot_epoch, "old memory runs"


@pytest.mark.parametrize("phase", BEFORE_THE_COMMIT)
def test_source_killed_before_the_commit(cluster: Cluster, phase: str) -> None:
    move, boot_epoch = hold_a_move(cluster, phase)
    cluster.kill("n1")
    if holder_of(phase) == "n2":
        cluster.failpoint("n2", phase, "off")
    assert cluster.ended(move).state == "failed"
    runs_once(cluster, "n2", "n3")
    assert boot_epoch_of(cluster) > boot_epoch


@pytest.mark.parametrize("phase", AROUND_THE_COMMIT)
def test_source_killed_around_the_commit(cluster: Cluster, phase: str) -> None:
    """The commit races with the source's certified death: either may win, the move says which."""
    move, boot_epoch = hold_a_move(cluster, phase)
    cluster.kill("n1")
    state = cluster.ended(move).state
    survivor = runs_once(cluster, "n2", "n3")
    if state == "completed":
        assert survivor == "n2"
        assert boot_epoch_of(cluster) == boot_epoch, "the memory was lost"
    else:
        assert state == "failed"
        assert boot_epoch_of(cluster) > boot_epoch


@pytest.mark.parametrize("phase", AFTER_THE_COMMIT)
def test_source_killed_after_the_commit(cluster: Cluster, phase: str) -> None:
    move, boot_epoch = hold_a_move(cluster, phase)
    cluster.kill("n1")
    cluster.failpoint("n2", phase, "off")
    assert cluster.ended(move).state == "completed"
    assert runs_once(cluster, "n2", "n3") == "n2"
    assert boot_epoch_of(cluster) == boot_epoch, "the memory was lost"


def boot_epoch_of(cluster: Cluster) -> int:
    """Epoch of the VM's last boot, from an echo of the guest."""
    return echo_once(cluster.vm("vm").echo_address, "vm").boot_epoch
