"""A hostile or broken source: the target drops the attempt, and nothing bad reaches memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc.aio
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.migration.ends import DEADLINE_S, EPOCH, MOVE, TOKEN, VM, Target

from ferry.v1 import migration_pb2, migration_pb2_grpc
from ferry_agent.migration import protocol
from ferry_agent.migration.digest import memory_digest
from ferry_agent.migration.frame_codec import PageFrame, encode
from ferry_agent.migration.frames import FrameBuilder, frame_checksum, opening_frame
from ferry_agent.migration.target import MigrationServicer
from ferry_agent.migration.transports.grpc_lane import BULK_METHOD
from ferry_types.limits import DEVICE_STATE_BYTES_MAX, FRAME_PAGES_MAX, FRAME_ZERO_PAGES_MAX, PAGE_SIZE
from ferry_wire.channels import open_channel
from ferry_wire.servers import create_server
from ferry_wire.status import refusal_of

PAGES = 300
CONTENTS: NDArray[np.uint8] = np.random.default_rng(4).integers(1, 256, (PAGES, PAGE_SIZE), np.uint8)


class RawSource:
    """Speaks the protocol as badly as a test wants."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.control = migration_pb2_grpc.MigrationStub(channel).Control()
        bulk: grpc.aio.StreamStreamMultiCallable[bytes, migration_pb2.BulkAck] = channel.stream_stream(
            BULK_METHOD, response_deserializer=migration_pb2.BulkAck.FromString
        )
        self.bulk = bulk()
        self.builder = FrameBuilder(CONTENTS)
        self.checksum_sum = 0

    async def hello(self, **fields: Any) -> None:
        await self.say_hello(**fields)
        answer = await self.control.read()
        assert isinstance(answer, migration_pb2.ControlFromTarget)
        assert answer.HasField("accept")

    async def say_hello(self, **fields: Any) -> None:
        values: dict[str, Any] = {
            "protocol_version": protocol.PROTOCOL_VERSION,
            "migration_id": MOVE,
            "token": TOKEN,
            "vm": VM,
            "epoch": EPOCH,
            "page_count": PAGES,
            "option": "tcpip",
            "lanes": [migration_pb2.Lane(number=0)],
        }
        hello = migration_pb2.MigrationHello(**(values | fields))
        await self.control.write(migration_pb2.ControlFromSource(hello=hello))

    async def open_bulk(self) -> None:
        opening = opening_frame(MOVE, TOKEN)
        self.checksum_sum += opening.checksum
        await self.bulk.write(opening.wire)
        ack = await self.bulk.read()
        assert isinstance(ack, migration_pb2.BulkAck)
        assert ack.frames == 1

    async def good_frame(self, sequence: int, pages: list[int]) -> None:
        frame = self.builder.build(sequence, np.array(pages, np.int64))
        self.checksum_sum += frame.checksum
        await self.bulk.write(frame.wire)

    async def final(self, *, frames: int, pages: int, state: bytes = b"state", error: int = 0) -> None:
        checksum = (self.checksum_sum + error) % 2**64
        final = migration_pb2.Final(frames=frames, pages=pages, checksum=checksum, device_state=state)
        await self.control.write(migration_pb2.ControlFromSource(final=final))


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Target, RawSource]]:
    target = Target(PAGES)
    server = create_server("127.0.0.1:0", [migration_pb2.DESCRIPTOR])
    MigrationServicer(target).add_to(server.grpc)
    await server.start()
    channel = open_channel(server.address)
    try:
        yield target, RawSource(channel)
    finally:
        await channel.close()
        await server.stop(0)
        target.memory.close()


async def reason_of(call: "grpc.aio.StreamStreamCall[Any, Any]") -> str:
    """With what words the target ended a stream."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while await call.read() is not grpc.aio.EOF:
                pass
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).message
    pytest.fail("the target ended the stream as if all were well")


async def test_a_raw_source_that_keeps_to_the_protocol_is_served() -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.open_bulk()
        await source.good_frame(1, [5, 6, 200])
        await source.final(frames=2, pages=3)
        assert await target.device_state() == b"state"
        assert (target.memory.pages[[5, 6, 200]] == CONTENTS[[5, 6, 200]]).all()
        assert np.flatnonzero(target.memory.touched).tolist() == [5, 6, 200]


def frame(sequence: int = 1, **fields: Any) -> bytes:
    """One page with a true checksum, but for what a test changes."""
    values = {
        "page_indices": np.array([7], "<u4").tobytes(),
        "payload": CONTENTS[7].tobytes(),
        "zero_indices": b"",
    } | fields
    checksum = frame_checksum(values["page_indices"], values["zero_indices"], values["payload"])
    return encode(PageFrame(**({"sequence": sequence, "checksum": checksum} | values)))


def indices(*pages: int) -> bytes:
    return np.array(pages, "<u4").tobytes()


BAD_FRAMES: dict[str, tuple[bytes, str]] = {
    "page out of range": (frame(page_indices=indices(PAGES)), "page 300 is out of range"),
    "page far out of range": (frame(page_indices=indices(2**32 - 1)), "page 4294967295 is out of range"),
    "zero page out of range": (frame(zero_indices=indices(PAGES)), "page 300 is out of range"),
    "payload too short": (frame(payload=CONTENTS[7, 1:].tobytes()), "4095 bytes of payload came for 1 pages"),
    "payload too long": (frame(payload=bytes(PAGE_SIZE + 1)), "4097 bytes of payload came for 1 pages"),
    "payload without pages": (frame(page_indices=b""), "4096 bytes of payload came for 0 pages"),
    "half an index": (frame(page_indices=b"\x01\x00\x00\x00\x02"), "are not a multiple of 4"),
    "too many pages": (
        frame(page_indices=indices(*range(FRAME_PAGES_MAX + 1)), payload=bytes(PAGE_SIZE)),
        "513 pages in one frame are more than 512",
    ),
    "too many zero pages": (
        frame(zero_indices=bytes(4 * (FRAME_ZERO_PAGES_MAX + 1))),
        "65537 zero pages in one frame are more than 65536",
    ),
    "wrong checksum": (frame(checksum=1), "the checksum of frame 1 does not match"),
    "gap in the sequence": (frame(sequence=2), "frame 2 came where frame 1 was due"),
    "repeated frame": (frame(sequence=0), "frame 0 came where frame 1 was due"),
    "garbage": (b"\xff" * 100, "is none of a page frame's"),
    "cut off": (frame()[:-200], "the frame ends"),
}


@pytest.mark.parametrize(("wire", "reason"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
async def test_a_bad_frame_ends_the_attempt_and_touches_no_memory(wire: bytes, reason: str) -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.open_bulk()
        await source.bulk.write(wire)
        refusal = await target.refusal()
        assert "the source sent a bad frame" in refusal.message
        assert reason in refusal.message
        assert not target.memory.touched.any()
        assert not target.memory.pages.any()
        assert reason in await reason_of(source.bulk)
        assert reason in await reason_of(source.control)


async def test_a_message_larger_than_any_frame_is_not_even_received() -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.open_bulk()
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await source.bulk.write(bytes(5 * 2**20))
        await target.refusal()
        assert not target.memory.touched.any()


WRONG_ENDS: dict[str, tuple[dict[str, Any], str]] = {
    "fewer frames": ({"frames": 1, "pages": 1}, "2 frames with 1 pages came"),
    "fewer pages": ({"frames": 2, "pages": 0}, "with 0, or their checksums differ"),
    "other checksum": ({"frames": 2, "pages": 1, "error": 1}, "or their checksums differ"),
    "too large a device state": (
        {"frames": 2, "pages": 1, "state": bytes(DEVICE_STATE_BYTES_MAX + 1)},
        "the device state has 65537 bytes",
    ),
}


@pytest.mark.parametrize(("final", "reason"), WRONG_ENDS.values(), ids=WRONG_ENDS.keys())
async def test_an_end_that_does_not_add_up_is_not_ready(final: dict[str, Any], reason: str) -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.open_bulk()
        await source.good_frame(1, [7])
        assert isinstance(await source.bulk.read(), migration_pb2.BulkAck)
        await source.final(**final)
        assert reason in (await target.refusal()).message


async def test_final_waits_for_the_frames_that_are_still_on_their_way() -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.open_bulk()
        late = source.builder.build(1, np.array([7]))
        source.checksum_sum += late.checksum
        await source.final(frames=2, pages=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(target.outcome), 0.05)
        await source.bulk.write(late.wire)
        assert await target.device_state() == b"state"


async def test_a_frame_after_the_last_one_never_reaches_memory() -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.open_bulk()
        await source.final(frames=1, pages=0)
        await target.device_state()
        await source.bulk.write(frame())
        assert await reason_of(source.bulk)
        assert not target.memory.touched.any()
        assert isinstance(target.outcome.result(), bytes)


async def test_verify_compares_the_digest() -> None:
    async with serving() as (target, source):
        await source.hello(verify=True)
        await source.open_bulk()
        await source.good_frame(1, [7])
        await source.final(frames=2, pages=1)
        pages = np.zeros_like(CONTENTS)
        pages[7] = CONTENTS[7]
        digest = migration_pb2.MemoryDigest(digest=memory_digest(pages))
        await source.control.write(migration_pb2.ControlFromSource(memory_digest=digest))
        assert await target.device_state() == b"state"


@pytest.mark.parametrize("digest", [b"", bytes(16)])
async def test_another_digest_is_not_ready(digest: bytes) -> None:
    async with serving() as (target, source):
        await source.hello(verify=True)
        await source.open_bulk()
        await source.final(frames=1, pages=0)
        body = migration_pb2.MemoryDigest(digest=digest)
        await source.control.write(migration_pb2.ControlFromSource(memory_digest=body))
        assert (await target.refusal()).message == "memory at the target differs from the source's"


CUTS: dict[str, Callable[[RawSource], Any]] = {
    "control": lambda source: source.control.cancel(),
    "bulk": lambda source: source.bulk.cancel(),
}


@pytest.mark.parametrize("stream", CUTS)
async def test_a_stream_cut_before_ready_ends_the_attempt(stream: str) -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.open_bulk()
        CUTS[stream](source)
        expected = f"the source's {stream} stream ended before everything had arrived"
        assert (await target.refusal()).message == expected


@pytest.mark.parametrize("stream", CUTS)
async def test_a_stream_cut_while_the_target_holds_before_ready_ends_the_attempt(stream: str) -> None:
    async with serving() as (target, source):
        held = asyncio.Event()
        release = asyncio.Event()

        async def hold() -> None:
            held.set()
            await release.wait()

        target.hooks["target.before_ready"] = hold
        await source.hello()
        await source.open_bulk()
        await source.final(frames=1, pages=0)
        await asyncio.wait_for(held.wait(), DEADLINE_S)
        CUTS[stream](source)
        await target.refusal()
        release.set()


async def test_a_silent_source_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SILENCE_S_MAX", 0.05)
    async with serving() as (target, source):
        await source.hello()
        assert (await target.refusal()).message == "the source sent nothing for 0 s"


async def test_streams_that_never_say_what_they_are_for_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "OPENING_S_MAX", 0.05)
    async with serving() as (target, source):
        assert await reason_of(source.control) == "nothing came for 0 s"
        assert await reason_of(source.bulk) == "nothing came for 0 s"
        assert not target.outcome.done()


@pytest.mark.parametrize("token", ["", "guessed"])
async def test_a_bulk_stream_needs_the_token(token: str) -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.bulk.write(opening_frame(MOVE, token).wire)
        assert await reason_of(source.bulk) == "no move with that id and token is open here"
        assert not target.outcome.done()


async def test_a_source_of_another_protocol_version_is_refused() -> None:
    async with serving() as (target, source):
        await source.say_hello(protocol_version=1)
        assert "the source speaks version 1 of the migration protocol" in await reason_of(source.control)
        assert not target.outcome.done()


async def test_a_control_stream_that_begins_with_something_else_is_refused() -> None:
    async with serving() as (target, source):
        await source.final(frames=0, pages=0)
        assert await reason_of(source.control) == "a control stream began without Hello"
        assert not target.outcome.done()


async def test_a_bulk_stream_before_hello_is_refused() -> None:
    async with serving() as (target, source):
        await source.bulk.write(opening_frame(MOVE, TOKEN).wire)
        assert await reason_of(source.bulk) == "no move with that id and token is open here"
        assert not target.outcome.done()


async def test_a_second_stream_of_either_kind_is_refused_and_the_first_goes_on() -> None:
    target = Target(PAGES)
    server = create_server("127.0.0.1:0", [migration_pb2.DESCRIPTOR])
    MigrationServicer(target).add_to(server.grpc)
    await server.start()
    async with open_channel(server.address) as channel:
        first, second = RawSource(channel), RawSource(channel)
        await first.hello()
        await first.open_bulk()
        await second.say_hello()
        assert "has its control stream already" in await reason_of(second.control)
        await second.bulk.write(opening_frame(MOVE, TOKEN).wire)
        assert "has its bulk stream 0 already" in await reason_of(second.bulk)
        await first.final(frames=1, pages=0)
        await target.device_state()
    await server.stop(0)
    target.memory.close()


async def test_scattered_pages_of_fresh_memory_arrive_in_their_places() -> None:
    async with serving() as (target, source):
        await source.hello()
        await source.open_bulk()
        await source.good_frame(1, [299, 3, 150])
        await source.good_frame(2, [4, 298, 0])
        await source.final(frames=3, pages=6)
        await target.device_state()
        moved = [0, 3, 4, 150, 298, 299]
        assert np.flatnonzero(target.memory.touched).tolist() == moved
        assert (target.memory.pages[moved] == CONTENTS[moved]).all()
