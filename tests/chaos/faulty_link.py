"""A TCP proxy between two processes that can be cut: one way, both ways, for a while or for good."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

Way = Literal["there", "back"]
"""``there``: from whoever connects to the target; ``back``: its answers."""

_CHUNK_BYTES = 256 * 1024
_DEADLINE_S = 10.0
_T = TypeVar("_T")


class FaultyLink:
    """Listens on a free port of 127.0.0.1 and passes on what comes, on a thread of its own until closed.

    A way that is cut passes nothing on, and takes nothing once its buffers are full, as if packets were lost;
    new connections are accepted and hear nothing. After ``heal`` what was held up goes on, unless
    ``broken`` ends the connections, as a peer's reset would.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty link", daemon=True)
        self._thread.start()
        self._open: dict[Way, asyncio.Event] = {"there": asyncio.Event(), "back": asyncio.Event()}
        self._connections: set[asyncio.Task[None]] = set()
        self._target = ("", 0)
        self.carried_bytes = 0
        """Both ways, so far."""
        for gate in self._open.values():
            gate.set()
        self._server = self._call(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        """Where to connect instead of the target."""
        return f"127.0.0.1:{self.port}"

    def lead_to(self, address: str) -> None:
        """Say where connections go."""
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))

    def cut(self, *ways: Way) -> None:
        """Pass nothing on."""
        for way in ways:
            self._loop.call_soon_threadsafe(self._open[way].clear)

    def heal(self, *, broken: bool) -> None:
        """Pass everything on again; ``broken`` ends the connections that there are first."""

        async def heal() -> None:
            if broken:
                await self._end_connections()
            for gate in self._open.values():
                gate.set()

        self._call(heal())

    def close(self) -> None:
        """End everything."""

        async def close() -> None:
            self._server.close()
            await self._end_connections()
            await self._server.wait_closed()

        self._call(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_DEADLINE_S)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_DEADLINE_S)

    async def _end_connections(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            there_reader, there_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pumps = (
            asyncio.ensure_future(self._pump(reader, there_writer, self._open["there"])),
            asyncio.ensure_future(self._pump(there_reader, writer, self._open["back"])),
        )
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            writer.transport.abort()
            there_writer.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            await gate.wait()
            writer.write(chunk)
            self.carried_bytes += len(chunk)
            await writer.drain()
        await gate.wait()
