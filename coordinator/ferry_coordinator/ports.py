"""What the coordinator needs from outside: a store that holds the truth, and a bus that shows it.

The rules behind the store are those of the ownership protocol: S1 (every change of ownership is one
compare-and-set, and one that was not answered is repeated until it is), S2 (persist before telling) and
L3 (grants only after the term was seen to stand).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ferry_types.errors import FerryError, failed

EVENT_LOG_ROWS = 100_000
"""Bound of the event log: events whose ID is this far behind the newest go, now and then, within commits."""


class StoreErrorCode(StrEnum):
    """Why a store could not serve."""

    CORRUPT = "corrupt"
    FOREIGN = "foreign"
    NEWER_VERSION = "newer_version"
    READ_ONLY = "read_only"
    LOCKED = "locked"
    DISK_FULL = "disk_full"
    IO = "io"
    TERM_CONFLICT = "term_conflict"
    CLOSED = "closed"


class StoreError(FerryError):
    """The one root of what stores raise; its refusal says what happened and what to do next.

    ``retryable``: the same call may succeed later. A commit that ended so may or may not have been applied
    and is repeated with the same ``(term, seq)``.
    """

    def __init__(self, code: StoreErrorCode, message: str, hint: str, *, retryable: bool = False) -> None:
        super().__init__(failed(message, hint))
        self.code = code
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a store holds but the events, as of one moment. A new store has term 0 and event ID 0."""

    term: int
    values: dict[str, bytes]
    last_event_id: int


@dataclass(frozen=True, slots=True)
class Guard:
    """The key must hold exactly this value; None: it must be absent."""

    key: str
    expected: bytes | None


@dataclass(frozen=True, slots=True)
class Write:
    """Puts a value under a key; None deletes the key."""

    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class EventRow:
    """One entry of the event log. IDs rise from commit to commit; ``node`` and ``vm`` may be empty."""

    id: int
    time_us: int
    node: str
    vm: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """One transaction of the reign ``term``. ``seq`` rises from commit to commit within the term."""

    term: int
    seq: int
    guards: tuple[Guard, ...] = ()
    writes: tuple[Write, ...] = ()
    events: tuple[EventRow, ...] = ()


class CommitStatus(StrEnum):
    """What became of a commit."""

    APPLIED = "applied"
    TERM_PASSED = "term_passed"
    GUARD_FAILED = "guard_failed"


@dataclass(frozen=True, slots=True)
class CommitOutcome:
    """The answer to a commit; ``key`` names the first guard that failed, else it is empty."""

    status: CommitStatus
    key: str = ""


class StateStore(Protocol):
    """Keys with values of bytes, an event log and the term, durable and shared by coordinators.

    Atomic: ``begin_term`` and ``commit`` are each one transaction, serial with those of every other process
    on the same store, and durable before they answer. ``load`` sees one moment. Any read begun after a
    transaction was answered, here or elsewhere, sees it. Calls of one process take effect in the order in
    which they were made.

    A call that is cancelled or raises a retryable error may still have taken effect. Every method raises
    StoreError.
    """

    async def load(self) -> Snapshot:
        """Read everything but the events."""
        ...

    async def begin_term(self, previous: int) -> int:
        """Compare-and-set: raise the term from ``previous`` by one and return it; seq starts anew from 1.

        Raises StoreError TERM_CONFLICT if the store's term is another.
        """
        ...

    async def read_term(self) -> int:
        """The store's term now, whoever began it. Cheap, since every grant waits for it (rule L3)."""
        ...

    async def commit(self, commit: Commit, *, urgent: bool = False) -> CommitOutcome:
        """Apply all writes and events, or nothing; ``urgent``: a guest stands still meanwhile.

        Applied only if the store's term equals ``commit.term`` and every guarded key holds exactly what its
        guard expects. A repeat of the term's last applied commit, recognised by its seq, answers APPLIED
        again and changes nothing. An unanswered commit is therefore repeated before the next one is sent; a
        seq below the last applied one, or event IDs that do not rise, raise ValueError.
        """
        ...

    async def events(
        self,
        since_id: int,
        *,
        since_time_us: int | None = None,
        node: str | None = None,
        vm: str | None = None,
        limit: int,
    ) -> tuple[EventRow, ...]:
        """The first ``limit`` events after ``since_id`` that match every given filter, oldest first."""
        ...

    async def close(self) -> None:
        """Finish what is under way and let go of the store; later calls raise StoreError CLOSED."""
        ...


class EventBus(Protocol):
    """Shows the world what happens. Nothing that decides reads it, and nobody notices when it is away.

    ``ferry_wire.bus`` implements it. Nothing is atomic: of a retained topic, watchers see the latest value
    sooner or later; other messages arrive at least once, or are dropped while the broker is away.
    """

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        """Queue a message. Never waits, never raises."""
        ...

    def clear(self, topic: str) -> None:
        """Remove what is retained under a topic: its object is gone."""
        ...
