"""What every state store promises (``ferry_coordinator.ports.StateStore``), run on each adapter."""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from ferry_coordinator.adapters.sqlite_store import SqliteStore
from ferry_coordinator.ports import (
    EVENT_LOG_ROWS,
    Commit,
    CommitOutcome,
    CommitStatus,
    EventRow,
    Guard,
    StateStore,
    StoreError,
    StoreErrorCode,
    Write,
)

APPLIED = CommitOutcome(CommitStatus.APPLIED)
TERM_PASSED = CommitOutcome(CommitStatus.TERM_PASSED)

OpenStore = Callable[[], Awaitable[StateStore]]
"""Opens the test's one store once more, as another process would."""


async def open_sqlite(place: Path) -> StateStore:
    return await SqliteStore.open(place / "state.db")


class HurriedSqliteStore(SqliteStore):
    """All its commits are urgent."""

    async def commit(self, commit: Commit, *, urgent: bool = True) -> CommitOutcome:
        return await super().commit(commit, urgent=urgent)


async def open_hurried_sqlite(place: Path) -> StateStore:
    return await HurriedSqliteStore.open(place / "state.db")


ADAPTERS: dict[str, Callable[[Path], Awaitable[StateStore]]] = {
    "sqlite": open_sqlite,
    "sqlite in a hurry": open_hurried_sqlite,
}


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def open_store(adapter: str, tmp_path: Path) -> AsyncIterator[OpenStore]:
    opened: list[StateStore] = []

    async def open_once_more() -> StateStore:
        opened.append(await ADAPTERS[adapter](tmp_path))
        return opened[-1]

    yield open_once_more
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> StateStore:
    """A new store in which term 1 has begun."""
    store = await open_store()
    assert await store.begin_term(0) == 1
    return store


def event(number: int, *, node: str = "", vm: str = "") -> EventRow:
    return EventRow(id=number, time_us=1000 * number, node=node, vm=vm, body=b"event %d" % number)


async def put(store: StateStore, seq: int, key: str, value: bytes) -> None:
    assert await store.commit(Commit(1, seq, writes=(Write(key, value),))) == APPLIED


async def test_a_new_store_is_empty(open_store: OpenStore) -> None:
    snapshot = await (await open_store()).load()
    assert (snapshot.term, snapshot.values, snapshot.last_event_id) == (0, {}, 0)


async def test_a_term_begins_only_after_the_one_that_was_expected(store: StateStore) -> None:
    with pytest.raises(StoreError) as refusal:
        await store.begin_term(0)
    assert refusal.value.code is StoreErrorCode.TERM_CONFLICT
    assert await store.read_term() == 1
    assert await store.begin_term(1) == 2


async def test_of_two_that_begin_a_term_at_once_one_wins(open_store: OpenStore) -> None:
    rivals = [await open_store(), await open_store()]
    for term in range(20):
        results = await asyncio.gather(*(rival.begin_term(term) for rival in rivals), return_exceptions=True)
        assert results.count(term + 1) == 1
        assert sum(isinstance(result, StoreError) for result in results) == 1


async def test_a_commit_applies_writes_deletes_and_events_together(
    store: StateStore, open_store: OpenStore
) -> None:
    await put(store, 1, "vm/old", b"1")
    commit = Commit(
        1, 2, writes=(Write("vm/new", b"\x00\xff"), Write("vm/old", None)), events=(event(7), event(9))
    )
    assert await store.commit(commit) == APPLIED
    snapshot = await (await open_store()).load()
    assert (snapshot.term, snapshot.values, snapshot.last_event_id) == (1, {"vm/new": b"\x00\xff"}, 9)


@pytest.mark.parametrize(
    ("guard", "holds"),
    [
        (Guard("owner/a", b"1"), True),
        (Guard("owner/a", b"2"), False),
        (Guard("owner/a", None), False),
        (Guard("owner/b", None), True),
        (Guard("owner/b", b"1"), False),
        (Guard("owner/b", b""), False),
    ],
)
async def test_guards_compare_values_and_absence(store: StateStore, guard: Guard, holds: bool) -> None:
    await put(store, 1, "owner/a", b"1")
    commit = Commit(1, 2, guards=(guard,), writes=(Write("owner/c", b"3"),))
    expected = APPLIED if holds else CommitOutcome(CommitStatus.GUARD_FAILED, guard.key)
    assert await store.commit(commit) == expected


async def test_a_failed_guard_leaves_nothing_of_the_commit(store: StateStore) -> None:
    await put(store, 1, "owner/a", b"1")
    before = await store.load()
    commit = Commit(
        1,
        2,
        guards=(Guard("owner/a", b"1"), Guard("owner/b", b"1")),
        writes=(Write("owner/a", b"2"), Write("owner/b", b"2")),
        events=(event(1),),
    )
    assert await store.commit(commit) == CommitOutcome(CommitStatus.GUARD_FAILED, "owner/b")
    assert await store.load() == before


async def test_a_commit_of_a_passed_term_changes_nothing(store: StateStore, open_store: OpenStore) -> None:
    successor = await open_store()
    assert await successor.begin_term(1) == 2
    commit = Commit(1, 1, writes=(Write("owner/a", b"1"),), events=(event(1),))
    assert await store.commit(commit) == TERM_PASSED
    snapshot = await store.load()
    assert (snapshot.term, snapshot.values, snapshot.last_event_id) == (2, {}, 0)


async def test_a_repeated_commit_is_answered_again_and_not_applied_again(
    store: StateStore, open_store: OpenStore
) -> None:
    commit = Commit(
        1, 1, guards=(Guard("owner/a", None),), writes=(Write("owner/a", b"1"),), events=(event(1),)
    )
    for handle in (store, store, await open_store()):
        assert await handle.commit(commit) == APPLIED
    assert len(await store.events(0, limit=10)) == 1


async def test_a_refused_commit_may_be_tried_again_under_its_number(store: StateStore) -> None:
    commit = Commit(1, 5, guards=(Guard("owner/a", b"1"),))
    assert (await store.commit(commit)).status is CommitStatus.GUARD_FAILED
    assert await store.commit(Commit(1, 5, writes=(Write("owner/a", b"1"),))) == APPLIED


async def test_commits_count_anew_in_a_new_term(store: StateStore) -> None:
    await put(store, 8, "owner/a", b"1")
    assert await store.begin_term(1) == 2
    assert await store.commit(Commit(2, 1, writes=(Write("owner/a", b"2"),))) == APPLIED
    assert (await store.load()).values == {"owner/a": b"2"}


@pytest.mark.parametrize(
    "commit",
    [
        Commit(1, 1, writes=(Write("owner/b", b"1"),)),
        Commit(1, 0, writes=(Write("owner/b", b"1"),)),
        Commit(1, 3, writes=(Write("owner/b", b"1"),), events=(event(4),)),
        Commit(1, 3, writes=(Write("owner/b", b"1"),), events=(event(6), event(6))),
    ],
    ids=["older seq", "seq below 1", "event of the past", "event twice"],
)
async def test_numbers_that_do_not_rise_are_a_fault_of_the_caller(store: StateStore, commit: Commit) -> None:
    await put(store, 1, "owner/a", b"1")
    assert await store.commit(Commit(1, 2, events=(event(5),))) == APPLIED
    before = await store.load()
    with pytest.raises(ValueError, match="comes after"):
        await store.commit(commit)
    assert await store.load() == before


async def test_a_cancelled_commit_is_repeated_without_harm(store: StateStore) -> None:
    for seq in range(1, 30):
        commit = Commit(1, seq, writes=(Write("n", b"%d" % seq),), events=(event(seq),))
        task = asyncio.create_task(store.commit(commit))
        await asyncio.sleep(0)
        task.cancel()
        assert await store.commit(commit) == APPLIED
    assert [row.id for row in await store.events(0, limit=100)] == list(range(1, 30))


async def test_events_are_filtered_and_oldest_first(store: StateStore) -> None:
    rows = tuple(
        event(n, node=f"node{n % 2}", vm=vm)
        for n, vm in zip(range(1, 31), itertools.cycle(("", "web", "sql")), strict=False)
    )
    assert await store.commit(Commit(1, 1, events=rows)) == APPLIED
    assert await store.events(0, limit=100) == rows
    assert await store.events(27, limit=100) == rows[27:]
    assert await store.events(0, limit=3) == rows[:3]
    assert await store.events(0, since_time_us=25_000, limit=100) == rows[24:]
    expected = tuple(row for row in rows if row.node == "node1" and row.vm == "web")
    assert await store.events(0, node="node1", vm="web", limit=100) == expected
    assert await store.events(0, node="node1", vm="web", limit=2) == expected[:2]
    assert await store.events(0, vm="none", limit=100) == ()
    with pytest.raises(ValueError, match="limit"):
        await store.events(0, limit=0)


async def test_the_event_log_is_bounded(store: StateStore) -> None:
    batch = 5000
    for seq in range(1, EVENT_LOG_ROWS // batch + 3):
        rows = tuple(event(n) for n in range((seq - 1) * batch + 1, seq * batch + 1))
        assert await store.commit(Commit(1, seq, events=rows)) == APPLIED
    newest = EVENT_LOG_ROWS + 2 * batch
    kept = await store.events(0, limit=2 * EVENT_LOG_ROWS)
    assert [row.id for row in kept] == list(range(newest - EVENT_LOG_ROWS + 1, newest + 1))


async def test_a_closed_store_says_so(store: StateStore) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreError) as refusal:
        await store.read_term()
    assert refusal.value.code is StoreErrorCode.CLOSED


# --- with processes ---------------------------------------------------------------------------------

SUCCESSOR = """
async def main(store):
    print(await store.begin_term(await store.read_term()), flush=True)
"""

WRITER = """
from ferry_coordinator.ports import Commit, EventRow, Guard, Write

async def main(store):
    snapshot = await store.load()
    term = await store.begin_term(snapshot.term)
    number, value = snapshot.last_event_id, snapshot.values.get("n")
    for seq in range(1, 1_000_000):
        number += 1
        new = b"%d" % number
        event = EventRow(number, number, "", "", new)
        writes = (Write("n", new), Write("filler/%d" % (number % 50), bytes(2000)))
        outcome = await store.commit(Commit(term, seq, (Guard("n", value),), writes, (event,)))
        assert outcome.status == "applied", outcome
        value = new
        print(number, flush=True)
"""

RUN = """
import asyncio, importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("contract", sys.argv[1])
contract = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contract)

async def run():
    await main(await contract.ADAPTERS[sys.argv[2]](Path(sys.argv[3])))

asyncio.run(run())
"""


async def start(script: str, adapter: str, place: Path) -> asyncio.subprocess.Process:
    """A process that runs ``main`` of the script with the test's store."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script + RUN,
        __file__,
        adapter,
        str(place),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


async def test_another_process_that_begins_a_term_is_seen_at_once(
    store: StateStore, adapter: str, tmp_path: Path
) -> None:
    successor = await start(SUCCESSOR, adapter, tmp_path)
    output, _ = await successor.communicate()
    assert output == b"2\n"
    assert await store.read_term() == 2
    assert await store.commit(Commit(1, 1, writes=(Write("owner/a", b"1"),))) == TERM_PASSED


async def test_a_killed_writer_leaves_every_commit_that_was_answered(
    adapter: str, tmp_path: Path, open_store: OpenStore
) -> None:
    last = 0
    for commits in (1, 40, 150, 300):
        writer = await start(WRITER, adapter, tmp_path)
        assert writer.stdout is not None
        answered = [await writer.stdout.readline() for _ in range(commits)]
        writer.send_signal(signal.SIGKILL)
        answered += (await writer.stdout.read()).splitlines(keepends=True)
        await writer.wait()
        assert [int(line) for line in answered] == list(range(last + 1, last + 1 + len(answered)))

        store = await open_store()
        snapshot = await store.load()
        # The commit that was under way is there as a whole or not at all.
        assert last + len(answered) <= snapshot.last_event_id <= last + len(answered) + 1
        last = snapshot.last_event_id
        assert snapshot.values["n"] == b"%d" % last
        assert [row.id for row in await store.events(0, limit=10**6)] == list(range(1, last + 1))
        await store.close()
