"""Option ``direct`` at the target: raw connections whose threads write into the arriving VM's memory.

Whoever connects is a stranger until it has shown the secret of a lane, which Accept told the source; a
stranger costs a connection for a moment, and does not disturb the move. What comes then is hostile all the
same: a frame's numbers are checked before a byte of it reaches memory, and then it reaches only the pages
that it names. Memory is entered through the receiver's gate only, which is shut before the memory
becomes a guest's or is closed.
"""

import asyncio
import hmac
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from ferry.v1 import migration_pb2
from ferry_agent.migration import direct_wire, protocol
from ferry_agent.migration.arriving_pages import ArrivingPages
from ferry_agent.migration.direct_wire import ANSWER, OPENING, Verdict
from ferry_agent.migration.frame_codec import FrameError
from ferry_agent.migration.ports import TargetHost
from ferry_agent.migration.receiver import Receiver
from ferry_types.errors import FerryError, failed

STRANGERS_MAX = 16
"""Connections at a time that have not shown a secret yet: twice the lanes of an attempt."""

ListenHost = Callable[[str], str]
"""The address of this machine on which a NIC, by its name, awaits raw connections."""


def loopback(_nic_name: str) -> str:
    """Where a target listens that nobody has told otherwise."""
    return "127.0.0.1"


class DirectLanes:
    """The raw connections of one attempt, from Hello to its end. An ``async with`` block.

    ``offers`` is what Accept says. A lane that ends, or does not come, ends the attempt.
    """

    def __init__(self, receiver: Receiver, host: TargetHost, listen_host: ListenHost) -> None:
        self.offers: list[migration_pb2.DirectLane] = []
        self._receiver = receiver
        self._host = host
        self._listen_host = listen_host
        self._secrets = {number: secrets.token_bytes(direct_wire.SECRET_BYTES) for number in receiver.lanes}
        self._listeners: dict[str, socket.socket] = {}
        self._joined: dict[int, socket.socket] = {}
        self._all_joined = asyncio.Event()
        self._strangers: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(len(receiver.lanes), thread_name_prefix="arriving lane")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "DirectLanes":
        """Listen. Raises FerryError."""
        try:
            for lane in self._receiver.lanes.values():
                port = self._listener(self._listen_host(lane.target_nic)).getsockname()[1]
                secret = self._secrets[lane.number]
                self.offers.append(migration_pb2.DirectLane(number=lane.number, port=port, secret=secret))
        except OSError as error:
            self._stop_listening()
            raise FerryError(failed(f"no port for raw connections is to be had: {error}")) from error
        self._receiver.on_end = self._hang_up
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End all connections and threads."""
        self._stop_listening()
        self._hang_up()
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            await asyncio.to_thread(self._threads.shutdown)
        finally:
            for connection in self._joined.values():
                connection.close()

    def _listener(self, host: str) -> socket.socket:
        listener = self._listeners.get(host)
        if listener is None:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, 0), family=family, backlog=STRANGERS_MAX)
            listener.setblocking(False)
            self._listeners[host] = listener
        return listener

    def _stop_listening(self) -> None:
        listeners, self._listeners = self._listeners, {}
        for listener in listeners.values():
            listener.close()

    def _hang_up(self) -> None:
        """Wake the threads up, wherever they wait."""
        for connection in self._joined.values():
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the source was faster

    async def _run(self) -> None:
        try:
            await self._await_lanes()
            await self._host.reach("target.receiving")
            await self._receive()
        except FrameError as error:
            self._receiver.fail(failed(f"the source sent a bad frame: {error}"))
        except FerryError as error:
            self._receiver.fail(error.refusal)
        except TimeoutError:
            what = f"not every lane came within {protocol.OPENING_S_MAX:.0f} s"
            self._receiver.fail(failed(what, "check the network between the hosts"))

    # --- joining --------------------------------------------------------------------------------------

    async def _await_lanes(self) -> None:
        """Return once every lane has joined. Raises TimeoutError."""
        accepting = [asyncio.create_task(self._accept(one)) for one in self._listeners.values()]
        try:
            async with asyncio.timeout(protocol.OPENING_S_MAX):
                await self._all_joined.wait()
        finally:
            tasks = [*accepting, *self._strangers]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._stop_listening()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            if len(self._strangers) >= STRANGERS_MAX:
                connection.close()
                continue
            task = loop.create_task(self._greet(connection))
            self._strangers.add(task)
            task.add_done_callback(self._strangers.discard)

    async def _greet(self, connection: socket.socket) -> None:
        """Make a stranger a lane, or close its connection."""
        loop = asyncio.get_running_loop()
        try:
            connection.setblocking(False)
            opening = b""
            while len(opening) < OPENING.size:
                part = await loop.sock_recv(connection, OPENING.size - len(opening))
                if not part:
                    break
                opening += part
            if not self._admit(opening, connection):
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_sendall(connection, ANSWER.pack(0, Verdict.JOINED))
        except OSError:
            connection.close()
            return
        except asyncio.CancelledError:
            if connection not in self._joined.values():
                connection.close()
            raise
        if len(self._joined) == len(self._receiver.lanes):
            self._all_joined.set()

    def _admit(self, opening: bytes, connection: socket.socket) -> bool:
        if len(opening) != OPENING.size:
            return False
        magic, number, secret = OPENING.unpack(opening)
        expected = self._secrets.get(number, b"")
        if magic != direct_wire.MAGIC or not hmac.compare_digest(expected, secret) or number in self._joined:
            return False
        self._joined[number] = connection
        self._receiver.lanes[number].joined = True
        return True

    # --- receiving ------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        """Run a thread for each lane. Raises FrameError, FerryError as soon as the first has ended."""
        loop = asyncio.get_running_loop()
        running = []
        for number, connection in self._joined.items():
            lane = self._receiver.lanes[number]
            connection.setblocking(True)
            direct_wire.set_timeout(connection, socket.SO_RCVTIMEO, protocol.SILENCE_S_MAX)
            work = ArrivingPages(lane, self._receiver, connection, lane.wire)
            running.append(loop.run_in_executor(self._threads, work.run))
        try:
            ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for one in ended:
                one.result()
        finally:
            self._hang_up()
            await asyncio.gather(*running, return_exceptions=True)
