"""The driver: commands in order, nothing told before it is durable, and an end when the reign ends."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.unit.coordinator.reign import BRISK, MIB, Reign, eventually, join, say, spec

from ferry_cluster.commands import Changed
from ferry_cluster.inputs import CreateVm, MigrateVm, TurnOffVm
from ferry_cluster.records import MigrationRecord
from ferry_cluster.views import NodeView
from ferry_coordinator import driver as driver_module
from ferry_coordinator.adapters.sqlite_store import SqliteStore
from ferry_coordinator.journal import Deposed
from ferry_coordinator.ports import Commit, StoreError, StoreErrorCode
from ferry_types.errors import ErrorCode, FerryError
from ferry_types.messages import (
    Armed,
    ArmHandOff,
    Grant,
    IncomingPrepared,
    RaiseEpoch,
    Renewal,
    RunVm,
    StartVm,
    StopVm,
    TargetReady,
    VmRunning,
    VmStopped,
    Welcome,
)
from ferry_types.migrations import MigrationOptions
from ferry_types.vms import NodeState, VmState


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cluster.sqlite3"


@pytest.fixture
async def reign(path: Path) -> AsyncIterator[Reign]:
    begun = await Reign.begin(path)
    yield begun
    await begun.end()


async def keep_alive(reign: Reign, stream: int, incarnation: str = "a1") -> None:
    seq = 0
    while True:
        seq += 1
        await reign.hear(stream, say(Renewal(seq), incarnation))
        await asyncio.sleep(0.02)


async def run_vm(reign: Reign, stream: int, vm: str = "web1") -> asyncio.Task[object]:
    """An admin asks for a VM, and the host on the stream boots it as far as to raise its epoch."""
    asked = asyncio.create_task(reign.driver.ask(lambda number: CreateVm(number, spec(vm), "node1", True)))
    await eventually(lambda: any(isinstance(body, StartVm) for body in reign.recorder.bodies(stream)))
    await reign.hear(stream, say(RaiseEpoch(vm, 1)))
    return asked


async def test_an_order_goes_out_only_after_its_commit_is_in_the_store(reign: Reign, path: Path) -> None:
    other = await SqliteStore.open(path)
    seen_by_commit: list[tuple[int, int]] = []

    async def count(commit: Commit) -> None:
        seen_by_commit.append((commit.seq, len(reign.recorder.told)))

    reign.store.before = count
    await reign.hear(1, join("node1"))
    stored = await other.load()
    await other.close()
    assert "node/node1" in stored.values
    assert isinstance(reign.recorder.bodies(1)[0], Welcome)
    (seq, told_before), *_ = seen_by_commit[-1:]
    assert not any(isinstance(entry, tuple) for entry in reign.recorder.told[:told_before]), f"commit {seq}"


async def test_the_core_knows_the_hour_before_anybody_asks_it(path: Path) -> None:
    before_us = time.time_ns() // 1000
    begun = await Reign.begin(path)  # what it reads is the first look that anybody has
    try:
        wall_us = await begun.driver.read(lambda cluster: cluster.state.wall_us)
        assert before_us <= wall_us <= time.time_ns() // 1000

        async def goes_on() -> bool:
            return await begun.driver.read(lambda cluster: cluster.state.wall_us) > wall_us

        await eventually(goes_on)
    finally:
        await begun.end()


async def test_requests_are_answered_when_the_host_has_done_it(reign: Reign) -> None:
    await reign.hear(1, join("node1"))
    asked = await run_vm(reign, 1)
    assert not asked.done()
    await reign.hear(1, say(VmRunning("web1", 1, "", 0.0)))
    assert await asked == "web1"
    off = asyncio.create_task(reign.driver.ask(lambda number: TurnOffVm(number, "web1")))
    await eventually(lambda: reign.recorder.bodies(1)[-1] == StopVm("web1", 1))
    await reign.hear(1, say(VmStopped("web1", 1)))
    assert await off == "web1"
    assert (await reign.driver.read(lambda cluster: cluster.vm_view("web1"))).state is VmState.OFF


async def test_nothing_is_shown_to_watchers_while_a_guest_waits_for_its_hand_off(
    reign: Reign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "WATCHERS_LATER_S", 0.5)  # longer than a busy disk takes to commit
    await reign.hear(1, join("node1"))
    await reign.hear(2, join("node2"))
    asked = await run_vm(reign, 1)
    await reign.hear(1, say(VmRunning("web1", 1, "", 0.0)))
    await asked
    move = await reign.driver.ask(
        lambda number: MigrateVm(number, "web1", "node2", MigrationOptions(), False, "token", 1)
    )
    assert isinstance(move, MigrationRecord)
    told = reign.recorder.told

    def shown() -> bool:
        return any(isinstance(entry, Changed) and "web1" in entry.vms for entry in told)

    told.clear()
    await reign.hear(2, say(IncomingPrepared(move.id)))
    assert shown(), "copying takes long: watchers are told at once"
    for stream, said, answer in (
        (1, ArmHandOff(move.id), Armed(move.id)),
        (2, TargetReady(move.id), RunVm(move.id, "web1", 2)),
    ):
        told.clear()
        await reign.hear(stream, say(said))
        assert reign.recorder.bodies(stream) == [answer]
        assert not shown()
        await eventually(shown)


async def test_a_refused_request_raises_the_refusal(reign: Reign) -> None:
    with pytest.raises(FerryError) as caught:
        await reign.driver.ask(lambda number: TurnOffVm(number, "nobody"))
    assert caught.value.refusal.code is ErrorCode.NOT_FOUND
    with pytest.raises(FerryError) as caught:
        await reign.driver.read(lambda cluster: cluster.node_view("nowhere"))
    assert caught.value.refusal.code is ErrorCode.NOT_FOUND


async def test_a_node_that_stops_renewing_is_lost_and_one_that_renews_is_not(path: Path) -> None:
    reign = await Reign.begin(path, BRISK, forced=True)
    await reign.hear(1, join("node1"))
    await reign.hear(2, join("node2"))
    renewing = asyncio.create_task(keep_alive(reign, 2))

    async def states() -> dict[str, NodeState]:
        views: list[NodeView] = await reign.driver.read(lambda cluster: cluster.node_views())
        return {view.name: view.state for view in views}

    async def lost() -> bool:
        return (await states())["node1"] is NodeState.DOWN

    await eventually(lost)
    assert (await states())["node2"] is NodeState.UP
    renewing.cancel()
    await reign.end()


async def test_an_unanswered_commit_is_repeated_under_its_number_until_it_is_answered(reign: Reign) -> None:
    lost = ["before", "after", "after"]

    async def lose(moment: str) -> None:
        if lost and lost[0] == moment:
            raise StoreError(StoreErrorCode.IO, f"lost {lost.pop(0)} the commit", "wait", retryable=True)

    reign.store.before, reign.store.after = lambda _: lose("before"), lambda _: lose("after")
    await reign.hear(1, join("node1"))
    first, *attempts = reign.store.commits
    assert [attempt.seq for attempt in attempts] == [first.seq + 1] * 4
    rows = await reign.store.events(0, limit=100)
    assert [row.id for row in rows] == [1, 2], "the repeats added no event twice"


async def test_a_commit_under_a_passed_term_ends_the_reign_before_anything_is_told(
    reign: Reign, path: Path
) -> None:
    await reign.hear(1, join("node1"))
    usurper = await SqliteStore.open(path)
    await usurper.begin_term(1)
    await usurper.close()
    told = len(reign.recorder.told)
    with pytest.raises(FerryError) as caught:
        await reign.hear(2, join("node2"))
    assert caught.value.refusal.code is ErrorCode.UNREACHABLE
    with pytest.raises(Deposed, match="term 1"):
        await reign.task
    assert reign.recorder.told[told:] == []


async def test_no_lease_is_granted_under_a_passed_term(reign: Reign, path: Path) -> None:
    await reign.hear(1, join("node1"))
    await reign.hear(1, say(Renewal(1)))
    assert reign.recorder.bodies(1)[-1] == Grant(1)
    usurper = await SqliteStore.open(path)
    await usurper.begin_term(1)
    await usurper.close()
    with pytest.raises(FerryError):
        await reign.hear(1, say(Renewal(2)))
    with pytest.raises(Deposed):
        await reign.task
    assert Grant(2) not in reign.recorder.bodies(1)


async def test_a_record_changed_by_somebody_else_ends_the_reign(reign: Reign, path: Path) -> None:
    await reign.hear(1, join("node1"))
    asked = await run_vm(reign, 1)

    await reign.hear(1, say(VmRunning("web1", 1, "", 0.0)))
    assert await asked == "web1"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE records SET value = '{}' WHERE key = 'owner/web1'")
    with pytest.raises(FerryError):
        await reign.hear(1, say(VmStopped("web1", 1)))
    with pytest.raises(Deposed, match="owner/web1"):
        await reign.task


async def test_a_store_that_fails_for_good_ends_the_reign(reign: Reign) -> None:
    async def fail(commit: Commit) -> None:
        raise StoreError(StoreErrorCode.CORRUPT, "the store is damaged", "restore it")

    reign.store.before = fail
    with pytest.raises(FerryError):
        await reign.hear(1, join("node1"))
    with pytest.raises(StoreError, match="damaged"):
        await reign.task
    with pytest.raises(FerryError, match="stopping"):
        await reign.driver.read(lambda cluster: None)


async def test_nobody_sees_what_is_not_committed_yet(reign: Reign) -> None:
    committing, go_on = asyncio.Event(), asyncio.Event()

    async def hold(commit: Commit) -> None:
        committing.set()
        await go_on.wait()

    reign.store.before = hold
    joining = asyncio.create_task(reign.hear(1, join("node1")))
    await committing.wait()
    reading = asyncio.create_task(reign.driver.read(lambda cluster: cluster.node_views()))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not reading.done(), "it waits for the commit"
    go_on.set()
    await joining
    assert [view.name for view in await reading] == ["node1"]


async def test_calls_beyond_the_bound_are_refused_and_nodes_are_still_heard(
    reign: Reign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver_module, "CALLS_QUEUED_MAX", 3)
    go_on = asyncio.Event()

    async def hold(commit: Commit) -> None:
        await go_on.wait()

    reign.store.before = hold
    joining = asyncio.create_task(reign.hear(1, join("node1")))
    await eventually(lambda: len(reign.store.commits) == 2)
    calls = [asyncio.create_task(reign.driver.read(lambda cluster: 1)) for _ in range(10)]
    second = asyncio.create_task(reign.hear(2, join("node2")))
    await eventually(lambda: sum(call.done() for call in calls) >= 7)
    go_on.set()
    await asyncio.gather(joining, second)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, FerryError)]
    assert len(refused) >= 7
    assert {error.refusal.code for error in refused} == {ErrorCode.UNREACHABLE}


async def test_who_waits_is_told_when_the_coordinator_stops(reign: Reign) -> None:
    await reign.hear(1, join("node1"))
    asked = await run_vm(reign, 1)
    reign.driver.stop()
    with pytest.raises(FerryError) as caught:
        await asked
    assert caught.value.refusal.code is ErrorCode.UNREACHABLE
    await reign.task
    with pytest.raises(FerryError):
        await reign.hear(1, say(Renewal(1)))


async def test_a_new_reign_goes_on_where_the_last_one_was(path: Path) -> None:
    first = await Reign.begin(path)
    await first.hear(1, join("node1"))
    asked = await run_vm(first, 1)
    await first.hear(1, say(VmRunning("web1", 1, "", 0.0)))
    await asked
    last_event_id = first.driver.last_event_id
    await first.end()
    second = await Reign.begin(path)
    view = await second.driver.read(lambda cluster: cluster.vm_view("web1"))
    assert (view.node, view.epoch, view.spec) == ("node1", 1, spec())
    assert view.spec.memory_bytes == 16 * MIB
    await second.driver.read(lambda cluster: None)
    rows = await second.store.events(0, limit=100)
    assert [row.id for row in rows] == list(range(1, last_event_id + 2)), "no gap, and one more: it is up"
    await second.end()
