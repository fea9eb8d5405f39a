"""A host without memory: speaks the membership protocol over real gRPC and does at once what it is told."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc.aio

from ferry.v1 import membership_pb2, membership_pb2_grpc
from ferry_types.errors import Refusal
from ferry_types.messages import (
    AcknowledgeLoss,
    Armed,
    ArmHandOff,
    BeginOutgoing,
    CancelMigration,
    EpochRaised,
    FromHost,
    Grant,
    HostEnvelope,
    ImageReport,
    IncomingPrepared,
    Join,
    LossAcknowledged,
    MigrationProgress,
    PrepareIncoming,
    RaiseEpoch,
    RecordVotes,
    Renewal,
    ResumeSource,
    RunVm,
    SourceReleased,
    StartVm,
    StopVm,
    TargetReady,
    TargetRuns,
    ToHost,
    VmRunning,
    VmStopped,
    VotesRecorded,
    Welcome,
)
from ferry_types.migrations import MigrationFigures, PassFigures
from ferry_types.vms import Capacity, ImagePhase
from ferry_wire.channels import open_channel
from ferry_wire.envelopes import host_envelope_to_proto, host_order_from_proto
from ferry_wire.status import refusal_of

if TYPE_CHECKING:  # at run time it takes no parameters
    _Stream = grpc.aio.StreamStreamCall[membership_pb2.FromHost, membership_pb2.ToHost]


PATIENCE_S = 15.0
RECONNECT_S = 0.05


async def eventually(holds: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds; fail after a while."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = holds()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


def figures() -> MigrationFigures:
    final = PassFigures(0, 1, 0, 4096, 0.001, 0)
    return MigrationFigures((), final, 0.5, 0.002, 4096, explanation="nothing was left")


@dataclass(slots=True)
class ScriptedHost:
    """One incarnation of a host. ``run`` attends until it is cancelled, and comes back when cut off."""

    name: str
    coordinator: str
    incarnation: str = "a1"
    uuid: str = ""
    session: int = 1
    images: dict[str, ImageReport] = field(default_factory=dict)
    orders: list[ToHost] = field(default_factory=list)
    terms: set[int] = field(default_factory=set)
    refusals: list[Refusal] = field(default_factory=list)
    grant_latencies_s: list[float] = field(default_factory=list)
    commit_latencies_s: list[float] = field(default_factory=list)
    """READY sent to RunVm received."""
    on_armed: Callable[[str], None] = lambda migration_id: None
    _outgoing: "asyncio.Queue[HostEnvelope]" = field(default_factory=asyncio.Queue)
    _renewed_at: dict[int, float] = field(default_factory=dict)
    _ready_at: float = 0.0
    _seq: int = 0

    @property
    def ungranted(self) -> int:
        """Renewals that were sent and have not been answered."""
        return len(self._renewed_at)

    async def run(self) -> None:
        """Attend, again and again."""
        while True:
            await self.attend()
            await asyncio.sleep(RECONNECT_S)

    async def attend(self) -> None:
        """One stream, from Join to its end; a refusal is noted."""
        self._outgoing = asyncio.Queue()
        self.say(self._join())
        tasks: list[asyncio.Task[None]] = []
        try:
            async with open_channel(self.coordinator) as channel:
                stream = membership_pb2_grpc.MembershipStub(channel).Attend()
                tasks.append(asyncio.create_task(self._talk(stream)))
                while isinstance(message := await stream.read(), membership_pb2.ToHost):
                    order = host_order_from_proto(message)
                    self.terms.add(order.term)
                    if isinstance(order.body, Welcome) and len(tasks) == 1:
                        tasks.append(asyncio.create_task(self._renew(order.body.beat_s)))
                    self._vote(order.term, order.body)
                    self._obey(order.body)
        except grpc.aio.AioRpcError as error:
            self.refusals.append(refusal_of(error, self.coordinator))
        finally:
            for task in tasks:
                task.cancel()

    def say(self, body: FromHost) -> None:
        """Queue a message."""
        self._outgoing.put_nowait(HostEnvelope(self.incarnation, self.session, body))

    def ready(self, migration_id: str) -> None:
        """As target: all pages are here."""
        self._ready_at = time.perf_counter()
        self.say(TargetReady(migration_id))

    def _join(self) -> Join:
        return Join(
            self.name,
            self.uuid or f"uuid-{self.name}",
            "127.0.0.1:1",
            "127.0.0.1:2",
            Capacity(8 * 2**30, 4, 2),
            "0.1.0",
            tuple(self.images.values()),
        )

    async def _talk(self, stream: "_Stream") -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the reading side hears of it too
            while True:
                envelope = await self._outgoing.get()
                if isinstance(envelope.body, Renewal):
                    self._renewed_at[envelope.body.seq] = time.perf_counter()
                await stream.write(host_envelope_to_proto(envelope))

    async def _renew(self, beat_s: float) -> None:
        while True:
            self._seq += 1
            self.say(Renewal(self._seq))
            await asyncio.sleep(beat_s)

    def _vote(self, term: int, order: ToHost) -> None:
        match order:
            case RecordVotes(number):
                self.say(VotesRecorded(number))
            case AcknowledgeLoss(node, incarnation, number):
                self.say(LossAcknowledged(node, incarnation, term, number))

    def _obey(self, order: ToHost) -> None:
        if isinstance(order, Grant):
            self.grant_latencies_s.append(time.perf_counter() - self._renewed_at.pop(order.seq))
            return
        self.orders.append(order)
        match order:
            case Welcome():
                for image in self.images.values():
                    if image.phase is ImagePhase.RUNNING:
                        self.say(VmRunning(image.vm, image.epoch, "", time.monotonic()))
            case StartVm(spec, epoch):
                self._raise(spec.name, epoch)
            case RunVm(migration_id, vm, epoch):
                self.commit_latencies_s.append(time.perf_counter() - self._ready_at)
                self._raise(vm, epoch, migration_id)
            case ResumeSource(_, vm, epoch):
                self._raise(vm, epoch)
            case EpochRaised(vm, epoch, raised):
                assert raised
                image = self.images[vm]
                self.images[vm] = ImageReport(vm, epoch, ImagePhase.RUNNING)
                self.say(VmRunning(vm, epoch, image.migration_id, time.monotonic()))
            case StopVm(vm, epoch):
                self.images.pop(vm, None)
                self.say(VmStopped(vm, epoch))
            case _:
                self._move(order)

    def _raise(self, vm: str, epoch: int, migration_id: str = "") -> None:
        self.images[vm] = ImageReport(vm, epoch, ImagePhase.RAISING, migration_id)
        self.say(RaiseEpoch(vm, epoch))

    def _move(self, order: ToHost) -> None:
        match order:
            case PrepareIncoming(migration_id, _, spec, epoch, _):
                phase = ImagePhase.RECEIVING
                self.images[spec.name] = ImageReport(spec.name, epoch, phase, migration_id)
                self.say(IncomingPrepared(migration_id))
            case BeginOutgoing(migration_id):
                self.say(MigrationProgress(migration_id, 1, 5, 10, 3, 1e6, MigrationFigures()))
                self.say(ArmHandOff(migration_id))
            case Armed(migration_id):
                self.on_armed(migration_id)
            case TargetRuns(migration_id, vm):
                del self.images[vm]
                self.say(SourceReleased(migration_id, figures()))
            case CancelMigration(migration_id):
                for image in list(self.images.values()):
                    if image.migration_id == migration_id and image.phase is ImagePhase.RECEIVING:
                        del self.images[image.vm]


class Attending:
    """Runs scripted hosts as long as the block lasts, which begins when all are up."""

    def __init__(self, *hosts: ScriptedHost) -> None:
        self._hosts = hosts
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(host.run()) for host in self._hosts]
        await eventually(lambda: all(host.grant_latencies_s for host in self._hosts))

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
