"""A driver over the real core and a real store, and hosts that are only values."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ferry.v1 import events_pb2
from ferry_cluster.cluster import Cluster, ClusterSettings
from ferry_cluster.commands import Changed
from ferry_cluster.inputs import CancelMove, HostMessage
from ferry_coordinator.adapters.sqlite_store import SqliteStore
from ferry_coordinator.driver import Audience, Driver
from ferry_coordinator.journal import Journal
from ferry_coordinator.metrics import Metrics
from ferry_coordinator.ports import Commit, CommitOutcome, EventRow, Snapshot, StateStore
from ferry_types.eras import Era
from ferry_types.errors import Refusal
from ferry_types.messages import FromHost, HostEnvelope, HostOrder, ImageReport, Join
from ferry_types.profiles import LeaseTiming
from ferry_types.vms import Capacity, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve
from ferry_wire.witness import WitnessClient

MIB = 2**20
PATIENCE_S = 10.0
PATIENT = LeaseTiming("patient", beat_s=0.1, lease_s=600.0)
"""No node is lost, however slow the machine."""

BRISK = LeaseTiming("brisk", beat_s=0.02, lease_s=0.1)
"""Nodes are lost 0.2 s after their last renewal."""


def spec(name: str = "web1", memory_bytes: int = 16 * MIB) -> VmSpec:
    return VmSpec(name, memory_bytes, resolve("idle", memory_bytes), FillSpec(Fill.ZERO))


def join(name: str, incarnation: str = "a1", *images: ImageReport, session: int = 1) -> HostEnvelope:
    body = Join(
        name,
        f"uuid-{name}",
        f"{name}.example:7000",
        f"{name}.example:7001",
        Capacity(8 * 2**30, 4, 2),
        "0.1.0",
        images,
    )
    return HostEnvelope(incarnation, session, body)


def say(body: FromHost, incarnation: str = "a1", session: int = 1) -> HostEnvelope:
    return HostEnvelope(incarnation, session, body)


async def eventually(holds: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds; fail after a while."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


@dataclass(slots=True)
class Recorder:
    """What the driver tells: orders, ends of streams, changes and events, in one order."""

    told: list[object] = field(default_factory=list)

    def send(self, stream: int, order: HostOrder) -> None:
        self.told.append((stream, order))

    def end(self, stream: int, reason: Refusal) -> None:
        self.told.append((stream, reason))

    def changed(self, cluster: Cluster, changed: Changed) -> None:
        self.told.append(changed)

    def happened(self, events: Sequence[events_pb2.Event]) -> None:
        self.told.extend(events)

    def bodies(self, stream: int) -> list[object]:
        """Bodies of the orders on a stream."""
        return [
            order.body
            for number, order in (entry for entry in self.told if isinstance(entry, tuple))
            if number == stream and isinstance(order, HostOrder)
        ]


class StoreUnderTest:
    """A store that forwards to a real one; ``before`` and ``after`` a commit something may happen."""

    def __init__(self, inner: StateStore) -> None:
        self._inner = inner
        self.before: Callable[[Commit], Awaitable[None]] | None = None
        self.after: Callable[[Commit], Awaitable[None]] | None = None
        self.commits: list[Commit] = []

    async def load(self) -> Snapshot:
        return await self._inner.load()

    async def begin_term(self, previous: int) -> int:
        return await self._inner.begin_term(previous)

    async def read_term(self) -> int:
        return await self._inner.read_term()

    async def commit(self, commit: Commit, *, urgent: bool = False) -> CommitOutcome:
        self.commits.append(commit)
        if self.before is not None:
            await self.before(commit)
        outcome = await self._inner.commit(commit)
        if self.after is not None:
            await self.after(commit)
        return outcome

    async def events(
        self,
        since_id: int,
        *,
        since_time_us: int | None = None,
        node: str | None = None,
        vm: str | None = None,
        limit: int,
    ) -> tuple[EventRow, ...]:
        return await self._inner.events(since_id, since_time_us=since_time_us, node=node, vm=vm, limit=limit)

    async def close(self) -> None:
        await self._inner.close()


class Reign:
    """A coordinator without its servers."""

    def __init__(
        self,
        store: StoreUnderTest,
        driver: Driver,
        recorder: Recorder,
        metrics: Metrics,
        audiences: list[Audience],
    ) -> None:
        self.store = store
        self.driver = driver
        self.recorder = recorder
        self.metrics = metrics
        self.audiences = audiences
        """More may be added."""
        self.task = asyncio.create_task(driver.run())

    @classmethod
    async def begin(cls, path: Path, timing: LeaseTiming = PATIENT, *, forced: bool = False) -> "Reign":
        store = StoreUnderTest(await SqliteStore.open(path))
        journal, records = await Journal.begin(store)
        settings = ClusterSettings("lab", Era.WS2012R2, timing, forced)
        cluster = Cluster(settings, journal.term, records, time.monotonic())
        recorder, metrics = Recorder(), Metrics()
        audiences: list[Audience] = []
        driver = Driver(cluster, journal, recorder, recorder, audiences, metrics, WitnessClient(), check=True)
        begun = cls(store, driver, recorder, metrics, audiences)
        await driver.read(lambda _: None)  # it has logged its start
        return begun

    async def hear(self, stream: int, envelope: HostEnvelope) -> None:
        """A host says something, and it has been dealt with."""
        await self.driver.submit(HostMessage(stream, envelope))

    async def hear_while(
        self, asking: Coroutine[None, None, object], stream: int, *said: HostEnvelope
    ) -> None:
        """An admin's request that is answered once a host has said these."""
        asked = asyncio.create_task(asking)
        await asyncio.sleep(0)  # the request is in the queue
        for envelope in said:
            await self.hear(stream, envelope)
        await asked

    async def cancel(self, migration_id: str) -> None:
        """An admin cancels a move."""
        await self.driver.ask(lambda number: CancelMove(number, migration_id))

    async def told(self) -> None:
        """Until the audiences know all that has happened; who asked may be answered before they do."""
        await self.driver.read(lambda _: None)
        async with asyncio.timeout(PATIENCE_S):
            while self.driver.has_untold:  # noqa: ASYNC110 - the product has no such event
                await asyncio.sleep(0.005)

    async def end(self) -> None:
        self.driver.stop()
        with suppress(Exception):
            await asyncio.wait_for(self.task, PATIENCE_S)
        await self.store.close()
