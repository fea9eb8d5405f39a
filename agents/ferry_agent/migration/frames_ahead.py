"""Frames of a lane, taken by threads, a few at once, and handed on in the order of the stream.

For compressed lanes: decoding a frame and touching the memory that it is for (a huge page each, which the
kernel has to clear first) takes about as long as it takes the next one to come in at 1 Gbit/s. One after the
other would hold up the wire whenever pages shrink a little better than others.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from ferry_agent.migration.frames import CheckedFrame
from ferry_agent.migration.receiver import ArrivingLane, Receiver

FRAMES_AHEAD: Final = 3
"""Frames in hand, at most 4 MiB each: two that threads are at, and one that is ready when a thread is."""


async def taken_ahead(
    receiver: Receiver, lane: ArrivingLane, read: Callable[[], Awaitable[object]]
) -> AsyncGenerator[CheckedFrame, None]:
    """The lane's frames as they are checked, written and past its NIC; ``count`` is due for each.

    ``read`` gives the next message, anything but bytes at the end. Raises FrameError and FerryError. Close
    it: then no thread is at any frame any more.
    """
    due: asyncio.Queue[asyncio.Task[CheckedFrame] | None] = asyncio.Queue()
    in_hand: set[asyncio.Task[CheckedFrame]] = set()
    room = asyncio.Semaphore(FRAMES_AHEAD)

    async def begin() -> None:
        sequence = lane.frames
        try:
            while isinstance(wire := await read(), bytes):
                await room.acquire()
                taking = asyncio.create_task(receiver.take_in_thread(sequence, wire))
                in_hand.add(taking)
                await lane.wire.pass_bytes(len(wire))
                due.put_nowait(taking)
                sequence += 1
        finally:
            due.put_nowait(None)

    beginning = asyncio.create_task(begin())
    try:
        while (taking := await due.get()) is not None:
            frame = await taking
            in_hand.remove(taking)
            room.release()
            yield frame
        await beginning
    finally:
        for task in (beginning, *in_hand):
            task.cancel()
        await asyncio.gather(beginning, *in_hand, return_exceptions=True)
