"""Processes that the bench starts, and the peers' names."""

import asyncio
import sys
from pathlib import Path

import pytest

from ferry_cli.bench.catalogue import PEERS, choose_peers
from ferry_cli.bench.children import child
from ferry_cli.bench.peers import PeerUnavailable
from ferry_cli.bench.qmp import Qmp
from ferry_types.errors import ErrorCode, FerryError

MONITOR = """
import json, sys
print(json.dumps({"QMP": {}}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    match asked["execute"]:
        case "migrate":
            print(json.dumps({"event": "MIGRATION", "data": {"status": "setup"}}))
            print(json.dumps({"event": "MIGRATION", "data": {"status": asked["arguments"]["uri"]}}))
            answer = {"return": {}}
        case "forbidden":
            answer = {"error": {"class": "GenericError", "desc": "not today"}}
        case _:
            answer = {"return": {}}
    print(json.dumps(answer), flush=True)
"""


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_child_that_ends_early_is_reported_with_its_last_words() -> None:
    argv = (sys.executable, "-c", "import sys; sys.exit('no room at the inn')")
    async with child("lodger", argv) as lodger:
        with pytest.raises(FerryError, match=r"lodger has ended early: no room at the inn"):
            await lodger.hear()


async def test_a_child_is_gone_after_cancellation() -> None:
    pids: asyncio.Queue[int] = asyncio.Queue()

    async def listen() -> None:
        async with child("sleeper", (sys.executable, "-c", "import sys; sys.stdin.read()")) as sleeper:
            pids.put_nowait(sleeper.pid)
            await sleeper.hear()

    task = asyncio.create_task(listen())
    pid = await pids.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not running(pid)


async def test_an_event_before_the_answer_is_not_lost() -> None:
    async with child("qemu", (sys.executable, "-c", MONITOR)) as process:
        qemu = Qmp(process)
        await qemu.open()
        await qemu.execute("migrate", {"uri": "completed"})
        async with asyncio.timeout(10):
            await qemu.migration_end()


async def test_a_failed_migration_and_a_refused_command_are_errors() -> None:
    async with child("qemu", (sys.executable, "-c", MONITOR)) as process:
        qemu = Qmp(process)
        await qemu.open()
        await qemu.execute("migrate", {"uri": "failed"})
        with pytest.raises(FerryError, match="migration failed"):
            await qemu.migration_end()
        with pytest.raises(FerryError, match="not today"):
            await qemu.execute("forbidden")


@pytest.mark.parametrize("name", ["qemu", "qemu-multifd"])
async def test_without_qemu_its_peers_are_unavailable_and_say_what_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PeerUnavailable) as raised:
        await PEERS[name]().prepare(tmp_path / "contents", 2**20)
    assert "apt-get install qemu-system-x86" in raised.value.refusal.hint


def test_peers_are_chosen_by_name_in_order_and_once() -> None:
    assert [peer.name for peer in choose_peers("socket, qemu,grpc,qemu,qemu-multifd")] == [
        "socket",
        "qemu",
        "grpc",
        "qemu-multifd",
    ]
    assert choose_peers("") == []


def test_an_unknown_peer_is_malformed_and_the_known_ones_are_named() -> None:
    with pytest.raises(FerryError, match="no peer 'xen'") as raised:
        choose_peers("grpc,xen")
    assert raised.value.refusal.code is ErrorCode.MALFORMED
    assert all(name in raised.value.refusal.hint for name in PEERS)
