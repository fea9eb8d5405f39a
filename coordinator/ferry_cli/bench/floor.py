"""The least that a black-out can cost on this machine: two round trips and a durable commit.

The pause of a live migration ends when the target has said that it is ready (a message between processes),
the coordinator has committed that the VM is the target's, and the target has heard of it. Nothing here moves
memory: it is what remains when there is nothing left to copy.
"""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeAlias

import grpc.aio

from ferry.v1.host_pb2 import Probe
from ferry_cli.admin import connect, connect_host
from ferry_coordinator.adapters.sqlite_store import SqliteStore
from ferry_coordinator.ports import Commit, Write

ROUND_TRIPS = 200
COMMITS = 100
_RECORD = bytes(range(256))
"""About the size of an ownership record."""

ProbeCall: TypeAlias = "grpc.aio.StreamStreamCall[Probe, Probe]"


@dataclass(frozen=True, slots=True)
class Floor:
    """Medians, in seconds."""

    agent_round_trip_s: float
    coordinator_round_trip_s: float
    commit_s: float

    @property
    def total_s(self) -> float:
        """What an otherwise empty pause costs."""
        return self.agent_round_trip_s + self.coordinator_round_trip_s + self.commit_s


class FloorMeter:
    """Measures in portions between the runs, so that floor and runs see the same machine."""

    def __init__(self, agent: ProbeCall, coordinator: ProbeCall, store: SqliteStore) -> None:
        self._agent, self._coordinator, self._store = agent, coordinator, store
        self._agent_s: list[float] = []
        self._coordinator_s: list[float] = []
        self._commit_s: list[float] = []

    async def sample(self, portions: int) -> None:
        """Measure one of ``portions`` equal parts of all samples."""
        for _ in range(math.ceil(ROUND_TRIPS / portions)):
            self._agent_s.append(await _timed(lambda: self._exchange(self._agent, len(self._agent_s))))
            self._coordinator_s.append(
                await _timed(lambda: self._exchange(self._coordinator, len(self._coordinator_s)))
            )
        for _ in range(math.ceil(COMMITS / portions)):
            self._commit_s.append(await _timed(self._commit))

    def floor(self) -> Floor:
        """The medians of what was measured."""
        return Floor(median(self._agent_s), median(self._coordinator_s), median(self._commit_s))

    async def _exchange(self, call: ProbeCall, number: int) -> None:
        await call.write(Probe(sequence=number))
        await call.read()

    async def _commit(self) -> None:
        seq = len(self._commit_s) + 1
        await self._store.commit(Commit(term=1, seq=seq, writes=(Write("bench", _RECORD),)))


@asynccontextmanager
async def floor_meter(
    host_address: str, coordinator_address: str, directory: Path
) -> AsyncIterator[FloorMeter]:
    """A meter between here, one agent and the coordinator, with a store of its own in ``directory``."""
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(connect_host(host_address))
        admin = await stack.enter_async_context(connect(coordinator_address))
        store = await SqliteStore.open(directory / "floor.sqlite3")
        stack.push_async_callback(store.close)
        await store.begin_term(0)
        agent, coordinator = host.RoundTrip(), admin.RoundTrip()
        stack.callback(agent.cancel)
        stack.callback(coordinator.cancel)
        yield FloorMeter(agent, coordinator, store)


async def _timed(action: Callable[[], Awaitable[None]]) -> float:
    began_at = time.perf_counter()
    await action()
    return time.perf_counter() - began_at
