"""Watchers: the newest state for slow ones, and a log without gaps."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ferry.v1 import admin_pb2, events_pb2
from ferry_coordinator.adapters.sqlite_store import SqliteStore
from ferry_coordinator.answers import LIST_BYTES_MAX
from ferry_coordinator.event_log import follow_events, newest_events
from ferry_coordinator.ports import Commit, EventRow
from ferry_coordinator.watchers import EVENTS_KEPT_MAX, EventWatch, Watch, Watchers
from ferry_types.errors import ErrorCode, FerryError, Refusal
from ferry_types.limits import MESSAGE_BYTES_MAX

BYE = Refusal(ErrorCode.UNREACHABLE, "going away")
QUERY = admin_pb2.EventQuery


class Log:
    """An event log in a real store, and what the driver says of it."""

    def __init__(self, store: SqliteStore, watchers: Watchers) -> None:
        self.store = store
        self.watchers = watchers
        self.last_id = 0
        self._seq = 0

    async def add(self, count: int, *, node: str = "", vm: str = "", message: str = "something") -> None:
        self._seq += 1
        events = [
            events_pb2.Event(id=self.last_id + n, time_us=self.last_id + n, node=node, vm=vm, message=message)
            for n in range(1, count + 1)
        ]
        rows = tuple(EventRow(e.id, e.time_us, e.node, e.vm, e.SerializeToString()) for e in events)
        await self.store.commit(Commit(1, self._seq, events=rows))
        self.last_id += count
        self.watchers.happened(events)

    async def newest(self, query: admin_pb2.EventQuery) -> list[int]:
        return [event.id for event in await newest_events(self.store, query, self.last_id)]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    store = await SqliteStore.open(tmp_path / "cluster.sqlite3")
    await store.begin_term(0)
    yield Log(store, Watchers())
    await store.close()


async def test_a_slow_watcher_gets_the_newest_state_and_then_the_end() -> None:
    watch: Watch[int] = Watch()
    for state in (1, 2, 3):
        watch.offer(state)
    assert await anext(watch) == 3
    watch.offer(3)
    watch.offer(4)
    watch.end()
    assert [state async for state in watch] == [4]


async def test_the_same_state_again_is_no_change() -> None:
    watch: Watch[int] = Watch()
    watch.offer(1)
    assert await anext(watch) == 1
    reading = asyncio.ensure_future(anext(watch))
    watch.offer(1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not reading.done()
    watch.offer(2)
    assert await reading == 2


async def test_watchers_are_refused_when_the_coordinator_goes() -> None:
    watchers = Watchers()
    with watchers.vm("web1") as vm, watchers.migration("m1") as move, watchers.events() as events:
        watchers.close(BYE)
        for waiting in (anext(vm), anext(move), events.next()):
            with pytest.raises(FerryError, match="going away"):
                await waiting
    with pytest.raises(FerryError, match="going away"), watchers.vm("web1"):
        pass


async def test_the_newest_events_win(log: Log) -> None:
    await log.add(10)
    assert await log.newest(QUERY()) == list(range(1, 11))
    assert await log.newest(QUERY(limit=3)) == [8, 9, 10]
    assert await log.newest(QUERY(limit=3, after_id=8)) == [9, 10]
    assert await log.newest(QUERY(after_id=99)) == []


async def test_filters_find_what_is_far_back(log: Log) -> None:
    await log.add(2, node="node1", vm="web1")
    await log.add(3000, node="node2")
    await log.add(1, node="node1")
    assert await log.newest(QUERY(node="node1", limit=2)) == [2, 3003]
    assert await log.newest(QUERY(vm="web1")) == [1, 2]
    assert await log.newest(QUERY(since_us=3002)) == [3002, 3003]
    assert await log.newest(QUERY(node="node2", limit=2)) == [3001, 3002]


async def test_what_came_after_the_question_is_left_to_the_watch(log: Log) -> None:
    await log.add(3)
    asked_at = log.last_id
    await log.add(3)
    found = await newest_events(log.store, QUERY(), asked_at)
    assert [event.id for event in found] == [1, 2, 3]


async def test_an_answer_stays_below_the_largest_message(log: Log) -> None:
    for _ in range(10):
        await log.add(100, message="x" * 8000)
    found = await newest_events(log.store, QUERY(), log.last_id)
    answer = admin_pb2.EventList(events=found)
    assert LIST_BYTES_MAX - 10_000 < answer.ByteSize() < MESSAGE_BYTES_MAX
    assert found[-1].id == log.last_id


async def follow(log: Log, watch: EventWatch, query: admin_pb2.EventQuery, upto: int) -> list[int]:
    seen = []
    async for event in follow_events(log.store, query, 0, watch):
        seen.append(event.id)
        if event.id == upto:
            break
    return seen


async def test_a_watcher_that_keeps_up_sees_every_event_that_matches(log: Log) -> None:
    with log.watchers.events() as watch:
        await log.add(2, node="node1")
        await log.add(2, node="node2")
        await log.add(1, node="node1")
        assert await follow(log, watch, QUERY(node="node1"), 5) == [1, 2, 5]


async def test_a_watcher_that_lags_misses_and_repeats_nothing(log: Log) -> None:
    with log.watchers.events() as watch:
        reader = follow_events(log.store, QUERY(), 0, watch)
        await log.add(2)
        assert (await anext(reader)).id == 1
        await log.add(EVENTS_KEPT_MAX + 100)
        await log.add(5)
        seen = [1]
        while seen[-1] < log.last_id:
            seen.append((await anext(reader)).id)
            if seen[-1] == 300:  # while it reads on from the store, more comes
                await log.add(50)
        assert seen == list(range(1, log.last_id + 1))
        await log.add(1)
        assert (await anext(reader)).id == log.last_id
