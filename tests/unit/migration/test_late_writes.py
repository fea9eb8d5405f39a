"""Frames that threads are at while the attempt goes on: what of them reaches memory, and when."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import lz4.block
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.migration.ends import DEADLINE_S, MOVE, Target

from ferry.v1 import migration_pb2
from ferry_agent.migration import receiver as receiver_module
from ferry_agent.migration.frame_codec import FrameError, PageFrame
from ferry_agent.migration.frames import CheckedFrame, FrameBuilder, check, compressed_frame
from ferry_agent.migration.frames_ahead import FRAMES_AHEAD, taken_ahead
from ferry_agent.migration.ports import UnshapedWire
from ferry_agent.migration.receiver import ArrivingLane, Phase, Receiver
from ferry_types.errors import failed
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import TransportOption

PAGES = 2048
SCATTERED: NDArray[np.int64] = np.array([3, 700, 1500])
CONTENTS: NDArray[np.uint8] = np.random.default_rng(5).integers(1, 256, (PAGES, PAGE_SIZE), np.uint8)


def receiving(option: TransportOption, lanes: int = 1) -> tuple[Target, Receiver]:
    target = Target(PAGES)
    arriving = [ArrivingLane(number, "", UnshapedWire()) for number in range(lanes)]
    return target, Receiver(MOVE, target.slot, target, verify=False, option=option, lanes=arriving)


class Held:
    """Holds a thread at a point of its work until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.let_go = threading.Event()

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def held(*arguments: Any, **options: Any) -> Any:
            self.reached.set()
            assert self.let_go.wait(DEADLINE_S)
            return work(*arguments, **options)

        return held

    async def is_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, DEADLINE_S)


def plain_frame() -> bytes:
    return FrameBuilder(CONTENTS).build(0, SCATTERED).wire


class HeldPages:
    """Memory whose scattered writes are held."""

    def __init__(self, pages: NDArray[np.uint8], held: Held) -> None:
        self.pages = pages
        self.held = held

    def __setitem__(self, index: Any, rows: Any) -> None:
        self.held.before(self.pages.__setitem__)(index, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pages, name)


async def test_the_end_of_an_attempt_waits_for_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called on the event loop, on which this host's lease is renewed."""
    held = Held()
    target, receiver = receiving(TransportOption.TCPIP)
    monkeypatch.setattr(target.memory, "pages", HeldPages(target.memory.pages, held))
    taking = asyncio.create_task(receiver.take(receiver.lanes[0], plain_frame()))
    await held.is_reached()
    began_at_s = time.monotonic()
    receiver.end(failed("the target has dropped the move"))
    assert time.monotonic() - began_at_s < 0.5
    held.let_go.set()
    await taking
    with pytest.raises(FrameError, match="after the last one"):
        await receiver.take(receiver.lanes[0], plain_frame())


async def test_a_lane_has_ended_only_once_its_last_frame_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages count as touched then: a page that is named zero afterwards must not keep what it brought."""
    held = Held()
    target, receiver = receiving(TransportOption.SMB, lanes=2)
    pages = target.memory.pages
    monkeypatch.setattr(target.memory, "pages", HeldPages(pages, held))
    taking = asyncio.create_task(receiver.take(receiver.lanes[0], plain_frame()))
    await held.is_reached()
    for _ in range(3):
        taking.cancel()
        await asyncio.sleep(0)
        assert not taking.done()
    held.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    monkeypatch.setattr(target.memory, "pages", pages)
    assert (pages[SCATTERED] == CONTENTS[SCATTERED]).all()
    zeros = FrameBuilder(CONTENTS).build(0, np.empty(0, np.int64), SCATTERED)
    await receiver.take(receiver.lanes[1], zeros.wire)
    assert not pages.any()


async def test_a_frame_that_is_decoded_while_final_comes_never_reaches_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Held()
    monkeypatch.setattr(receiver_module, "check", held.before(check))
    target, receiver = receiving(TransportOption.COMPRESSION)
    rows = np.ones((4, PAGE_SIZE), np.uint8)
    payload = lz4.block.compress(rows.data, store_size=False)
    late = compressed_frame(0, np.arange(4), np.empty(0, np.int64), rows, payload)
    taking = asyncio.create_task(receiver.take_in_thread(0, late.wire))
    await held.is_reached()
    await receiver.take_final(migration_pb2.Final(frames=0, device_state=b"state"))
    receiver.become_ready(b"state")
    assert receiver.phase is Phase.READY
    held.let_go.set()
    with pytest.raises(FrameError, match="after the last one"):
        await taking
    assert not target.memory.pages.any()


# --- several frames at once -----------------------------------------------------------------------------


class Frames:
    """A stream of one page per frame, which ends when it is told to."""

    def __init__(self, count: int) -> None:
        self.asked = 0
        self.over = asyncio.Event()
        self._wires = [FrameBuilder(CONTENTS).build(n, np.array([n])).wire for n in range(count)]

    async def read(self) -> object:
        self.asked += 1
        if self.asked <= len(self._wires):
            return self._wires[self.asked - 1]
        await self.over.wait()
        return None


async def test_frames_are_taken_side_by_side_and_handed_on_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one takes longest here; no more are in hand than may be."""
    first, second_is_begun = Held(), threading.Event()

    def held_check(frame: PageFrame, **about: int) -> CheckedFrame:
        if frame.sequence == 1:
            second_is_begun.set()
        return (first.before(check) if frame.sequence == 0 else check)(frame, **about)

    monkeypatch.setattr(receiver_module, "check", held_check)
    target, receiver = receiving(TransportOption.COMPRESSION)
    frames = Frames(8)
    async with aclosing(taken_ahead(receiver, receiver.lanes[0], frames.read)) as taken:
        coming = asyncio.ensure_future(anext(taken))
        await first.is_reached()
        assert await asyncio.to_thread(second_is_begun.wait, DEADLINE_S)
        assert not coming.done()
        assert frames.asked <= FRAMES_AHEAD + 1
        first.let_go.set()
        in_order = [await coming, *[await anext(taken) for _ in range(7)]]
        assert [int(frame.page_indices[0]) for frame in in_order] == list(range(8))
        frames.over.set()
        with pytest.raises(StopAsyncIteration):
            await anext(taken)
    assert (target.memory.pages[:8] == CONTENTS[:8]).all()


async def test_a_stream_that_is_left_leaves_no_thread_at_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    monkeypatch.setattr(receiver_module, "check", held.before(check))
    target, receiver = receiving(TransportOption.COMPRESSION)
    taken = taken_ahead(receiver, receiver.lanes[0], Frames(2).read)
    coming = asyncio.ensure_future(anext(taken))
    await held.is_reached()
    receiver.end(failed("the target has dropped the move"))
    coming.cancel()
    await asyncio.sleep(0.01)
    assert not coming.done()
    held.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await coming
    assert not target.memory.pages.any()


async def test_a_bad_frame_among_those_in_hand_ends_the_stream() -> None:
    target, receiver = receiving(TransportOption.COMPRESSION)
    good = FrameBuilder(CONTENTS).build(0, np.array([0])).wire
    bad = bytearray(FrameBuilder(CONTENTS).build(1, np.array([1])).wire)
    bad[-20] ^= 1
    wires = iter([good, bytes(bad)])

    async def read() -> object:
        return next(wires, None)

    async with aclosing(taken_ahead(receiver, receiver.lanes[0], read)) as taken:
        await anext(taken)
        with pytest.raises(FrameError, match="checksum of frame 1"):
            await anext(taken)
    assert not target.memory.pages[1].any()
