"""The target's servicer: a control stream and lanes for each arriving VM, joined by id and token."""

import asyncio
import hmac
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc.aio

from ferry.v1 import migration_pb2
from ferry_agent.migration import protocol
from ferry_agent.migration.clocks import machine_boot_id
from ferry_agent.migration.digest import memory_digest
from ferry_agent.migration.direct_target import DirectLanes, ListenHost, loopback
from ferry_agent.migration.frame_codec import FrameError, decode
from ferry_agent.migration.frames import CheckedFrame
from ferry_agent.migration.frames_ahead import taken_ahead
from ferry_agent.migration.ports import TargetHost, WireOf, unshaped
from ferry_agent.migration.receiver import ArrivingLane, Phase, Receiver
from ferry_agent.network.delay import DelayLine
from ferry_types.errors import FerryError, Refusal, failed, refused
from ferry_types.links import MTU_MAX, MTU_MIN, MTU_STANDARD
from ferry_types.migrations import LANES_MAX, TransportOption

_SERVICE = migration_pb2.DESCRIPTOR.services_by_name["Migration"]

_ControlContext = grpc.aio.ServicerContext[migration_pb2.ControlFromSource, migration_pb2.ControlFromTarget]
_BulkContext = grpc.aio.ServicerContext[bytes, migration_pb2.BulkAck]


class MigrationServicer:
    """Receives memory into the slots that the host keeps. Frames are hostile until proved otherwise."""

    def __init__(
        self,
        host: TargetHost,
        *,
        boot_id: str | None = None,
        wire_of: WireOf = unshaped,
        listen_host: ListenHost = loopback,
    ) -> None:
        """``listen_host``: where raw connections to a NIC of this host are awaited."""
        self._host = host
        self._wire_of = wire_of
        self._listen_host = listen_host
        self._boot_id = machine_boot_id() if boot_id is None else boot_id
        self._receivers: dict[str, Receiver] = {}

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve ``ferry.v1.Migration`` there.

        Not by the generated function: frames are decoded by ``frame_codec``, and arrive here as bytes.
        """
        handlers = {
            "Control": grpc.stream_stream_rpc_method_handler(
                self.Control,
                request_deserializer=migration_pb2.ControlFromSource.FromString,
                response_serializer=migration_pb2.ControlFromTarget.SerializeToString,
            ),
            "Bulk": grpc.stream_stream_rpc_method_handler(
                self.Bulk, response_serializer=migration_pb2.BulkAck.SerializeToString
            ),
        }
        handler = grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers)
        server.add_generic_rpc_handlers((handler,))

    def drop(self, migration_id: str) -> None:
        """End the streams of a move that the host has dropped; nothing is written to its memory any more.

        A thread that hashes the memory may be at it for a moment longer: memory that was closed bears that.
        """
        receiver = self._receivers.get(migration_id)
        if receiver is not None:
            receiver.end(failed("the target has dropped the move"))

    # --- control --------------------------------------------------------------------------------------

    async def Control(self, _requests: Any, context: _ControlContext) -> None:
        """Hello, Accept, clock readings; then Final and the digest make the target READY."""
        message = await _first_message(context)
        if not isinstance(message, migration_pb2.ControlFromSource) or not message.HasField("hello"):
            raise FerryError(failed("a control stream began without Hello"))
        hello = message.hello
        receiver = self._admit(hello)
        self._receivers[hello.migration_id] = receiver
        try:
            await self._attend(receiver, self._converse(receiver, context), receiver.fail)
        finally:
            receiver.fail(_cut_off("control"))
            receiver.end(failed("the move's control stream has ended"))
            del self._receivers[hello.migration_id]

    def _admit(self, hello: migration_pb2.MigrationHello) -> Receiver:
        if hello.protocol_version != protocol.PROTOCOL_VERSION:
            raise FerryError(
                refused(
                    "protocol version",
                    f"the source speaks version {hello.protocol_version} of the migration protocol, "
                    f"this host version {protocol.PROTOCOL_VERSION}",
                    "run the same release of Hyperferry on both hosts",
                )
            )
        slot = self._host.incoming(hello.migration_id)
        if not _equal(slot.token.encode(), hello.token.encode()):
            raise FerryError(refused("migration token", f"wrong token for move {hello.migration_id}"))
        if hello.migration_id in self._receivers:
            raise FerryError(
                refused("one attempt", f"move {hello.migration_id} has its control stream already")
            )
        offered = (hello.vm, hello.epoch, hello.page_count)
        expected = (slot.vm, slot.epoch, slot.memory.n_pages)
        if offered != expected:
            raise FerryError(
                refused(
                    "prepared memory",
                    "the source offers {} under epoch {} with {} pages".format(*offered)
                    + ", this host expects {} under epoch {} with {}".format(*expected),
                )
            )
        option, lanes = self._offered(hello)
        return Receiver(hello.migration_id, slot, self._host, verify=hello.verify, option=option, lanes=lanes)

    def _offered(self, hello: migration_pb2.MigrationHello) -> tuple[TransportOption, list[ArrivingLane]]:
        """What the source will send pages on. Raises FerryError."""
        numbers = [lane.number for lane in hello.lanes]
        if hello.option not in list(TransportOption):
            raise FerryError(
                refused("performance option", f"option {hello.option!r} of the source is unknown here")
            )
        single = hello.option in (TransportOption.TCPIP, TransportOption.COMPRESSION)
        if not 1 <= len(numbers) <= (1 if single else LANES_MAX) or len(set(numbers)) != len(numbers):
            raise FerryError(refused("lanes", f"the source offers lanes {numbers} for option {hello.option}"))
        return TransportOption(hello.option), [self._arriving(lane) for lane in hello.lanes]

    def _arriving(self, lane: migration_pb2.Lane) -> ArrivingLane:
        mtu = lane.mtu or MTU_STANDARD
        if not MTU_MIN <= mtu <= MTU_MAX:
            raise FerryError(failed(f"the source offers lane {lane.number} with an MTU of {mtu} bytes"))
        return ArrivingLane(lane.number, lane.target_nic, self._wire_of(lane.target_nic, mtu))

    async def _converse(self, receiver: Receiver, context: _ControlContext) -> None:
        if receiver.option is not TransportOption.DIRECT:
            await self._accept(context, receiver, ())
            await self._see_through(receiver, context)
            return
        async with DirectLanes(receiver, self._host, self._listen_host) as lanes:
            await self._accept(context, receiver, lanes.offers)
            await self._see_through(receiver, context)

    async def _accept(
        self,
        context: _ControlContext,
        receiver: Receiver,
        direct_lanes: Sequence[migration_pb2.DirectLane],
    ) -> None:
        accept = migration_pb2.MigrationAccept(
            protocol_version=protocol.PROTOCOL_VERSION,
            boot_id=self._boot_id,
            frame_bytes=min(lane.wire.frame_bytes for lane in receiver.lanes.values()),
            direct_lanes=direct_lanes,
        )
        await context.write(migration_pb2.ControlFromTarget(accept=accept))

    async def _see_through(self, receiver: Receiver, context: _ControlContext) -> None:
        while not (message := await _next_message(receiver, context)).HasField("final"):
            if message.clock_probe.pause_is_near:
                await self._host.rouse()
            await context.write(await _answer(receiver, message))
        await receiver.take_final(message.final)
        if receiver.verify:
            await _verify(receiver, context)
        if latency_s := max(lane.wire.latency_s for lane in receiver.lanes.values()):
            await asyncio.sleep(latency_s)  # not for nothing: a turn of the event loop is black-out, too
        await self._host.reach("target.before_ready")
        receiver.become_ready(message.final.device_state)
        # The source keeps its streams open until it knows the outcome, and has nothing more to say.
        await context.read()

    # --- bulk -----------------------------------------------------------------------------------------

    async def Bulk(self, _requests: Any, context: _BulkContext) -> None:
        """The opening frame joins the stream to its attempt; frames are checked, written and acknowledged."""
        opening = await _first_message(context)
        if not isinstance(opening, bytes):
            raise FerryError(failed("a bulk stream ended without a frame"))
        receiver, lane = self._join(opening)
        reason = _cut_off("bulk")

        def note(refusal: Refusal) -> None:
            nonlocal reason
            reason = refusal

        try:
            await self._attend(receiver, self._receive(receiver, lane, opening, context), note, lane)
        finally:
            receiver.lane_ended(lane, reason)

    def _join(self, opening: bytes) -> tuple[Receiver, ArrivingLane]:
        try:
            frame = decode(opening)
        except FrameError as error:
            raise FerryError(failed(f"bad opening frame: {error}")) from error
        receiver = self._receivers.get(bytes(frame.migration_id).decode(errors="replace"))
        # One answer for all cases: who does not hold the token learns nothing about moves under way.
        if receiver is None or not _equal(receiver.slot.token.encode(), bytes(frame.token)):
            raise FerryError(refused("migration token", "no move with that id and token is open here"))
        lane = receiver.lanes.get(frame.lane)
        if lane is None or receiver.option is TransportOption.DIRECT:
            raise FerryError(refused("lanes", f"the move has no bulk stream {frame.lane}"))
        if lane.joined:
            raise FerryError(refused("one attempt", f"the move has its bulk stream {lane.number} already"))
        lane.joined = True
        return receiver, lane

    async def _receive(
        self, receiver: Receiver, lane: ArrivingLane, opening: bytes, context: _BulkContext
    ) -> None:
        receiver.count(lane, await receiver.take(lane, opening))
        await context.write(migration_pb2.BulkAck(frames=lane.frames))
        await self._host.reach("target.receiving")
        acked = lane.frames
        if receiver.option is TransportOption.COMPRESSION:
            ack_every_frames, frames = (
                protocol.ACK_EVERY_COMPRESSED_FRAMES,
                taken_ahead(receiver, lane, context.read),
            )
        else:
            ack_every_frames = max(1, protocol.ACK_EVERY_FRAMES // len(receiver.lanes))
            frames = _taken(receiver, lane, context)
        async with _acknowledging(lane, context) as acknowledge, aclosing(frames):
            async for frame in frames:
                receiver.count(lane, frame)
                if not frame.full or lane.frames - acked >= ack_every_frames:
                    acked = lane.frames
                    await acknowledge(acked)

    # --- both -----------------------------------------------------------------------------------------

    async def _attend(
        self,
        receiver: Receiver,
        work: Coroutine[Any, Any, None],
        on_failure: Callable[[Refusal], None],
        lane: ArrivingLane | None = None,
    ) -> None:
        """Carry on with one stream until it, its lane or the attempt ends, or the source falls silent.

        Raises FerryError with the reason if the attempt is over.
        """
        task = asyncio.create_task(work)
        ends: set[asyncio.Future[None]] = {receiver.ended} | ({lane.close_wanted} if lane else set())
        try:
            while not task.done() and not any(end.done() for end in ends):
                await asyncio.wait(
                    {task, *ends},
                    timeout=_silence_left_s(receiver),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if _silence_left_s(receiver) == 0:
                    receiver.fail(failed(f"the source sent nothing for {protocol.SILENCE_S_MAX:.0f} s"))
            if task.done():
                await task
        except FrameError as error:
            refusal = failed(f"the source sent a bad frame: {error}")
            receiver.fail(refusal)
            raise FerryError(refusal) from error
        except FerryError as error:
            on_failure(error.refusal)
            raise
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if receiver.refusal is not None:
            raise FerryError(receiver.refusal)


async def _taken(
    receiver: Receiver, lane: ArrivingLane, context: _BulkContext
) -> AsyncGenerator[CheckedFrame, None]:
    """The lane's frames, one after the other; see ``taken_ahead``."""
    while isinstance(wire := await context.read(), bytes):
        frame = await receiver.take(lane, wire)
        await lane.wire.pass_bytes(len(wire))
        yield frame


async def _first_message(context: grpc.aio.ServicerContext[Any, Any]) -> object:
    try:
        async with asyncio.timeout(protocol.OPENING_S_MAX):
            message: object = await context.read()
            return message
    except TimeoutError:
        raise FerryError(failed(f"nothing came for {protocol.OPENING_S_MAX:.0f} s")) from None


async def _next_message(receiver: Receiver, context: _ControlContext) -> migration_pb2.ControlFromSource:
    message = await context.read()
    if not isinstance(message, migration_pb2.ControlFromSource):
        raise FerryError(_cut_off("control"))
    receiver.heard_at_s = time.monotonic()
    return message


async def _answer(
    receiver: Receiver, message: migration_pb2.ControlFromSource
) -> migration_pb2.ControlFromTarget:
    """To what a source may say before Final. Raises FerryError for anything else."""
    if message.HasField("clock_probe"):
        reading = migration_pb2.ClockReading(
            source_sent_at_s=message.clock_probe.source_sent_at_s, target_at_s=time.monotonic()
        )
        return migration_pb2.ControlFromTarget(clock_reading=reading)
    if message.HasField("close_lane"):
        number = message.close_lane.number
        closed = migration_pb2.LaneClosed(number=number, frames=await receiver.close_lane(number))
        return migration_pb2.ControlFromTarget(lane_closed=closed)
    raise FerryError(failed("the source sent something else where Final was due"))


@asynccontextmanager
async def _acknowledging(
    lane: ArrivingLane, context: _BulkContext
) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Yields what acknowledges so many frames, as late as they arrive by the NIC's latency."""

    async def write(frames: int) -> None:
        await context.write(migration_pb2.BulkAck(frames=frames))

    if not lane.wire.latency_s:
        yield write
        return
    line = DelayLine[int](lane.wire.latency_s)

    async def deliver() -> None:
        while True:
            await write(await line.get())

    delivering = asyncio.create_task(deliver())
    try:
        yield line.put
    finally:
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)


async def _verify(receiver: Receiver, context: _ControlContext) -> None:
    digest = await asyncio.to_thread(memory_digest, receiver.slot.memory.pages)
    message = await _next_message(receiver, context)
    if not hmac.compare_digest(message.memory_digest.digest, digest):
        raise FerryError(failed("memory at the target differs from the source's"))


def _silence_left_s(receiver: Receiver) -> float | None:
    """None where the source is not expected to speak."""
    if receiver.phase is not Phase.RECEIVING:
        return None
    return max(0.0, receiver.heard_at_s + protocol.SILENCE_S_MAX - time.monotonic())


def _equal(token: bytes, other: bytes) -> bool:
    return hmac.compare_digest(token, other)


def _cut_off(stream: str) -> Refusal:
    return failed(f"the source's {stream} stream ended before everything had arrived")
