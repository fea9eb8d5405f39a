"""Reading the event log for people: the newest rows that match, or all that follow."""

from collections import deque
from collections.abc import AsyncIterator

from ferry.v1 import admin_pb2, events_pb2
from ferry_coordinator.answers import newest_that_fit
from ferry_coordinator.ports import EVENT_LOG_ROWS, EventRow, StateStore
from ferry_coordinator.watchers import EventWatch

EVENTS_LISTED_MAX = 10_000
"""Rows in one answer."""

PAGE_ROWS = 512
"""Rows in one read: a commit waits for one page, not for the whole search."""


async def newest_events(
    store: StateStore, query: admin_pb2.EventQuery, last_id: int
) -> list[events_pb2.Event]:
    """Rows up to ``last_id`` that match, oldest first: as many of the newest as were asked for and fit.

    Raises StoreError.
    """
    wanted = min(query.limit or EVENTS_LISTED_MAX, EVENTS_LISTED_MAX)
    filtered = bool(query.node or query.vm or query.since_us)
    # IDs have no gaps, so that without a filter the newest rows are the last IDs.
    begin = last_id - (EVENT_LOG_ROWS if filtered else wanted)
    newest: deque[EventRow] = deque(maxlen=wanted)
    async for row in _rows(store, query, max(query.after_id, begin, 0)):
        if row.id > last_id:
            break
        newest.append(row)
    fitting = newest_that_fit(tuple(newest), lambda row: len(row.body))
    return [events_pb2.Event.FromString(row.body) for row in fitting]


async def follow_events(
    store: StateStore, query: admin_pb2.EventQuery, after_id: int, watch: EventWatch
) -> AsyncIterator[events_pb2.Event]:
    """Rows after ``after_id`` that match, as they are added; ``watch`` was begun no later than that row.

    Raises StoreError, and FerryError once the watch has ended.
    """
    while True:
        event = await watch.next()
        if event is None:
            watch.catch_up()
            async for row in _rows(store, query, after_id):
                after_id = row.id
                yield events_pb2.Event.FromString(row.body)
        elif event.id > after_id and _matches(query, event):
            after_id = event.id
            yield event


async def _rows(store: StateStore, query: admin_pb2.EventQuery, after_id: int) -> AsyncIterator[EventRow]:
    """All matching rows after an ID, oldest first."""
    while True:
        page = await store.events(
            after_id,
            since_time_us=query.since_us or None,
            node=query.node or None,
            vm=query.vm or None,
            limit=PAGE_ROWS,
        )
        for row in page:
            yield row
        if len(page) < PAGE_ROWS:
            return
        after_id = page[-1].id


def _matches(query: admin_pb2.EventQuery, event: events_pb2.Event) -> bool:
    return event.time_us >= query.since_us and query.node in ("", event.node) and query.vm in ("", event.vm)
