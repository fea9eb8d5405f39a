"""The embedded state store: one SQLite file, durable at every commit, open to several processes.

One thread owns the one connection, so that the event loop does not wait for the disk, but for the commits
inside a guest's black-out. WAL with synchronous=FULL: a commit is one append and one fsync of the log, and
readers of other processes never wait. The log is folded into the file (a checkpoint, which takes longer
than a commit) when nobody waits.

A file is looked at before anything may write to it: what is damaged, newer, or not ours is refused as it
was found.
"""

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import quote

from ferry_coordinator.adapters.sqlite_errors import corrupt, explain, read_only
from ferry_coordinator.ports import (
    EVENT_LOG_ROWS,
    Commit,
    CommitOutcome,
    CommitStatus,
    EventRow,
    Snapshot,
    StoreError,
    StoreErrorCode,
)

APPLICATION_ID = 0x46455259
"""Marks a SQLite file as ours ("FERY"), in the header field that SQLite keeps for this."""

SCHEMA_VERSION = 1

BUSY_TIMEOUT_S = 2.0
"""How long a call waits for another process's transaction; ours take milliseconds."""

EVENT_TRIM_EVERY = 128
"""The event log is trimmed when its newest ID passes a multiple of this: no commit deletes many rows."""

EVENT_SCAN_IDS = 5000
"""Event IDs that one read looks at, about 1 ms: a commit waits no longer for a search of the log."""

CHECKPOINT_COMMITS = 100
CHECKPOINT_IDLE_S = 0.05
"""A checkpoint is due after so many commits, in the first pause of this length."""

CHECKPOINT_PAGES_MAX = 4000
"""Pages in the log (16 MiB) at which a checkpoint no longer waits for a pause."""

_PAGE_BYTES_MIN = 512
# SQLite takes a file that is shorter than its smallest page for an empty database.

_SCHEMA = """
BEGIN;
CREATE TABLE reign (id INTEGER PRIMARY KEY CHECK (id = 0), term INTEGER NOT NULL, seq INTEGER NOT NULL);
INSERT INTO reign VALUES (0, 0, 0);
CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, time_us INTEGER NOT NULL, node TEXT NOT NULL, vm TEXT NOT NULL, body BLOB NOT NULL
);
COMMIT;
"""

_PUT = "INSERT INTO records VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
# Two subqueries: asked for both at once, SQLite would read the whole table.
_EVENT_IDS = "SELECT (SELECT min(id) FROM events), (SELECT max(id) FROM events)"
_EVENTS = """
SELECT id, time_us, node, vm, body FROM events
WHERE id > ?1 AND id <= ?1 + ?6
AND (?2 IS NULL OR time_us >= ?2) AND (?3 IS NULL OR node = ?3) AND (?4 IS NULL OR vm = ?4)
ORDER BY id LIMIT ?5
"""

_T = TypeVar("_T")


class SqliteStore:
    """A ``StateStore`` in one file. Use from one event loop."""

    def __init__(self, path: Path) -> None:
        self._jobs: queue.SimpleQueue[_Job[object] | None] = queue.SimpleQueue()
        self._database = _Database(path)
        # A daemon: a process that fails before it closes the store must not hang, and loses nothing by it.
        self._thread = threading.Thread(target=self._work, name=f"store {path.name}", daemon=True)
        self._turn = threading.Lock()
        """Of whoever is at the database."""
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> "SqliteStore":
        """Open the store at ``path``, or make a new one if no file is there.

        The folder has to exist. Raises StoreError; a file that is refused is left as it was.
        """
        store = cls(path)
        store._thread.start()
        try:
            await store._call(_Database.open)
        except BaseException:
            await store.close()
            raise
        return store

    async def load(self) -> Snapshot:
        """See ``StateStore.load``."""
        return await self._call(_Database.load)

    async def begin_term(self, previous: int) -> int:
        """See ``StateStore.begin_term``."""
        return await self._call(lambda database: database.begin_term(previous))

    async def read_term(self) -> int:
        """See ``StateStore.read_term``."""
        return await self._call(_Database.read_term)

    async def commit(self, commit: Commit, *, urgent: bool = False) -> CommitOutcome:
        """See ``StateStore.commit``. An urgent one holds up the event loop for a write to the disk."""
        outcome = self._commit_here(commit) if urgent else None
        if outcome is None:
            outcome = await self._call(lambda database: database.commit(commit))
        return outcome

    def _commit_here(self, commit: Commit) -> CommitOutcome | None:
        """Commit in this thread: two hand-overs between threads take about as long as the disk.

        None, and nothing is done, if that would have to wait for the store's thread or another process.
        """
        if self._closed or not self._turn.acquire(blocking=False):
            return None
        try:
            return self._database.commit_unless_locked(commit)
        except Exception as error:
            raise explain(self._database.path, error, BUSY_TIMEOUT_S) from error
        finally:
            self._turn.release()

    async def events(
        self,
        since_id: int,
        *,
        since_time_us: int | None = None,
        node: str | None = None,
        vm: str | None = None,
        limit: int,
    ) -> tuple[EventRow, ...]:
        """See ``StateStore.events``."""
        if limit < 1:
            raise ValueError(f"limit {limit} is out of range: at least 1")
        found: list[EventRow] = []
        oldest, newest = await self._call(_Database.event_ids)
        reached = max(since_id, oldest - 1)
        while reached < newest and len(found) < limit:
            arguments = (reached, since_time_us, node, vm, limit - len(found), EVENT_SCAN_IDS)
            found += await self._call(partial(_Database.events, arguments=arguments))
            reached += EVENT_SCAN_IDS
        return tuple(found)

    async def close(self) -> None:
        """See ``StateStore.close``."""
        if not self._closed:
            closed = self._submit(_Database.close)
            self._closed = True
            self._jobs.put(None)
            await closed
        self._thread.join()

    async def _call(self, work: "Callable[[_Database], _T]") -> _T:
        return await self._submit(work)

    def _submit(self, work: "Callable[[_Database], _T]") -> asyncio.Future[_T]:
        if self._closed:
            raise StoreError(
                StoreErrorCode.CLOSED, f"store {self._database.path} is closed", "open it again to use it"
            )
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, loop.create_future())
        self._jobs.put(job)
        return job.future

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=CHECKPOINT_IDLE_S if self._database.checkpoint_due else None)
            except queue.Empty:
                with self._turn:
                    self._database.checkpoint()
                continue
            if job is None:
                return
            with self._turn:
                job.run(self._database)


@dataclass(frozen=True, slots=True)
class _Job(Generic[_T]):
    """Work for the store's thread, and who waits for its result."""

    work: "Callable[[_Database], _T]"
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[_T]

    def run(self, database: "_Database") -> None:
        """Do the work here and deliver the result there."""
        try:
            result = self.work(database)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            failure = explain(database.path, error, BUSY_TIMEOUT_S)
            self._deliver(lambda: self.future.set_exception(failure))
        else:
            self._deliver(lambda: self.future.set_result(result))

    def _deliver(self, settle: Callable[[], None]) -> None:
        def unless_abandoned() -> None:
            if not self.future.done():
                settle()

        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(unless_abandoned)


class _Database:
    """The connection and all that is done with it, by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = ExitStack()
        self._commits_since_checkpoint = 0

    @property
    def checkpoint_due(self) -> bool:
        """Whether the next pause is for a checkpoint."""
        return self._commits_since_checkpoint >= CHECKPOINT_COMMITS

    def open(self) -> None:
        """Check the file, or make it; then connect."""
        _check_writable(self.path)
        if not self.path.exists():
            _create(self.path)
        _check_identity(self.path)
        _check_contents(self.path)
        self._connection = self._opened.enter_context(closing(_connect(self.path)))
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES_MAX}")
        # SQLite opens what it cannot write for reading alone, and says so only at the first write.
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Disconnect, if connected; the last process to do so folds the log into the file."""
        self._opened.close()

    def checkpoint(self) -> None:
        """Fold the log into the file as far as no reader of another process needs it."""
        self._commits_since_checkpoint = 0
        # A checkpoint that fails loses nothing; if the disk is at fault, the next commit will say so.
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def load(self) -> Snapshot:
        """Read everything but the events in one read transaction."""
        with self._transaction("BEGIN"):
            values = dict(self._connection.execute("SELECT key, value FROM records"))
            _, last_event_id = self.event_ids()
            return Snapshot(self.read_term(), values, last_event_id)

    def begin_term(self, previous: int) -> int:
        """Compare and raise the term."""
        with self._transaction("BEGIN IMMEDIATE"):
            current = self.read_term()
            if current != previous:
                raise StoreError(
                    StoreErrorCode.TERM_CONFLICT,
                    f"store {self.path}: term {current} has begun, {previous} was expected",
                    "another coordinator uses this store: stop one of the two",
                )
            self._connection.execute("UPDATE reign SET term = ?, seq = 0", (previous + 1,))
        return previous + 1

    def read_term(self) -> int:
        """The term that was committed last."""
        (term,) = self._connection.execute("SELECT term FROM reign").fetchone()
        return int(term)

    def commit(self, commit: Commit) -> CommitOutcome:
        """Apply the commit, or say why not, in one write transaction."""
        with self._transaction("BEGIN IMMEDIATE"):
            outcome = self._judge(commit)
            if outcome is None:
                self._apply(commit)
                self._commits_since_checkpoint += 1
        return outcome or CommitOutcome(CommitStatus.APPLIED)

    def commit_unless_locked(self, commit: Commit) -> CommitOutcome | None:
        """``commit``; None, and nothing is done, if another process is at it."""
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            return self.commit(commit)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return None
            raise
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")

    def event_ids(self) -> tuple[int, int]:
        """The oldest and the newest event's ID; 0 without events."""
        oldest, newest = self._connection.execute(_EVENT_IDS).fetchone()
        return int(oldest or 0), int(newest or 0)

    def events(self, arguments: tuple[int | str | None, ...]) -> list[EventRow]:
        """Matching events of one stretch of the log, oldest first; the arguments are those of ``_EVENTS``."""
        return [EventRow(*row) for row in self._connection.execute(_EVENTS, arguments)]

    def _judge(self, commit: Commit) -> CommitOutcome | None:
        """The outcome of a commit that is not to be applied now; None if it is."""
        term, seq = self._connection.execute("SELECT term, seq FROM reign").fetchone()
        if term != commit.term:
            return CommitOutcome(CommitStatus.TERM_PASSED)
        if commit.seq < max(seq, 1):
            raise ValueError(f"commit {commit.seq} of term {term} comes after commit {seq}")
        if commit.seq == seq:
            return CommitOutcome(CommitStatus.APPLIED)
        for guard in commit.guards:
            row = self._connection.execute("SELECT value FROM records WHERE key = ?", (guard.key,)).fetchone()
            if (None if row is None else row[0]) != guard.expected:
                return CommitOutcome(CommitStatus.GUARD_FAILED, guard.key)
        return None

    def _apply(self, commit: Commit) -> None:
        execute = self._connection.execute
        for write in commit.writes:
            if write.value is None:
                execute("DELETE FROM records WHERE key = ?", (write.key,))
            else:
                execute(_PUT, (write.key, write.value))
        if commit.events:
            self._append(commit.events)
        execute("UPDATE reign SET seq = ?", (commit.seq,))

    def _append(self, events: tuple[EventRow, ...]) -> None:
        _, last = self.event_ids()
        newest = last
        for event in events:
            if event.id <= newest:
                raise ValueError(f"event {event.id} comes after event {newest}")
            newest = event.id
            self._connection.execute(
                "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
                (event.id, event.time_us, event.node, event.vm, event.body),
            )
        if newest // EVENT_TRIM_EVERY > last // EVENT_TRIM_EVERY:
            self._connection.execute("DELETE FROM events WHERE id <= ?", (newest - EVENT_LOG_ROWS,))

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        self._connection.execute(begin)
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite has already rolled back after some errors; then this one would hide the first.
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
            raise


def _connect(path: Path, access: str = "mode=rw") -> sqlite3.Connection:
    """Open an existing file; transactions are begun by hand."""
    return sqlite3.connect(
        f"file:{quote(str(path))}?{access}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _log_of(path: Path) -> Path:
    """SQLite's write-ahead log; it is there while the store is open, or after its process was killed."""
    return path.with_name(path.name + "-wal")


def _check_writable(path: Path) -> None:
    """Refuse what this process may not write, before anything is opened."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise StoreError(
            StoreErrorCode.IO,
            f"store {path}: there is no folder {folder}",
            "make it, or name another data folder",
        )
    for place in (folder, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise read_only(path, f"{place} cannot be written")


def _create(path: Path) -> None:
    """Make a new store, which appears under its name complete or not at all."""
    log = _log_of(path)
    if log.exists():
        # SQLite would apply the log to whatever file bears the name next.
        raise StoreError(
            StoreErrorCode.CORRUPT,
            f"store {path} is gone, but its log {log} is still there",
            "bring the store back from a backup, or remove the log to begin with a new cluster",
        )
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.new")
    try:
        draft.unlink(missing_ok=True)
        with closing(sqlite3.connect(draft, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.executescript(_SCHEMA)
            connection.execute("PRAGMA journal_mode = WAL")
        with suppress(FileExistsError):  # another process was faster: its store is as good
            os.link(draft, path)
        _sync_folder(path.absolute().parent)
    except OSError as error:
        raise StoreError(
            StoreErrorCode.IO,
            f"store {path} cannot be made: {error.strerror}",
            "see that the folder's disk is sound and has space",
            retryable=True,
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_identity(path: Path) -> None:
    """Refuse what is not ours, or newer, by the file's header."""
    if path.stat().st_size < _PAGE_BYTES_MIN:
        raise corrupt(path, "it is empty or cut off")
    # Immutable: nothing is locked, no log is looked for, no foreign recovery begins. Not by reading the file
    # ourselves: to close it would drop the locks of another connection of this process.
    with closing(_connect(path, "mode=ro&immutable=1")) as connection:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application_id != APPLICATION_ID:
        raise StoreError(
            StoreErrorCode.FOREIGN,
            f"{path} is a SQLite database of another program",
            "name another data folder; this file was left as it is",
        )
    _check_version(path, version)


def _check_contents(path: Path) -> None:
    """Refuse what is newer by its log, or damaged, through a connection that cannot write."""
    # Without a log nobody has the file open; as immutable it is then read without making one.
    access = "mode=ro" if _log_of(path).exists() else "mode=ro&immutable=1"
    with closing(_connect(path, access)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        _check_version(path, version)
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise corrupt(path, str(verdict).splitlines()[-1])


def _check_version(path: Path, version: int) -> None:
    if version > SCHEMA_VERSION:
        raise StoreError(
            StoreErrorCode.NEWER_VERSION,
            f"store {path} has format {version}; this release knows formats up to {SCHEMA_VERSION}",
            "use the release that wrote it, or a later one; the store was left as it is",
        )
