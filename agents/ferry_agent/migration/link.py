"""The source's end of an attempt's two streams: opens them, bounds what is in flight, notices their end."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc.aio

from ferry.v1 import migration_pb2, migration_pb2_grpc
from ferry_agent.migration import protocol
from ferry_agent.migration.clocks import ClockExchange, estimate_offset_s, share_a_clock
from ferry_agent.migration.frames import EncodedFrame, opening_frame
from ferry_types.errors import ErrorCode, FerryError, Refusal, failed
from ferry_types.messages import BeginOutgoing
from ferry_wire.channels import BULK_OPTIONS, CONTROL_OPTIONS, Options, open_channel
from ferry_wire.status import refusal_of

BULK_METHOD = "/ferry.v1.Migration/Bulk"

# Quoted, because older releases of gRPC take no type arguments at run time.
_ControlCall: TypeAlias = (
    "grpc.aio.StreamStreamCall[migration_pb2.ControlFromSource, migration_pb2.ControlFromTarget]"
)
_BulkMethod: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, migration_pb2.BulkAck]"
_BulkCall: TypeAlias = "grpc.aio.StreamStreamCall[bytes, migration_pb2.BulkAck]"


class SourceLink:
    """Control and bulk stream of one attempt, on channels of their own.

    ``broken`` is fulfilled with the reason once either stream ends or misbehaves. Methods that send raise
    FerryError with that reason.
    """

    def __init__(self, order: BeginOutgoing) -> None:
        self.broken: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self.frames_sent = 0
        self.pages_sent = 0
        self.bytes_sent = 0
        self.checksum_sum = 0
        self.frames_acked = 0
        self.bytes_acked = 0
        self.last_was_full = False
        """Whether the acknowledgement of the last frame may be held back."""
        self.target_takes_lz4 = False
        """Whether it has said that it takes compressed frames."""
        self.clock_offset_s = 0.0
        """Target's monotonic clock minus this machine's."""
        self._order = order
        self._in_flight_bytes: deque[int] = deque()
        self._acked = asyncio.Event()
        self._channels: list[grpc.aio.Channel] = []
        self._readers: list[asyncio.Task[None]] = []
        self._control: _ControlCall
        self._bulk: _BulkCall

    async def open(self, page_count: int, boot_id: str) -> None:
        """Say hello on both streams and compare clocks. Raises FerryError; ``close`` is due in any case."""
        try:
            async with asyncio.timeout(protocol.OPENING_S_MAX):
                # Not by the generated stub: frames are encoded by frame_codec.
                bulk_channel = self._connect(BULK_OPTIONS)
                bulk: _BulkMethod = bulk_channel.stream_stream(
                    BULK_METHOD, response_deserializer=migration_pb2.BulkAck.FromString
                )
                bulk_channel.get_state(try_to_connect=True)  # meanwhile
                self._control = migration_pb2_grpc.MigrationStub(self._connect(CONTROL_OPTIONS)).Control()
                await self._greet(page_count, boot_id)
                self._bulk = bulk()
                self._read(self._read_acks())
                await self.send_frame(opening_frame(self._order.migration_id, self._order.token))
                await self.all_acked()
        except TimeoutError:
            raise FerryError(self._silent(protocol.OPENING_S_MAX)) from None
        except grpc.aio.AioRpcError as error:
            raise FerryError(refusal_of(error, self._order.target_address)) from error

    def _connect(self, options: Options) -> grpc.aio.Channel:
        routes = self._order.routes
        address = routes[0].address if routes else self._order.target_address
        self._channels.append(open_channel(address, options))
        return self._channels[-1]

    def _read(self, reading: Coroutine[Any, Any, None]) -> None:
        self._readers.append(asyncio.create_task(self._watch(reading)))

    async def _greet(self, page_count: int, boot_id: str) -> None:
        hello = migration_pb2.MigrationHello(
            protocol_version=protocol.PROTOCOL_VERSION,
            migration_id=self._order.migration_id,
            token=self._order.token,
            vm=self._order.vm,
            epoch=self._order.epoch,
            page_count=page_count,
            verify=self._order.options.verify,
            boot_id=boot_id,
        )
        await self._send_control(migration_pb2.ControlFromSource(hello=hello))
        accept = (await self._answer("accept")).accept
        if accept.protocol_version != protocol.PROTOCOL_VERSION:
            raise FerryError(
                failed(
                    f"{self._order.target} speaks version {accept.protocol_version} of the migration "
                    f"protocol, this host version {protocol.PROTOCOL_VERSION}",
                    "run the same release of Hyperferry on both hosts",
                )
            )
        self.target_takes_lz4 = accept.takes_lz4
        if not share_a_clock(boot_id, accept.boot_id):
            self.clock_offset_s = estimate_offset_s(
                [await self._probe_clock() for _ in range(protocol.CLOCK_PROBES)]
            )
        self._read(self._read_control())

    async def _probe_clock(self) -> ClockExchange:
        probe = migration_pb2.ClockProbe(source_sent_at_s=time.monotonic())
        await self._send_control(migration_pb2.ControlFromSource(clock_probe=probe))
        reading = (await self._answer("clock_reading")).clock_reading
        return ClockExchange(probe.source_sent_at_s, reading.target_at_s, time.monotonic())

    async def _answer(self, body: str) -> migration_pb2.ControlFromTarget:
        message = await self._control.read()
        if not isinstance(message, migration_pb2.ControlFromTarget) or message.WhichOneof("body") != body:
            raise FerryError(failed(f"{self._order.target} did not answer with {body}"))
        return message

    # --- sending ------------------------------------------------------------------------------------

    async def send_frame(self, frame: EncodedFrame) -> None:
        """Hand over frame number ``frames_sent`` as soon as the window allows."""
        async with self._answering():
            while self.frames_sent - self.frames_acked >= protocol.IN_FLIGHT_FRAMES_MAX:
                await self._next_ack()
            self._in_flight_bytes.append(len(frame.wire))
            self.frames_sent += 1
            await self._written(self._bulk.write(frame.wire))
        self.pages_sent += frame.pages
        self.bytes_sent += len(frame.wire)
        self.checksum_sum = (self.checksum_sum + frame.checksum) % 2**64
        self.last_was_full = frame.full

    async def all_acked(self) -> None:
        """Wait until every frame was checked and written. The last one must not have been full."""
        async with self._answering():
            while self.frames_acked < self.frames_sent:
                await self._next_ack()

    async def send_final(self, device_state: bytes) -> None:
        """The end of the final copy: what the target must have by now."""
        final = migration_pb2.Final(
            frames=self.frames_sent,
            pages=self.pages_sent,
            checksum=self.checksum_sum,
            device_state=device_state,
        )
        await self._send_control(migration_pb2.ControlFromSource(final=final))

    async def send_digest(self, digest: bytes) -> None:
        """With verify, after Final."""
        body = migration_pb2.MemoryDigest(digest=digest)
        await self._send_control(migration_pb2.ControlFromSource(memory_digest=body))

    async def close(self) -> None:
        """End both streams. If the final copy was not sent, the target drops the attempt."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for channel in self._channels:
            await channel.close()  # cancels the call that it carries

    async def _send_control(self, message: migration_pb2.ControlFromSource) -> None:
        async with self._answering():
            await self._written(self._control.write(message))

    async def _written(self, write: Awaitable[None]) -> None:
        try:
            await write
        except grpc.aio.AioRpcError as error:
            self.break_off(refusal_of(error, self._order.target_address))
        except asyncio.InvalidStateError:
            # The call ended before the write; the reader of the same stream is about to learn why.
            await asyncio.wait({self.broken})
        self._raise_if_broken()

    async def _next_ack(self) -> None:
        self._acked.clear()
        await self._acked.wait()
        self._raise_if_broken()

    @asynccontextmanager
    async def _answering(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(protocol.ANSWER_S_MAX):
                yield
        except TimeoutError:
            self.break_off(self._silent(protocol.ANSWER_S_MAX))
            self._raise_if_broken()

    def _raise_if_broken(self) -> None:
        if self.broken.done():
            raise FerryError(self.broken.result())

    def _silent(self, duration_s: float) -> Refusal:
        return Refusal(
            ErrorCode.UNREACHABLE,
            f"{self._order.target} at {self._order.target_address} gave no answer for {duration_s:.0f} s",
            "see whether its agent runs and the network between the hosts works",
        )

    # --- receiving ----------------------------------------------------------------------------------

    def break_off(self, reason: Refusal) -> None:
        """Give the streams up; the first reason counts."""
        if not self.broken.done():
            self.broken.set_result(reason)
        self._acked.set()

    async def _watch(self, reading: Coroutine[Any, Any, None]) -> None:
        try:
            await reading
        except FerryError as error:
            self.break_off(error.refusal)
        except grpc.aio.AioRpcError as error:
            self.break_off(refusal_of(error, self._order.target_address))
        else:
            self.break_off(failed(f"{self._order.target} ended the migration's streams"))

    async def _read_control(self) -> None:
        if await self._control.read() is not grpc.aio.EOF:
            raise FerryError(failed(f"{self._order.target} sent what is not of the migration protocol"))

    async def _read_acks(self) -> None:
        while isinstance(ack := await self._bulk.read(), migration_pb2.BulkAck):
            if not self.frames_acked < ack.frames <= self.frames_sent:
                raise FerryError(
                    failed(
                        f"{self._order.target} acknowledged {ack.frames} frames, where "
                        f"{self.frames_sent} were sent and {self.frames_acked} acknowledged before"
                    )
                )
            while self.frames_acked < ack.frames:
                self.bytes_acked += self._in_flight_bytes.popleft()
                self.frames_acked += 1
            self._acked.set()
