"""Who watches over gRPC, and what each still has to be told.

A watcher of a VM or a move gets its newest state: what a slow one missed in between is skipped. A watcher
of the event log misses nothing: one that lags behind reads on from the store.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from ferry.v1 import events_pb2
from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import Changed
from ferry_cluster.views import MigrationView, VmView
from ferry_types.errors import FerryError, Refusal
from ferry_types.migrations import ENDED, MigrationState

EVENTS_KEPT_MAX = 512
"""Events that a watcher may lag behind before it reads on from the store."""

_T = TypeVar("_T")


class Watch(Generic[_T]):
    """The newest state of one object, until it ends. For one reader."""

    def __init__(self) -> None:
        self.newest: _T | None = None
        self._told: _T | None = None
        self._ended = False
        self._reason: Refusal | None = None
        self._wake = asyncio.Event()

    def offer(self, state: _T) -> None:
        """The object looks like this now."""
        self.newest = state
        self._wake.set()

    def end(self, reason: Refusal | None = None) -> None:
        """There will be no more; with a reason the reader is refused instead of told the newest state."""
        self._ended = True
        self._reason = reason
        self._wake.set()

    def __aiter__(self) -> "Watch[_T]":
        return self

    async def __anext__(self) -> _T:
        while True:
            if self._reason is not None:
                raise FerryError(self._reason)
            if self.newest is not None and self.newest != self._told:
                self._told = self.newest
                return self.newest
            if self._ended:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()


class EventWatch:
    """New rows of the event log, in order, for one reader who may lag behind by a number of them."""

    def __init__(self) -> None:
        self._fresh: deque[events_pb2.Event] = deque()
        self._missed = False
        self._reason: Refusal | None = None
        self._wake = asyncio.Event()

    def offer(self, events: Sequence[events_pb2.Event]) -> None:
        """These have been added to the log."""
        if len(self._fresh) + len(events) > EVENTS_KEPT_MAX:
            self._fresh.clear()
            self._missed = True
        elif not self._missed:
            self._fresh.extend(events)
        self._wake.set()

    def end(self, reason: Refusal) -> None:
        """There will be no more: the reader is refused."""
        self._reason = reason
        self._wake.set()

    def catch_up(self) -> None:
        """The reader is about to read the store: from now on, new rows are kept again."""
        self._missed = False

    async def next(self) -> events_pb2.Event | None:
        """The next row; None if some were missed, and have to be read from the store.

        Raises FerryError once there will be no more.
        """
        while True:
            if self._reason is not None:
                raise FerryError(self._reason)
            if self._missed:
                return None
            if self._fresh:
                return self._fresh.popleft()
            self._wake.clear()
            await self._wake.wait()


class Watchers:
    """All watchers. An audience of the driver; use from its event loop."""

    def __init__(self) -> None:
        self._vms: dict[Watch[VmView], str] = {}
        self._migrations: dict[Watch[MigrationView], str] = {}
        self._events: set[EventWatch] = set()
        self._closed: Refusal | None = None

    @contextmanager
    def vm(self, name: str) -> Iterator[Watch[VmView]]:
        """A watch of a VM; its first state is for the caller to offer."""
        with self._registered(self._vms, name, Watch[VmView]()) as watch:
            yield watch

    @contextmanager
    def migration(self, migration_id: str) -> Iterator[Watch[MigrationView]]:
        """A watch of a move; its first state is for the caller to offer."""
        with self._registered(self._migrations, migration_id, Watch[MigrationView]()) as watch:
            yield watch

    @contextmanager
    def events(self) -> Iterator[EventWatch]:
        """A watch of the event log."""
        if self._closed is not None:
            raise FerryError(self._closed)
        watch = EventWatch()
        self._events.add(watch)
        try:
            yield watch
        finally:
            self._events.discard(watch)

    def changed(self, cluster: Cluster, changed: Changed) -> None:
        """Offer new states to whoever watches those objects."""
        for watch, name in self._vms.items():
            seen = watch.newest
            # A VM's addresses are those of its node.
            if name in changed.vms or (seen is not None and seen.node in changed.nodes):
                if name in cluster.state.vms:
                    watch.offer(cluster.vm_view(name))
                else:
                    watch.end()
        for move_watch, migration_id in self._migrations.items():
            known = move_watch.newest
            # What a queued move waits for changes with the other moves.
            waits = known is not None and known.record.state is MigrationState.QUEUED
            if migration_id in changed.migrations or (waits and changed.migrations):
                if migration_id in cluster.state.migrations:
                    offer_migration(move_watch, cluster.migration_view(migration_id))
                else:
                    move_watch.end()

    def happened(self, events: Sequence[events_pb2.Event]) -> None:
        """Offer new rows to whoever watches the log."""
        for watch in self._events:
            watch.offer(events)

    def close(self, reason: Refusal) -> None:
        """End every watch, and refuse new ones."""
        self._closed = reason
        for watches in (self._vms, self._migrations, self._events):
            for watch in watches:
                watch.end(reason)

    @contextmanager
    def _registered(self, watches: dict[Watch[_T], str], name: str, watch: Watch[_T]) -> Iterator[Watch[_T]]:
        if self._closed is not None:
            raise FerryError(self._closed)
        watches[watch] = name
        try:
            yield watch
        finally:
            del watches[watch]


def offer_migration(watch: Watch[MigrationView], view: MigrationView) -> None:
    """Offer a move's state; a move that has ended has no other after it."""
    watch.offer(view)
    if view.record.state in ENDED:
        watch.end()
