"""A lab's witness: started like its other processes, and named to the coordinator."""

import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ferry.v1 import admin_pb2
from ferry_cli.lab import launch, lifecycle, processes, status
from ferry_cli.lab.processes import ProcessIdentity, RunState
from ferry_cli.lab.state import COORDINATOR, WITNESS, Kind, Lab, LabProcess, LabSpec, read_lab, write_lab
from ferry_types.errors import ErrorCode, FerryError, refused


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[Path]:
    for folder in ("logs", "run"):
        (tmp_path / folder).mkdir()
    yield tmp_path
    await lifecycle.down(tmp_path)
    assert processes.find_marked(tmp_path) == []


def lab_of(coordinator: str, witness: LabProcess) -> Lab:
    nobody = ProcessIdentity(2**22, 0, "an earlier boot")
    return Lab(LabSpec(), (witness, LabProcess(COORDINATOR, Kind.COORDINATOR, (), coordinator, nobody)))


async def test_it_is_seen_stopped_killed_and_started_where_it_was(directory: Path) -> None:
    witness = await launch.listening(directory, launch.start_witness(directory))
    lab = lab_of("127.0.0.1:1", witness)
    write_lab(directory, lab)
    assert read_lab(directory) == lab
    shown = status.status_view(directory, lab, None)["processes"][0]
    assert (shown["name"], shown["kind"], shown["state"]) == ("witness", "witness", "running")
    assert (directory / "witness" / "witness.lock").is_file()

    await lifecycle.kill(directory, WITNESS, signal.SIGSTOP)
    assert processes.observe(witness.identity) is RunState.STOPPED
    await lifecycle.kill(directory, WITNESS, signal.SIGCONT)
    await lifecycle.kill(directory, WITNESS, signal.SIGKILL)
    with pytest.raises(FerryError, match="does not run"):
        await lifecycle.kill(directory, WITNESS, signal.SIGKILL)
    with pytest.raises(FerryError) as raised:
        await lifecycle.kill(directory, f"{WITNESS}/power", signal.SIGKILL)
    assert raised.value.refusal.code is ErrorCode.NOT_FOUND

    started = await lifecycle.start(directory, WITNESS)  # whether there is a coordinator or not
    assert started.address == witness.address
    assert processes.observe(started.identity) is RunState.RUNNING
    assert await lifecycle.down(directory) == [WITNESS]


async def test_the_coordinator_is_told_where_it_listens(directory: Path, cluster: Any) -> None:
    nobody = ProcessIdentity(2**22, 0, "an earlier boot")
    witness = LabProcess(WITNESS, Kind.WITNESS, (), "127.0.0.1:7010", nobody)
    await lifecycle._name_witness(lab_of(cluster.address, witness))
    moved = replace(witness, address="127.0.0.1:7011")
    await lifecycle._name_witness(lab_of(cluster.address, moved))
    assert cluster.requests == [
        admin_pb2.QuorumChange(witness="127.0.0.1:7010"),
        admin_pb2.QuorumChange(witness="127.0.0.1:7011"),
    ]
    cluster.refusals["SetQuorum"] = FerryError(refused("some rule", "not now"))
    with pytest.raises(FerryError, match="not now"):
        await lifecycle._name_witness(lab_of(cluster.address, witness))
