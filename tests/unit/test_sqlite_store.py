"""What is SQLite's own: files that are refused as they were found, and a disk or a lock in the way."""

import asyncio
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from ferry_coordinator.adapters import sqlite_store
from ferry_coordinator.adapters.sqlite_store import (
    APPLICATION_ID,
    CHECKPOINT_COMMITS,
    SCHEMA_VERSION,
    SqliteStore,
)
from ferry_coordinator.ports import Commit, CommitOutcome, CommitStatus, StoreError, StoreErrorCode, Write
from ferry_types.errors import EXIT_CODES

APPLIED = CommitOutcome(CommitStatus.APPLIED)
DEADLINE_S = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


async def fill(path: Path, commits: int = 1) -> None:
    """Make a store with a few pages of content."""
    store = await SqliteStore.open(path)
    term = await store.begin_term((await store.load()).term)
    for seq in range(1, commits + 1):
        assert await store.commit(Commit(term, seq, writes=(Write(f"vm/{seq}", bytes(3000)),))) == APPLIED
    await store.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


async def refusal(path: Path) -> StoreError:
    """Why the store does not open; nothing of it may have changed, and no thread may be left."""
    before = contents(path.parent) if path.parent.is_dir() else {}
    with pytest.raises(StoreError) as raised:
        await SqliteStore.open(path)
    assert (contents(path.parent) if path.parent.is_dir() else {}) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store")]
    error = raised.value
    assert str(path) in error.refusal.message
    assert error.refusal.hint
    assert EXIT_CODES[error.refusal.code] == 1
    return error


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"not a database, whatever its name says\n" * 100,
        lambda whole: whole[:50],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:4096] + bytes(b ^ 0xA5 for b in whole[4096:]),
    ],
    ids=["empty", "text", "cut in the header", "cut in half", "garbled"],
)
async def test_a_damaged_file_is_refused(path: Path, damage: Callable[[bytes], bytes]) -> None:
    await fill(path, commits=20)
    rewrite(path, damage)
    assert (await refusal(path)).code is StoreErrorCode.CORRUPT


async def test_a_database_of_another_program_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (value)")
        other.commit()
    assert (await refusal(path)).code is StoreErrorCode.FOREIGN


async def test_a_database_that_another_program_has_open_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("CREATE TABLE theirs (value)")
        other.commit()
        assert (await refusal(path)).code is StoreErrorCode.FOREIGN


async def test_a_newer_store_is_refused(path: Path) -> None:
    await fill(path)
    with closing(sqlite3.connect(path)) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    error = await refusal(path)
    assert error.code is StoreErrorCode.NEWER_VERSION
    assert f"format {SCHEMA_VERSION + 1}" in error.refusal.message


async def test_a_store_that_is_newer_by_its_log_alone_is_refused(path: Path, tmp_path: Path) -> None:
    await fill(path)
    copy = tmp_path / "killed" / path.name
    copy.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        for suffix in ("", "-wal"):
            copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    before = copy.read_bytes()
    with pytest.raises(StoreError) as raised:
        await SqliteStore.open(copy)
    assert raised.value.code is StoreErrorCode.NEWER_VERSION
    assert copy.read_bytes() == before


async def test_a_log_without_its_store_is_refused(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"what is left of a store")
    assert (await refusal(path)).code is StoreErrorCode.CORRUPT


async def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    error = await refusal(tmp_path / "missing" / "state.db")
    assert "no folder" in error.refusal.message


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that ``make_read_only`` may be called for."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    yield folder
    if os.geteuid() == 0:
        subprocess.run(["umount", folder], check=False, stderr=subprocess.DEVNULL)
    folder.chmod(0o700)


def make_read_only(folder: Path) -> None:
    folder.chmod(0o500)
    if os.geteuid() == 0:
        bind = subprocess.run(["mount", "--bind", folder, folder], check=False, stderr=subprocess.DEVNULL)
        if bind.returncode != 0:
            pytest.skip("root writes to every folder, and may not mount one read-only here")
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)


@pytest.mark.parametrize("exists", [True, False])
async def test_a_store_that_cannot_be_written_is_refused(read_only_folder: Path, exists: bool) -> None:
    if exists:
        await fill(read_only_folder / "state.db")
    make_read_only(read_only_folder)
    assert (await refusal(read_only_folder / "state.db")).code is StoreErrorCode.READ_ONLY


def read_pragma(database: sqlite_store._Database, name: str) -> tuple[object, ...]:
    row: tuple[object, ...] = database._connection.execute(f"PRAGMA {name}").fetchone()
    return row


async def test_a_new_store_bears_our_mark_and_survives_power_loss_by_its_settings(path: Path) -> None:
    store = await SqliteStore.open(path)
    names = ("application_id", "user_version", "journal_mode", "synchronous")
    pragmas = {name: await store._call(partial(read_pragma, name=name)) for name in names}
    await store.close()
    full = 2
    assert pragmas == {
        "application_id": (APPLICATION_ID,),
        "user_version": (SCHEMA_VERSION,),
        "journal_mode": ("wal",),
        "synchronous": (full,),
    }


@pytest.mark.parametrize("urgent", [False, True])
async def test_a_lock_of_another_process_is_waited_for_off_the_event_loop(path: Path, urgent: bool) -> None:
    store = await SqliteStore.open(path)
    await store.begin_term(0)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        commit = asyncio.create_task(store.commit(Commit(1, 1, writes=(Write("n", b"1"),)), urgent=urgent))
        done, _ = await asyncio.wait({commit}, timeout=0.05)
        assert not done
        other.execute("ROLLBACK")
    assert await commit == APPLIED
    await store.close()


async def test_a_lock_that_stays_is_an_error_and_the_commit_can_be_repeated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_TIMEOUT_S", 0.05)
    store = await SqliteStore.open(path)
    await store.begin_term(0)
    commit = Commit(1, 1, writes=(Write("n", b"1"),))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as raised:
            await store.commit(commit)
        other.execute("ROLLBACK")
    assert (raised.value.code, raised.value.retryable) == (StoreErrorCode.LOCKED, True)
    assert await store.commit(commit) == APPLIED
    await store.close()


async def test_an_urgent_commit_is_durable_before_the_event_loop_turns(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.begin_term(0)
    await asyncio.sleep(0.01)  # its thread has gone to sleep, else it may be at it
    commit = store.commit(Commit(1, 1, writes=(Write("n", b"1"),)), urgent=True)
    with pytest.raises(StopIteration) as returned:
        commit.send(None)
    assert returned.value.value == APPLIED
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT value FROM records WHERE key = 'n'").fetchone() == (b"1",)
    await store.close()


async def test_a_full_disk_is_an_error_and_the_commit_can_be_repeated(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.begin_term(0)
    before = await store.load()
    commit = Commit(1, 1, writes=(Write("small", b"1"), Write("large", bytes(10**6))))
    await limit_pages(store, 10)
    with pytest.raises(StoreError) as raised:
        await store.commit(commit)
    assert (raised.value.code, raised.value.retryable) == (StoreErrorCode.DISK_FULL, True)
    assert await store.load() == before
    await limit_pages(store, 10**6)
    assert await store.commit(commit) == APPLIED
    await store.close()


async def limit_pages(store: SqliteStore, pages: int) -> None:
    await store._call(partial(read_pragma, name=f"max_page_count = {pages}"))


async def test_the_log_is_folded_into_the_file_when_nobody_waits(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.begin_term(0)
    for seq in range(1, CHECKPOINT_COMMITS + 1):
        assert value_in_the_file(path) is None
        assert await store.commit(Commit(1, seq, writes=(Write("n", b"%d" % seq),))) == APPLIED
    await asyncio.to_thread(wait_until_folded, path)
    await store.close()


def value_in_the_file(path: Path) -> bytes | None:
    """What a reader sees that ignores the log."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as file:
        row = file.execute("SELECT value FROM records WHERE key = 'n'").fetchone()
        return None if row is None else bytes(row[0])


def wait_until_folded(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while value_in_the_file(path) != b"%d" % CHECKPOINT_COMMITS and time.monotonic() < deadline:
        time.sleep(0.01)
    assert value_in_the_file(path) == b"%d" % CHECKPOINT_COMMITS


async def test_a_closed_store_leaves_one_file_and_no_thread(path: Path) -> None:
    await fill(path, commits=3)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("store")]
