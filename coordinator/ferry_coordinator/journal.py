"""One reign's writing to the store: commits that are repeated until answered, and the check of the term.

Rule S1: a commit that was not answered is repeated, under the same number, until it is. Rule L3: a term that
is no longer the store's ends the reign.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ferry.v1 import events_pb2
from ferry_cluster import commands
from ferry_cluster.records import Record
from ferry_coordinator.ports import (
    Commit,
    CommitStatus,
    EventRow,
    Guard,
    Snapshot,
    StateStore,
    StoreError,
    Write,
)
from ferry_coordinator.record_codec import decode_record, encode_record
from ferry_types.errors import FerryError, Refusal, failed
from ferry_types.events import EventRecord

RETRY_PAUSE_MIN_S = 0.02
RETRY_PAUSE_MAX_S = 1.0
"""Pause before an unanswered call is repeated: doubles from the first to the second, with jitter."""

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")


class Deposed(FerryError):
    """Another coordinator reigns over the store: this one may tell nobody anything any more."""

    def __init__(self, term: int, what: str) -> None:
        super().__init__(
            failed(
                f"this coordinator's reign (term {term}) is over: {what}",
                "one coordinator at a time may use a store: stop one of the two, then start this one again",
            )
        )


class Journal:
    """Writes one term's commits in order. Used by one task."""

    def __init__(self, store: StateStore, term: int, last_event_id: int) -> None:
        self._store = store
        self._term = term
        self._seq = 0
        self._last_event_id = last_event_id

    @classmethod
    async def begin(
        cls, store: StateStore, problem_of: Callable[[list[Record]], Refusal | None] = lambda _: None
    ) -> tuple["Journal", list[Record]]:
        """Begin a new term on the store, and return what the store holds now that nobody else may write.

        Raises StoreError, and FerryError with what ``problem_of`` has against the records; a store that
        cannot be read, or is not to be led, is left as it was.
        """
        before = await store.load()
        if (problem := problem_of(_decoded(before))) is not None:
            raise FerryError(problem)
        term = await store.begin_term(before.term)
        # Until then the former term's coordinator may have written.
        snapshot = await store.load()
        return cls(store, term, snapshot.last_event_id), _decoded(snapshot)

    @property
    def term(self) -> int:
        """The reign's term."""
        return self._term

    @property
    def last_event_id(self) -> int:
        """ID of the newest event that has been committed."""
        return self._last_event_id

    async def commit(self, commit: commands.Commit, *, urgent: bool) -> list[events_pb2.Event]:
        """Make the commit durable and return its events with their IDs and times. ``urgent``: see the store.

        Raises Deposed if it was refused, StoreError if the store fails for good.
        """
        self._seq += 1
        events = _stamp(commit.events, self._last_event_id)
        numbered = Commit(
            commit.term,
            self._seq,
            tuple(
                Guard(guard.key, None if guard.expected is None else encode_record(guard.expected))
                for guard in commit.guards
            ),
            (
                *(Write(record.key, encode_record(record)) for record in commit.writes),
                *(Write(key, None) for key in commit.deletes),
            ),
            tuple(_row(event) for event in events),
        )
        outcome = await _until_answered(lambda: self._store.commit(numbered, urgent=urgent))
        match outcome.status:
            case CommitStatus.TERM_PASSED:
                raise Deposed(self._term, "another coordinator has begun a later one")
            case CommitStatus.GUARD_FAILED:
                raise Deposed(self._term, f"{outcome.key} in the store was changed by somebody else")
        self._last_event_id += len(events)
        return events

    async def check_term(self, term: int) -> None:
        """Return only while the term is the store's. Raises Deposed, or StoreError if the store fails."""
        current = await _until_answered(self._store.read_term)
        if current != term:
            raise Deposed(term, f"another coordinator has begun term {current}")


def _decoded(snapshot: Snapshot) -> list[Record]:
    return [decode_record(key, value) for key, value in snapshot.values.items()]


def _stamp(records: tuple[EventRecord, ...], last_id: int) -> list[events_pb2.Event]:
    time_us = time.time_ns() // 1000
    return [
        events_pb2.Event(
            id=last_id + index,
            time_us=time_us,
            log=record.kind.log,
            source=record.kind.source,
            level=record.kind.level,
            event_id=record.kind.event_id,
            node=record.node,
            vm=record.vm,
            message=record.message,
        )
        for index, record in enumerate(records, start=1)
    ]


def _row(event: events_pb2.Event) -> EventRow:
    return EventRow(event.id, event.time_us, event.node, event.vm, event.SerializeToString())


async def _until_answered(call: Callable[[], Awaitable[_T]]) -> _T:
    pause_s = RETRY_PAUSE_MIN_S
    while True:
        try:
            return await call()
        except StoreError as error:
            if not error.retryable:
                raise
            _LOG.warning("the store did not answer and is asked again: %s (%s)", error, error.refusal.hint)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        pause_s = min(2 * pause_s, RETRY_PAUSE_MAX_S)
