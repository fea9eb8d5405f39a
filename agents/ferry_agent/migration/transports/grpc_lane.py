"""One gRPC bulk stream on a channel of its own, at the source: what is on its way, and whether it lives."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import grpc.aio

from ferry.v1 import migration_pb2
from ferry_agent.migration import protocol
from ferry_agent.migration.frames import NO_PAGES, EncodedFrame, opening_frame
from ferry_agent.migration.ports import Wire
from ferry_agent.migration.tally import Tally
from ferry_agent.migration.transports.lanes import LanePlan
from ferry_agent.migration.transports.transport import Indices
from ferry_types.errors import FerryError, Refusal, failed
from ferry_types.messages import BeginOutgoing
from ferry_wire.channels import BULK_OPTIONS, IdleChannels
from ferry_wire.status import refusal_of

BULK_METHOD = "/ferry.v1.Migration/Bulk"

UNWRITTEN_FRAMES_MAX = 2
"""Frames that wait for gRPC to take them: one is being written while the next is gathered."""

# Quoted, because older releases of gRPC take no type arguments at run time.
_BulkMethod: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, migration_pb2.BulkAck]"
_BulkCall: TypeAlias = "grpc.aio.StreamStreamCall[bytes, migration_pb2.BulkAck]"


@dataclass(frozen=True, slots=True)
class Shipment:
    """A frame that is on its way: which pages it has, and what it counts for."""

    page_indices: Indices
    zero_indices: Indices
    pages: int
    checksum: int
    size_bytes: int


class GrpcLane:
    """Frames go out in the order in which they are posted; acknowledgements come back for all up to one.

    ``on_change`` is called whenever one was written or acknowledged, and ``on_death`` once, when the stream
    ends or misbehaves.
    """

    def __init__(
        self,
        plan: LanePlan,
        order: BeginOutgoing,
        wire: Wire,
        tally: Tally,
        channels: IdleChannels,
        on_change: Callable[[], None],
        on_death: Callable[[Refusal], None],
    ) -> None:
        self.number = plan.number
        self.dead: Refusal | None = None
        """Why it cannot be used any more."""
        self.in_flight: deque[Shipment] = deque()
        """Posted, and not acknowledged; the oldest first."""
        self.frames_posted = 0
        self.last_was_full = False
        """Whether the acknowledgement of the last frame may be held back."""
        self._plan = plan
        self._order = order
        self.wire = wire
        self._tally = tally
        self._channels = channels
        self._on_change = on_change
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._progress_at_s = 0.0
        """When it last had nothing in flight, or was acknowledged something."""
        self._unwritten: deque[bytes] = deque()
        self._posted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._channel: grpc.aio.Channel | None = None
        self._bulk: _BulkCall

    def connect(self) -> None:
        """Begin to connect."""
        self._channel = self._channels.take(self._plan.address, BULK_OPTIONS)
        self._channel.get_state(try_to_connect=True)

    def open(self) -> None:
        """Post the frame that proves the token; what is posted next follows it without waiting."""
        assert self._channel is not None
        # Not by the generated stub: frames are encoded by frame_codec.
        bulk: _BulkMethod = self._channel.stream_stream(
            BULK_METHOD, response_deserializer=migration_pb2.BulkAck.FromString
        )
        self._bulk = bulk()
        self._tasks = [asyncio.create_task(work) for work in (self._read(), self._write())]
        opening = opening_frame(self._order.migration_id, self._order.token, self.number)
        self.post(opening, NO_PAGES, NO_PAGES)

    @property
    def has_room(self) -> bool:
        """Whether another frame would be written soon."""
        return len(self._unwritten) < UNWRITTEN_FRAMES_MAX

    @property
    def patience_s(self) -> float:
        """How long it may be silent while frames are in flight; less until the opening one has arrived."""
        has_opened = len(self.in_flight) < self.frames_posted
        return protocol.ANSWER_S_MAX if has_opened else protocol.OPENING_S_MAX

    @property
    def overdue_at_s(self) -> float:
        """By the loop's clock: when it will have been silent for too long, if frames are in flight."""
        return self._progress_at_s + self.patience_s

    def post(self, frame: EncodedFrame, page_indices: Indices, zero_indices: Indices) -> None:
        """Have frame number ``frames_posted`` written."""
        if not self.in_flight:
            self._progress_at_s = self._loop.time()
        size_bytes = len(frame.wire)
        self.in_flight.append(Shipment(page_indices, zero_indices, frame.pages, frame.checksum, size_bytes))
        self.frames_posted += 1
        self.last_was_full = frame.full
        self._tally.add(frame.pages, frame.checksum)
        self._tally.bytes_sent += size_bytes
        self._unwritten.append(frame.wire)
        self._posted.set()

    def die(self, reason: Refusal) -> None:
        """Use it no more; the first reason counts."""
        if self.dead is None:
            self.dead = reason
            self._on_death(reason)
            self._on_change()

    async def close(self) -> None:
        """End the stream; a connection on which all has arrived is kept for the next attempt."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._unwritten.clear()
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if not self._tasks or self.dead is not None or self.in_flight:
            await channel.close()  # cancels the call that it carries
        else:
            self._bulk.cancel()
            await self._channels.put_back(channel, self._plan.address, BULK_OPTIONS)

    # --- tasks ----------------------------------------------------------------------------------------

    async def _write(self) -> None:
        try:
            while True:
                while not self._unwritten:
                    self._posted.clear()
                    await self._posted.wait()
                await self.wire.pass_bytes(len(self._unwritten[0]))
                await self._bulk.write(self._unwritten[0])
                self._unwritten.popleft()
                self._on_change()
        except FerryError as error:
            self.die(error.refusal)
        except grpc.aio.AioRpcError as error:
            self.die(refusal_of(error, self._plan.address))
        except asyncio.InvalidStateError:
            return  # the call ended before the write; its reader is about to learn why

    async def _read(self) -> None:
        frames_acked = 0
        try:
            while isinstance(ack := await self._bulk.read(), migration_pb2.BulkAck):
                if not frames_acked < ack.frames <= self.frames_posted:
                    raise FerryError(
                        failed(
                            f"{self._order.target} acknowledged {ack.frames} frames, where "
                            f"{self.frames_posted} were sent and {frames_acked} acknowledged before"
                        )
                    )
                for _ in range(ack.frames - frames_acked):
                    self._tally.bytes_acked += self.in_flight.popleft().size_bytes
                frames_acked = ack.frames
                self._progress_at_s = self._loop.time()
                self._on_change()
        except FerryError as error:
            self.die(error.refusal)
        except grpc.aio.AioRpcError as error:
            self.die(refusal_of(error, self._plan.address))
        else:
            self.die(failed(f"{self._order.target} ended the migration's streams"))
