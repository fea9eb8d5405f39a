"""The source's end of an attempt's control stream: greets, compares clocks, says when everything was sent.

Pages do not travel here: they have a transport of their own (``ferry_agent.migration.transports``).
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Sequence
from typing import TypeAlias

import grpc.aio

from ferry.v1 import migration_pb2, migration_pb2_grpc
from ferry_agent.migration import protocol
from ferry_agent.migration.breakage import Breakage
from ferry_agent.migration.clocks import ClockExchange, estimate_offset_s, share_a_clock
from ferry_agent.migration.tally import Tally
from ferry_agent.migration.transports.lanes import LanePlan
from ferry_types.errors import FerryError, failed
from ferry_types.messages import BeginOutgoing
from ferry_types.migrations import TransportOption
from ferry_wire.channels import IdleChannels
from ferry_wire.status import refusal_of

# Quoted, because older releases of gRPC take no type arguments at run time.
_ControlCall: TypeAlias = (
    "grpc.aio.StreamStreamCall[migration_pb2.ControlFromSource, migration_pb2.ControlFromTarget]"
)


class SourceLink:
    """The control stream of one attempt. Methods that send raise FerryError with the breakage's reason."""

    def __init__(self, order: BeginOutgoing, breakage: Breakage, channels: IdleChannels) -> None:
        self.breakage = breakage
        self.clock_offset_s = 0.0
        """Target's monotonic clock minus this machine's."""
        self._order = order
        self._channels = channels
        self._channel: grpc.aio.Channel | None = None
        self._reader: asyncio.Task[None] | None = None
        self._closings: dict[int, asyncio.Future[int]] = {}
        self._roused = asyncio.Event()
        self._control: _ControlCall

    async def open(
        self, page_count: int, boot_id: str, option: TransportOption, lanes: Sequence[LanePlan]
    ) -> migration_pb2.MigrationAccept:
        """Say hello, offer lanes, and compare clocks. Raises FerryError; ``close`` is due in any case."""
        async with self.breakage.opening():
            self._channel = self._channels.take(self._order.target_address)
            self._control = migration_pb2_grpc.MigrationStub(self._channel).Control()
            hello = migration_pb2.MigrationHello(
                protocol_version=protocol.PROTOCOL_VERSION,
                migration_id=self._order.migration_id,
                token=self._order.token,
                vm=self._order.vm,
                epoch=self._order.epoch,
                page_count=page_count,
                verify=self._order.options.verify,
                boot_id=boot_id,
                option=option,
                lanes=[_offer(lane) for lane in lanes],
            )
            await self._send(migration_pb2.ControlFromSource(hello=hello))
            accept = (await self._answer("accept")).accept
            self._check_version(accept)
            if not share_a_clock(boot_id, accept.boot_id):
                self.clock_offset_s = estimate_offset_s(
                    [await self._probe_clock() for _ in range(protocol.CLOCK_PROBES)]
                )
            self._reader = asyncio.create_task(self._read())
            return accept

    def _check_version(self, accept: migration_pb2.MigrationAccept) -> None:
        if accept.protocol_version != protocol.PROTOCOL_VERSION:
            raise FerryError(
                failed(
                    f"{self._order.target} speaks version {accept.protocol_version} of the migration "
                    f"protocol, this host version {protocol.PROTOCOL_VERSION}",
                    "run the same release of Hyperferry on both hosts",
                )
            )

    async def _probe_clock(self) -> ClockExchange:
        probe = migration_pb2.ClockProbe(source_sent_at_s=time.monotonic())
        await self._send(migration_pb2.ControlFromSource(clock_probe=probe))
        reading = (await self._answer("clock_reading")).clock_reading
        return ClockExchange(probe.source_sent_at_s, reading.target_at_s, time.monotonic())

    async def _answer(self, body: str) -> migration_pb2.ControlFromTarget:
        message = await self._control.read()
        if not isinstance(message, migration_pb2.ControlFromTarget) or message.WhichOneof("body") != body:
            raise FerryError(failed(f"{self._order.target} did not answer with {body}"))
        return message

    async def close_lane(self, number: int) -> int:
        """Have the target end a lane; returns how many of its frames were written, the opening one too.

        Nothing of that lane is written at the target any more, so that what it did not write may be sent on
        another one.
        """
        closing: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._closings[number] = closing
        close = migration_pb2.CloseLane(number=number)
        await self._send(migration_pb2.ControlFromSource(close_lane=close))
        async with self.breakage.answering():
            await asyncio.wait((closing, self.breakage.reason), return_when=asyncio.FIRST_COMPLETED)
        self.breakage.raise_if_broken()
        return closing.result()

    async def rouse(self) -> None:
        """Have the target, and what lies between it and the store, awake for the hand-off. Raises FerryError.

        Processors that have slept, and have forgotten the code, take four times as long; what this takes, the
        guest runs. A target that is slow to answer is not waited for.
        """
        self._roused.clear()
        probe = migration_pb2.ClockProbe(source_sent_at_s=time.monotonic(), pause_is_near=True)
        await self._send(migration_pb2.ControlFromSource(clock_probe=probe))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(protocol.ROUSE_S_MAX):
                await self._roused.wait()

    async def send_final(self, tally: Tally, device_state: bytes) -> None:
        """The end of the final copy: what the target must have by now."""
        final = migration_pb2.Final(
            frames=tally.frames,
            pages=tally.pages,
            checksum=tally.checksum_sum,
            device_state=device_state,
        )
        await self._send(migration_pb2.ControlFromSource(final=final))

    async def send_digest(self, digest: bytes) -> None:
        """With verify, after Final."""
        body = migration_pb2.MemoryDigest(digest=digest)
        await self._send(migration_pb2.ControlFromSource(memory_digest=body))

    async def close(self) -> None:
        """End the stream. If the final copy was not sent, the target drops the attempt."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        if self._reader is None or self.breakage.reason.done():
            await channel.close()  # cancels the call that it carries
        else:
            self._control.cancel()
            await self._channels.put_back(channel, self._order.target_address)

    async def _send(self, message: migration_pb2.ControlFromSource) -> None:
        async with self.breakage.answering():
            await self._written(self._control.write(message))

    async def _written(self, write: Awaitable[None]) -> None:
        try:
            await write
        except grpc.aio.AioRpcError as error:
            self.breakage.break_off(refusal_of(error, self._order.target_address))
        except asyncio.InvalidStateError:
            # The call ended before the write; the reader of the same stream is about to learn why.
            await asyncio.wait({self.breakage.reason})
        self.breakage.raise_if_broken()

    async def _read(self) -> None:
        """Break the attempt off when the stream ends; it ends with the attempt."""
        try:
            while (message := await self._control.read()) is not grpc.aio.EOF:
                self._take(message)
        except FerryError as error:
            self.breakage.break_off(error.refusal)
        except grpc.aio.AioRpcError as error:
            self.breakage.break_off(refusal_of(error, self._order.target_address))
        else:
            self.breakage.break_off(failed(f"{self._order.target} ended the migration's streams"))

    def _take(self, message: object) -> None:
        if isinstance(message, migration_pb2.ControlFromTarget):
            if message.HasField("clock_reading"):
                self._roused.set()
                return
            number = message.lane_closed.number if message.HasField("lane_closed") else None
            closing = None if number is None else self._closings.pop(number, None)
            if closing is not None:
                closing.set_result(message.lane_closed.frames)
                return
        raise FerryError(failed(f"{self._order.target} sent what is not of the migration protocol"))


def _offer(lane: LanePlan) -> migration_pb2.Lane:
    return migration_pb2.Lane(number=lane.number, target_nic=lane.target_nic, mtu=lane.mtu)
