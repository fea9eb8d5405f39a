"""Latency: what has arrived takes effect later, while more arrives."""

import asyncio
from typing import Final, Generic, TypeVar

from ferry_agent.network.side import EARLY_S

DELAYED_ITEMS_MAX: Final = 64
"""Items that a delay line holds: two windows of page frames."""

T = TypeVar("T")


class DelayLine(Generic[T]):
    """Latency without loss of throughput: items come out so long after they went in, while others go in.

    The receiver puts in what it has read and passed, and takes up what comes out, in a task of its own. Where
    pages are written in place as they come, what is said of them (acknowledgements, READY) may go through the
    line instead: nobody can tell. On one event loop.
    """

    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[tuple[float, T]] = asyncio.Queue(DELAYED_ITEMS_MAX)

    async def put(self, item: T) -> None:
        """Hand an item in; waits while the line is full (``DELAYED_ITEMS_MAX``)."""
        await self._items.put((self._loop.time() + self._latency_s, item))

    async def get(self) -> T:
        """The next item, once its time has come."""
        due_s, item = await self._items.get()
        rest_s = due_s - self._loop.time()
        if rest_s > EARLY_S:
            await asyncio.sleep(rest_s)
        return item
