"""Option direct: what is on the raw sockets is hostile until proved otherwise, and torn frames are judged."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from queue import SimpleQueue

import numpy as np
import pytest
from tests.unit.migration.ends import (
    DEADLINE_S,
    EPOCH,
    MOVE,
    TOKEN,
    VM,
    Ends,
    Target,
    random_memory,
    two_ends,
)

from ferry.v1 import migration_pb2, migration_pb2_grpc
from ferry_agent.migration import protocol
from ferry_agent.migration.direct_wire import (
    ANSWER,
    HEADER,
    MAGIC,
    OPENING,
    RUNS_MAX,
    SCATTERED,
    Verdict,
    checksum_of,
)
from ferry_agent.migration.ports import MoveFailed, UnshapedWire
from ferry_agent.migration.target import MigrationServicer
from ferry_agent.migration.transports import direct
from ferry_agent.migration.transports.direct_lane import Frames
from ferry_types.limits import FRAME_PAGES_MAX, FRAME_ZERO_PAGES_MAX, PAGE_SIZE
from ferry_types.migrations import TransportOption
from ferry_wire.channels import open_channel
from ferry_wire.servers import create_server

PAGES = 300
CONTENTS = np.random.default_rng(4).integers(1, 256, (PAGES, PAGE_SIZE), np.uint8)


class Lane:
    """A raw connection that says what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, int]:
        async with asyncio.timeout(DEADLINE_S):
            sequence, verdict = ANSWER.unpack(await self.reader.readexactly(ANSWER.size))
            return sequence, verdict

    async def is_hung_up(self) -> bool:
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


class RawSource:
    """A control stream whose Hello was accepted, and what it was told of the lanes."""

    def __init__(self, control: object, offers: list[migration_pb2.DirectLane]) -> None:
        self.control = control
        self.offers = offers

    async def connect(self) -> Lane:
        return Lane(*await asyncio.open_connection("127.0.0.1", self.offers[0].port))

    async def join(self, number: int = 0) -> Lane:
        lane = await self.connect()
        lane.say(OPENING.pack(MAGIC, number, self.offers[number].secret))
        assert await lane.answer() == (0, Verdict.JOINED)
        return lane


@asynccontextmanager
async def accepted(lanes: int = 1) -> AsyncIterator[tuple[Target, RawSource]]:
    target = Target(PAGES)
    server = create_server("127.0.0.1:0", [migration_pb2.DESCRIPTOR])
    MigrationServicer(target).add_to(server.grpc)
    await server.start()
    channel = open_channel(server.address)
    try:
        control = migration_pb2_grpc.MigrationStub(channel).Control()
        hello = migration_pb2.MigrationHello(
            protocol_version=protocol.PROTOCOL_VERSION,
            migration_id=MOVE,
            token=TOKEN,
            vm=VM,
            epoch=EPOCH,
            page_count=PAGES,
            option="direct",
            lanes=[migration_pb2.Lane(number=number) for number in range(lanes)],
        )
        await control.write(migration_pb2.ControlFromSource(hello=hello))
        answer = await control.read()
        assert isinstance(answer, migration_pb2.ControlFromTarget)
        yield target, RawSource(control, list(answer.accept.direct_lanes))
    finally:
        await channel.close()
        await server.stop(0)
        target.memory.close()


def packed(*pages: int) -> bytes:
    return np.array(pages, "<u4").tobytes()


def frame(
    pages: bytes = packed(7),
    zeros: bytes = b"",
    sequence: int = 0,
    counts: tuple[int, int] | None = None,
    error: int = 0,
    payload: bytes | None = None,
    ask: bool = True,
) -> bytes:
    """A frame of the raw socket, true but for what a test changes."""
    contents = CONTENTS[np.frombuffer(pages, "<u4") % PAGES].tobytes() if payload is None else payload
    page_count, zero_count = counts or (len(pages) // 4, len(zeros) // 4)
    checksum = checksum_of(SCATTERED, page_count, pages + zeros, [memoryview(contents)]) ^ error
    header = HEADER.pack(sequence, page_count, zero_count, SCATTERED, ask, checksum)
    return header + pages + zeros + contents


def run_frame(first: int, page_count: int, zeros: bytes = b"", sequence: int = 0) -> bytes:
    """A frame whose pages are a run."""
    contents = CONTENTS[np.arange(first, first + page_count) % PAGES].tobytes()
    checksum = checksum_of(first, page_count, zeros, [memoryview(contents)])
    return HEADER.pack(sequence, page_count, len(zeros) // 4, first, True, checksum) + zeros + contents


def touched(target: Target) -> list[int]:
    return [int(page) for page in np.flatnonzero(target.memory.touched)]


@pytest.mark.parametrize("pages", [[5, 6, 7, 200], list(range(1, PAGES, 2)) + list(range(0, PAGES, 2))])
async def test_a_raw_source_that_keeps_to_the_protocol_is_served(pages: list[int]) -> None:
    async with accepted() as (target, source):
        lane = await source.join()
        lane.say(frame(packed(*pages)))
        assert await lane.answer() == (0, Verdict.GOOD)
        lane.say(frame(b"", packed(6), sequence=1))
        assert await lane.answer() == (1, Verdict.GOOD)
        assert touched(target) == sorted(pages)
        left = [page for page in pages if page != 6]
        assert (target.memory.pages[left] == CONTENTS[left]).all()
        assert not target.memory.pages[6].any()
    assert len(pages) < RUNS_MAX or len(pages) == PAGES


async def test_a_run_is_named_by_its_first_page() -> None:
    async with accepted() as (target, source):
        lane = await source.join()
        lane.say(run_frame(PAGES - 3, 3))
        assert await lane.answer() == (0, Verdict.GOOD)
        lane.say(run_frame(5, 2, packed(PAGES - 3, 9), sequence=1))
        assert await lane.answer() == (1, Verdict.GOOD)
        assert touched(target) == [5, 6, PAGES - 3, PAGES - 2, PAGES - 1]
        left = [5, 6, PAGES - 2, PAGES - 1]
        assert (target.memory.pages[left] == CONTENTS[left]).all()
        assert not target.memory.pages[PAGES - 3].any()


async def test_the_first_page_of_a_run_is_hashed_too() -> None:
    async with accepted() as (_target, source):
        lane = await source.join()
        true = bytearray(run_frame(5, 2))
        number, page_count, zero_count, first, ask, checksum = HEADER.unpack_from(true)
        HEADER.pack_into(true, 0, number, page_count, zero_count, first + 1, ask, checksum)
        lane.say(bytes(true))
        assert await lane.answer() == (0, Verdict.TORN)


BAD_FRAMES = {
    "end of a run out of range": (run_frame(PAGES - 1, 2), "page 300 is out of range"),
    "all of a run out of range": (run_frame(2**32 - 2, 512), "page 4294967805 is out of range"),
    "page out of range": (frame(packed(PAGES)), "page 300 is out of range"),
    "zero page out of range": (frame(zeros=packed(2**32 - 1)), "page 4294967295 is out of range"),
    "too many pages": (frame(counts=(FRAME_PAGES_MAX + 1, 0)), "in one frame are too many"),
    "too many zero pages": (frame(counts=(0, FRAME_ZERO_PAGES_MAX + 1)), "in one frame are too many"),
    "gap in the sequence": (frame(sequence=1), "frame 1 came where frame 0 was due"),
    "garbage": (b"\xff" * 100, "came where frame 0 was due"),
}


@pytest.mark.parametrize(("wire", "reason"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys())
async def test_a_bad_frame_ends_the_attempt_and_touches_no_memory(wire: bytes, reason: str) -> None:
    async with accepted() as (target, source):
        lane = await source.join()
        lane.say(wire)
        refusal = await target.refusal()
        assert "the source sent a bad frame" in refusal.message
        assert reason in refusal.message
        assert await lane.is_hung_up()
        assert touched(target) == []
        assert not target.memory.pages.any()


@pytest.mark.parametrize("cut", [10, HEADER.size + 2, HEADER.size + 4 + 100])
async def test_a_frame_that_is_cut_off_ends_the_attempt(cut: int) -> None:
    async with accepted() as (target, source):
        lane = await source.join()
        lane.say(frame()[:cut])
        lane.writer.write_eof()
        assert "cut off" in (await target.refusal()).message
        assert set(touched(target)) <= {7}
        target.memory.pages[7] = 0
        assert not target.memory.pages.any()


async def test_a_wrong_checksum_is_torn_and_reaches_only_the_pages_that_it_names() -> None:
    async with accepted() as (target, source):
        lane = await source.join()
        lane.say(frame(packed(7, 8), packed(3), error=1))
        assert await lane.answer() == (0, Verdict.TORN)
        assert touched(target) == [7, 8]  # so that a zero named later is written
        lane.say(frame(packed(9), sequence=1))
        assert await lane.answer() == (1, Verdict.GOOD)
        final = migration_pb2.Final(frames=2, pages=5, device_state=b"state")
        await source.control.write(migration_pb2.ControlFromSource(final=final))  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):  # a torn frame does not count
            await asyncio.wait_for(asyncio.shield(target.outcome), 0.1)


STRANGERS: dict[str, Callable[[RawSource], bytes]] = {
    "wrong secret": lambda _source: OPENING.pack(MAGIC, 0, bytes(32)),
    "secret of another lane": lambda source: OPENING.pack(MAGIC, 1, source.offers[0].secret),
    "lane that was not offered": lambda source: OPENING.pack(MAGIC, 2, source.offers[0].secret),
    "other protocol": lambda source: OPENING.pack(b"GET / HT", 0, source.offers[0].secret),
}


@pytest.mark.parametrize("opening", STRANGERS.values(), ids=STRANGERS.keys())
async def test_a_stranger_is_hung_up_on_and_disturbs_nothing(opening: Callable[[RawSource], bytes]) -> None:
    async with accepted(lanes=2) as (target, source):
        stranger = await source.connect()
        stranger.say(opening(source) + frame())
        assert await stranger.is_hung_up()
        lanes = [await source.join(number) for number in range(2)]
        lanes[1].say(frame())
        assert await lanes[1].answer() == (0, Verdict.GOOD)
        assert touched(target) == [7]


async def test_a_secret_is_good_for_one_connection() -> None:
    async with accepted(lanes=2) as (target, source):
        first = await source.join(0)
        again = await source.connect()
        again.say(OPENING.pack(MAGIC, 0, source.offers[0].secret))
        assert await again.is_hung_up()
        assert not target.outcome.done()
        first.writer.close()


async def test_trickling_strangers_do_not_keep_lanes_waiting_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "OPENING_S_MAX", 0.3)
    async with accepted() as (target, source):
        trickler = await source.connect()
        trickler.say(b"f")
        assert "not every lane came" in (await target.refusal()).message
        assert await trickler.is_hung_up()


async def test_a_source_that_trickles_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SILENCE_S_MAX", 0.3)
    async with accepted() as (target, source):
        lane = await source.join()
        for byte in frame()[: HEADER.size + 20]:
            lane.say(bytes([byte]))
            await asyncio.sleep(0.02)
            if target.outcome.done():
                break
        await target.refusal()
        assert await lane.is_hung_up()


async def test_frames_are_answered_when_asked_for_and_torn_ones_at_once() -> None:
    async with accepted() as (_target, source):
        lane = await source.join()
        lane.say(frame(packed(1), ask=False) + frame(packed(2), sequence=1))
        assert await lane.answer() == (1, Verdict.GOOD)
        lane.say(frame(packed(3), sequence=2, ask=False) + frame(packed(4), sequence=3, ask=False, error=1))
        assert await lane.answer() == (3, Verdict.TORN)


async def test_pages_behind_final_never_reach_memory() -> None:
    async with accepted() as (target, source):
        lane = await source.join()
        final = migration_pb2.Final(frames=0, pages=0, device_state=b"state")
        await source.control.write(migration_pb2.ControlFromSource(final=final))  # type: ignore[attr-defined]
        assert await target.device_state() == b"state"
        lane.say(frame())
        assert await lane.is_hung_up()
        assert touched(target) == []
        assert not target.memory.pages.any()


async def test_a_page_that_is_arriving_when_final_comes_ends_the_attempt() -> None:
    async with accepted() as (target, source):
        lane = await source.join()
        lane.say(frame()[:-1])
        async with asyncio.timeout(DEADLINE_S):
            while not target.memory.touched[7]:  # noqa: ASYNC110 - memory tells nobody
                await asyncio.sleep(0.005)
        final = migration_pb2.Final(frames=0, pages=0, device_state=b"state")
        await source.control.write(migration_pb2.ControlFromSource(final=final))  # type: ignore[attr-defined]
        assert "beyond those" in (await target.refusal()).message


# --- torn frames, at the source -------------------------------------------------------------------------


class Meddler(UnshapedWire):
    """Acts between the hashing of a frame and its sending, once."""

    def __init__(self) -> None:
        self.act: Callable[[], None] | None = None

    async def pass_bytes(self, size_bytes: int) -> None:
        raise AssertionError(size_bytes)

    def pass_bytes_blocking(self, _size_bytes: int) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()


@asynccontextmanager
async def meddled(pages: int = 64) -> AsyncIterator[tuple[Ends, Meddler]]:
    meddler = Meddler()
    memory = random_memory(pages)
    async with two_ends(memory, option=TransportOption.DIRECT, source_wire_of=lambda *_: meddler) as ends:
        yield ends, meddler


async def test_a_frame_torn_by_the_guest_is_sent_again_as_a_whole() -> None:
    async with meddled() as (ends, meddler):
        memory = ends.memory

        def write() -> None:
            memory.pages[9] = 1
            memory.mark_written(np.array([9]))

        meddler.act = write
        awaiting = await ends.move()
        await ends.target.device_state()
        assert (memory.pages == ends.target.memory.pages).all()
        first, second = awaiting.figures(None).passes
        assert (first.dirty_pages_after, second.pages_sent) == (64, 64)


async def test_an_answer_is_asked_for_where_nothing_is_left_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame behind the last one that was sent turns out zero, and so does not ask for an answer."""
    frames: Frames = SimpleQueue()
    monkeypatch.setattr(direct, "SimpleQueue", lambda: frames)
    async with meddled(2 * FRAME_PAGES_MAX) as (ends, meddler):
        memory = ends.memory

        def zero() -> None:
            deadline_s = time.monotonic() + DEADLINE_S
            while frames.empty() and time.monotonic() < deadline_s:
                time.sleep(0.001)
            memory.pages[FRAME_PAGES_MAX:] = 0

        meddler.act = zero
        awaiting = await ends.move()
        await ends.target.device_state()
        assert (memory.pages == ends.target.memory.pages).all()
        (first,) = awaiting.figures(None).passes
        assert (first.pages_sent, first.zero_pages) == (FRAME_PAGES_MAX, FRAME_PAGES_MAX)


async def test_a_mark_that_comes_a_moment_later_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async with meddled() as (ends, meddler):
        memory, loop = ends.memory, asyncio.get_running_loop()

        def mark_later() -> None:
            loop.call_later(direct.MARK_S_MAX / 2, memory.mark_written, 9)

        def write() -> None:
            memory.pages[9] = 0
            loop.call_soon_threadsafe(mark_later)

        meddler.act = write
        await ends.move()
        await ends.target.device_state()
        assert (memory.pages == ends.target.memory.pages).all()


async def test_a_frame_torn_by_nobody_is_corrupted() -> None:
    async with meddled() as (ends, meddler):
        memory = ends.memory
        memory.mark_written(np.array([5]))

        def flip() -> None:
            memory.pages[9, 17] ^= 1

        meddler.act = flip
        with pytest.raises(MoveFailed, match="64 pages did not arrive at node2 as they were sent"):
            await ends.move()
        await ends.target.refusal()
        assert 5 in memory.dirty.take()


async def test_in_the_pause_nothing_is_forgiven() -> None:
    async with meddled() as (ends, meddler):
        memory = ends.memory

        def last() -> None:
            memory.mark_written(slice(None))

            def write() -> None:
                memory.pages[9] = 1
                memory.dirty.mark(9)

            meddler.act = write

        ends.source.on_pause = last
        with pytest.raises(MoveFailed, match="64 pages did not arrive"):
            await ends.move()
        await ends.target.refusal()


async def test_pages_that_were_just_written_cannot_tear() -> None:
    async with meddled() as (ends, meddler):
        memory = ends.memory

        def again() -> None:
            if ends.source.reached.count("source.copying") == 1:
                memory.mark_written(slice(None))
                meddler.act = lambda: memory.write(np.array([9]), np.full((1, PAGE_SIZE), 3, np.uint8))

        ends.source.hooks["source.copying"] = again
        awaiting = await ends.move()
        await ends.target.device_state()
        assert (memory.pages == ends.target.memory.pages).all()
        assert [one.dirty_pages_after for one in awaiting.figures(None).passes] == [0, 1, 0]
