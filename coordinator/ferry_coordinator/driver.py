"""The one task that owns the cluster core: feeds it events and carries out its commands, in order.

Nobody else touches the core. Who wants to read it hands in a function, which runs between two events, so
that nobody ever sees what is not committed yet (rule S2).

The queue needs no back-pressure of its own: a node's stream hands in its next message only once the one
before has been dealt with, a tick follows a tick, and admin calls beyond a number are refused.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ferry.v1 import events_pb2
from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import (
    Changed,
    CheckTerm,
    CloseStream,
    Command,
    Commit,
    ReadWitness,
    ReplaceWitness,
    Reply,
    Send,
)
from ferry_cluster.inputs import (
    AdminRequest,
    DeathCertified,
    Event,
    HostMessage,
    StreamClosed,
    Tick,
    WitnessAnswered,
    WitnessFailed,
)
from ferry_cluster.records import MigrationRecord
from ferry_coordinator.journal import Journal
from ferry_coordinator.metrics import Metrics
from ferry_types.errors import ErrorCode, FerryError, Refusal
from ferry_types.messages import HostOrder
from ferry_types.migrations import MigrationState
from ferry_types.quorum import WitnessRecord

CALLS_QUEUED_MAX = 1024
"""Length of the queue from which on admin calls are refused."""

TICKS_PER_BEAT = 4

WATCHERS_LATER_S = 0.03
"""While a hand-off is armed, watchers hear of changes so much later, and together; an idle guest's is over by
then, and they hear of its end at once.

What they are shown takes this process and theirs longer to make than a commit, and processors that the guest
waits for."""

STOPPING = Refusal(ErrorCode.UNREACHABLE, "the coordinator is stopping", "try again once it is back")
OVERLOADED = Refusal(ErrorCode.UNREACHABLE, "the coordinator has too much to do", "try again in a moment")

_LOG = logging.getLogger(__name__)

_NOTHING = Changed(frozenset(), frozenset(), frozenset())

_T = TypeVar("_T")


class Streams(Protocol):
    """Where orders to nodes go. Neither call waits or raises; an unknown stream is one that has ended."""

    def send(self, stream: int, order: HostOrder) -> None:
        """Queue an order on a stream."""
        ...

    def end(self, stream: int, reason: Refusal) -> None:
        """End a stream after what is queued on it."""
        ...


class WitnessCalls(Protocol):
    """How the witness is asked. Raises FerryError if it gives no answer that can be understood."""

    async def read(self, address: str, cluster: str) -> WitnessRecord:
        """Its record of a cluster."""
        ...

    async def replace(self, address: str, cluster: str, record: WitnessRecord) -> tuple[bool, WitnessRecord]:
        """Replace the record before this one; whether that was done, and its record now."""
        ...


class Audience(Protocol):
    """Who is told after the store has committed. Called between events; neither call waits or raises."""

    def changed(self, cluster: Cluster, changed: Changed) -> None:
        """Objects look different now, or are gone."""
        ...

    def happened(self, events: Sequence[events_pb2.Event]) -> None:
        """Events have been added to the log."""
        ...


@dataclass(frozen=True, slots=True)
class _Handle:
    """Let the core handle an event; ``done`` is told when its commands have been carried out."""

    event: Event
    done: asyncio.Future[None] | None = None
    queued_at: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _TellWatchers:
    """Tell the watchers what has changed lately."""


@dataclass(frozen=True, slots=True)
class _Read:
    """Look at the core between events."""

    look: Callable[[Cluster], object]
    answer: asyncio.Future[Any]

    def run(self, cluster: Cluster) -> None:
        """Answer, if somebody still waits."""
        if self.answer.done():
            return
        try:
            self.answer.set_result(self.look(cluster))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to whoever asked
            self.answer.set_exception(error)


class Driver:
    """Runs one reign. Use from one event loop; ``run`` is its task."""

    def __init__(
        self,
        cluster: Cluster,
        journal: Journal,
        streams: Streams,
        watchers: Audience,
        onlookers: Sequence[Audience],
        metrics: Metrics,
        witness: WitnessCalls,
        *,
        check: bool = False,
    ) -> None:
        """``watchers`` are told at once, during a hand-off a little later; ``onlookers`` at the next tick.

        Moves commit inside their guests' black-outs, and the bus and the metrics take as long as the commit.
        ``check``: look at the core's invariants after every event.
        """
        self._cluster = cluster
        self._journal = journal
        self._streams = streams
        self._watchers = watchers
        self._onlookers = onlookers
        self._unseen = _NOTHING
        """What the watchers have yet to hear of; ``_changed``: what the onlookers have."""
        self._changed = _NOTHING
        self._happened: list[events_pb2.Event] = []
        self._metrics = metrics
        self._witness = witness
        self._asking: set[asyncio.Task[None]] = set()
        self._check = check
        self._jobs: asyncio.Queue[_Handle | _Read | _TellWatchers | None] = asyncio.Queue()
        self._tick_s = cluster.settings.timing.beat_s / TICKS_PER_BEAT
        self._tick_timer: asyncio.TimerHandle | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[str | MigrationRecord | Refusal]] = {}
        self._promises: set[asyncio.Future[Any]] = set()
        self._open = True
        metrics.watch_queue(self._jobs.qsize)

    @property
    def last_event_id(self) -> int:
        """ID of the newest event that has been committed; audiences may yet have to be told of it."""
        return self._journal.last_event_id

    @property
    def has_untold(self) -> bool:
        """Whether watchers or onlookers have yet to hear of something."""
        return self._unseen != _NOTHING or self._changed != _NOTHING or bool(self._happened)

    async def run(self) -> None:
        """Reign until ``stop``.

        Raises Deposed when another coordinator reigns, StoreError when the store fails for good, and
        whatever the core raises when its rules are broken: the process ends then, and the store is as good
        as before that event.
        """
        try:
            await self._carry_out(self._cluster.start(time.monotonic()))
            await self._handle(_Handle(_tick()))  # the core knows the hour before anybody asks it
            while (job := await self._jobs.get()) is not None and self._open:
                if isinstance(job, _Read):
                    job.run(self._cluster)
                elif isinstance(job, _TellWatchers):
                    self._tell_watchers()
                else:
                    await self._handle(job)
            self._tell_watchers()
            self._tell_onlookers()
        finally:
            self._end()

    def stop(self) -> None:
        """Let ``run`` return after the event that is being handled; who still waits is told so."""
        self._open = False
        self._jobs.put_nowait(None)

    async def submit(self, message: HostMessage | DeathCertified) -> None:
        """Hand in what a node or its watchdog says, and return when it has been dealt with.

        Raises FerryError (unreachable) if the coordinator is stopping.
        """
        done: asyncio.Future[None] = self._promise()
        self._jobs.put_nowait(_Handle(message, done))
        await done

    def stream_closed(self, stream: int) -> None:
        """Report that a node's stream has ended."""
        if self._open:
            self._jobs.put_nowait(_Handle(StreamClosed(stream)))

    async def ask(self, request: Callable[[int], AdminRequest]) -> str | MigrationRecord:
        """Put an admin's request, made with the number it is given, and wait for the answer.

        Raises FerryError: the refusal, or unreachable if the coordinator is stopping or overloaded. The
        request goes on if the caller gives up.
        """
        answer: asyncio.Future[str | MigrationRecord | Refusal] = self._promise(refuse_at=CALLS_QUEUED_MAX)
        number = next(self._numbers)
        self._answers[number] = answer
        self._jobs.put_nowait(_Handle(request(number)))
        try:
            result = await answer
        finally:
            del self._answers[number]
        if isinstance(result, Refusal):
            raise FerryError(result)
        return result

    async def read(self, look: Callable[[Cluster], _T]) -> _T:
        """What ``look`` returns of the cluster between two events; it must not change it.

        Raises the FerryError that it raises, or unreachable if the coordinator is stopping or overloaded.
        """
        answer: asyncio.Future[_T] = self._promise(refuse_at=CALLS_QUEUED_MAX)
        self._jobs.put_nowait(_Read(look, answer))
        return await answer

    def _promise(self, refuse_at: int | None = None) -> "asyncio.Future[_T]":
        if not self._open:
            raise FerryError(STOPPING)
        if refuse_at is not None and self._jobs.qsize() >= refuse_at:
            raise FerryError(OVERLOADED)
        promise: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._promises.add(promise)
        promise.add_done_callback(self._promises.discard)
        return promise

    def _schedule_tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._tick_timer = loop.call_later(self._tick_s, lambda: self._jobs.put_nowait(_Handle(_tick())))

    async def _handle(self, job: _Handle) -> None:
        begun = time.monotonic()
        await self._carry_out(self._cluster.handle(job.event, begun))
        if self._check:
            self._cluster.check()
        if job.done is not None and not job.done.done():
            job.done.set_result(None)
        if isinstance(job.event, Tick):
            self._tell_onlookers()
            self._schedule_tick()
        else:
            self._metrics.handled(job.event, begun - job.queued_at, time.monotonic() - begun)

    async def _carry_out(self, commands: Sequence[Command]) -> None:
        events: list[events_pb2.Event] = []
        commits_s: list[float] = []
        for command in commands:
            match command:
                case Send(stream, order):
                    self._streams.send(stream, order)
                case Commit():
                    begun = time.monotonic()
                    events += await self._journal.commit(command, urgent=self._is_handing_over)
                    commits_s.append(time.monotonic() - begun)
                case CheckTerm(term):
                    await self._journal.check_term(term)
                case CloseStream(stream, reason):
                    self._streams.end(stream, reason)
                case ReadWitness() | ReplaceWitness():
                    asking = asyncio.get_running_loop().create_task(self._ask_witness(command))
                    self._asking.add(asking)
                    asking.add_done_callback(self._asking.discard)
                case Reply(request, result):
                    answer = self._answers.get(request)
                    if answer is not None and not answer.done():
                        answer.set_result(result)
                case Changed():
                    self._show_watchers(command)
                    self._changed = _together(self._changed, command)
        # Last, because orders to hosts may be inside a black-out, and log and metrics are not.
        for commit_s in commits_s:
            self._metrics.committed(commit_s)
        if events:
            self._watchers.happened(events)
            self._happened += events

    async def _ask_witness(self, command: ReadWitness | ReplaceWitness) -> None:
        """Ask, and hand the answer in; the reign goes on meanwhile."""
        address, cluster = command.address, self._cluster.settings.cluster
        event: WitnessAnswered | WitnessFailed
        try:
            if isinstance(command, ReadWitness):
                record = await self._witness.read(address, cluster)
            else:
                _, record = await self._witness.replace(address, cluster, command.record)
            event = WitnessAnswered(address, record)
        except Exception as error:  # noqa: BLE001 - whatever it is, the core awaits an answer
            unexpected = None if isinstance(error, FerryError) else error
            _LOG.info("the witness at %s does not answer: %s", address, error, exc_info=unexpected)
            event = WitnessFailed(address)
        if self._open:
            self._jobs.put_nowait(_Handle(event))

    @property
    def _is_handing_over(self) -> bool:
        """Whether a hand-off is armed: its guest may be in its black-out."""
        moves = self._cluster.state.under_way.values()
        return any(move.state is MigrationState.SWITCHING for move in moves)

    def _show_watchers(self, changed: Changed) -> None:
        """Tell the watchers of a change, now or when no guest waits for this process."""
        is_first = self._unseen == _NOTHING
        self._unseen = _together(self._unseen, changed)
        if not self._is_handing_over:
            self._tell_watchers()
        elif is_first:
            loop = asyncio.get_running_loop()
            loop.call_later(WATCHERS_LATER_S, self._jobs.put_nowait, _TellWatchers())

    def _tell_watchers(self) -> None:
        unseen, self._unseen = self._unseen, _NOTHING
        if unseen != _NOTHING:
            self._watchers.changed(self._cluster, unseen)

    def _tell_onlookers(self) -> None:
        changed, self._changed = self._changed, _NOTHING
        happened, self._happened = self._happened, []
        for onlooker in self._onlookers:
            if changed != _NOTHING:
                onlooker.changed(self._cluster, changed)
            if happened:
                onlooker.happened(happened)

    def _end(self) -> None:
        self._open = False
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        for asking in self._asking:
            asking.cancel()
        for promise in self._promises:
            if not promise.done():
                promise.set_exception(FerryError(STOPPING))


def _tick() -> Tick:
    return Tick(time.time_ns() // 1000)


def _together(one: Changed, other: Changed) -> Changed:
    return Changed(one.nodes | other.nodes, one.vms | other.vms, one.migrations | other.migrations)
