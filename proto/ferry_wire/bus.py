"""What a process tells its watchers over MQTT 3.1.1, without ever noticing whether the broker is there.

``publish`` only puts a message into memory. One task carries it to the broker with QoS 1, and connects
again when the broker was away, with a growing pause. Of a retained topic the latest value is kept here too,
and told again whenever a connection begins, because a broker may have forgotten it (the embedded one does).

A process has a status topic of its own: it says ``online`` when it is connected, ``offline`` when it closes
the bus, and the broker says ``offline`` for it when it dies (the last will).
"""

import asyncio
import json
import logging
import random
import socket
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import aiomqtt

from ferry_types.errors import FerryError, malformed

PAYLOAD_BYTES_MAX = 64 * 2**10
"""Largest payload; the embedded broker accepts no more either."""

QUEUED_MESSAGES_MAX = 1000
"""Messages that are not retained and wait for the broker; beyond, the oldest is dropped."""

RETAINED_TOPICS_MAX = 65_536
"""Retained topics of one process: 8,000 VMs (the largest cluster) with a few topics each."""

EXCHANGE_TIMEOUT_S = 3.0
"""How long to wait for the broker: for a connection, and for each answer."""

KEEPALIVE_S = 10
"""An idle client asks the broker for a sign of life this often."""

PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 5.0
"""Pause before the next attempt to connect: doubles from the first to the second, with jitter."""

CLOSE_DEADLINE_S = 1.0

_QOS = 1
_INCOMING_MESSAGES_MAX = 16

_LOG = logging.getLogger(__name__)
# The libraries speak of every lost connection; the change from there to away and back is told here.
_LIBRARY_LOG = logging.getLogger(f"{__name__}.mqtt")
_LIBRARY_LOG.setLevel(logging.CRITICAL)


@dataclass(frozen=True, slots=True, eq=False)
class _Message:
    topic: str
    payload: bytes
    retain: bool


class _Connection(aiomqtt.Client):
    """One connection to the broker, which leaves no socket behind however it ends."""

    def __init__(self, host: str, port: int, client_id: str, will: aiomqtt.Will) -> None:
        super().__init__(
            host,
            port,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V311,
            clean_session=True,
            will=will,
            timeout=EXCHANGE_TIMEOUT_S,
            keepalive=KEEPALIVE_S,
            max_queued_incoming_messages=_INCOMING_MESSAGES_MAX,
            logger=_LIBRARY_LOG,
        )
        # Connecting takes a thread, which must not outlive the process's end for long.
        self._client.connect_timeout = EXCHANGE_TIMEOUT_S
        # aiomqtt's own has the event loop watch a number, whose socket may be closed by then.
        self._client.on_socket_register_write = self._await_room

    def leave(self) -> None:
        """Disconnect without waiting for the broker, which then keeps the last will to itself."""
        self._client.disconnect()
        self._client.loop_write()  # now, not in a turn of the event loop that may never come
        self.cut()
        if self._disconnected.done():
            self._disconnected.exception()  # seen, or asyncio would complain of it

    def cut(self) -> None:
        """Let the broker see the connection fail, so that it publishes the last will."""
        connected = self._client.socket()
        if isinstance(connected, socket.socket):
            with suppress(OSError):  # the peer was faster
                connected.shutdown(socket.SHUT_RDWR)

    def _await_room(self, _client: object, _userdata: object, wanted: object) -> None:
        """Write what is queued once the socket takes it. Called from the thread that connects, too."""
        self._loop.call_soon_threadsafe(self._watch_for_room, wanted)

    def _watch_for_room(self, wanted: object) -> None:
        current = self._client.socket()
        if current is not None and current is wanted:
            self._loop.add_writer(current.fileno(), self._write)

    def _write(self) -> None:
        try:
            self._client.loop_write()
        except OSError as error:
            if not self._disconnected.done():
                self._disconnected.set_exception(error)


class BusClient:
    """An event bus on an MQTT broker. Use from one event loop; ``run`` is its task."""

    def __init__(self, address: str, client_id: str, status_topic: str) -> None:
        """``address``: the broker's ``host:port``. Raises FerryError if it is malformed."""
        self._host, self._port = _split(address)
        self._address = address
        self._client_id = client_id
        self._status_topic = status_topic
        self._online = _status("online", client_id)
        self._offline = _status("offline", client_id)
        # What the broker shall retain; empty payloads until it has cleared their topics.
        self._retained: dict[str, bytes] = {status_topic: self._online}
        self._unsent: dict[str, None] = {}
        self._queue: deque[_Message] = deque(maxlen=QUEUED_MESSAGES_MAX)
        self._retained_was_last = False
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._drain_until = 0.0
        self._task: asyncio.Task[object] | None = None
        self._connected = False
        self._away_told = False
        self._dropped = 0

    @property
    def connected(self) -> bool:
        """Whether the broker answered last time."""
        return self._connected

    @property
    def dropped(self) -> int:
        """Messages given up since the start: crowded out while the broker was away, or too large."""
        return self._dropped

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        """Queue a message. Never waits, never raises.

        Retained: the topic's latest value replaces one that has not been sent yet, and is sent again to
        every broker that is connected to anew. Others may arrive more than once.
        """
        data = payload if isinstance(payload, bytes) else payload.encode(errors="replace")
        if len(data) > PAYLOAD_BYTES_MAX:
            self._dropped += 1
            _LOG.warning("a message of %d bytes on %s is too large for the bus", len(data), topic)
        elif not retain:
            self._dropped += len(self._queue) == QUEUED_MESSAGES_MAX
            self._queue.append(_Message(topic, data, retain=False))
        elif topic in self._retained or len(self._retained) < RETAINED_TOPICS_MAX:
            self._retained[topic] = data
            self._unsent[topic] = None
        else:
            self._dropped += 1
        self._wake.set()

    def clear(self, topic: str) -> None:
        """Remove what the broker retains under a topic. Never waits, never raises."""
        self.publish(topic, b"", retain=True)

    async def run(self) -> None:
        """Carry messages to the broker until ``close``. Raises nothing that the broker can cause."""
        self._task = asyncio.current_task()
        pause_s = PAUSE_MIN_S
        while not self._closing.is_set():
            try:
                await self._serve()
            except* (aiomqtt.MqttError, OSError) as lost:
                self._tell_away(lost.exceptions[0])
            if self._connected:
                self._connected = False
                pause_s = PAUSE_MIN_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def close(self, deadline_s: float = CLOSE_DEADLINE_S, *, leave_nothing: bool = False) -> None:
        """Send what is queued, say ``offline`` and end ``run``, all within the deadline or not at all.

        ``leave_nothing``: say nothing, and have the broker forget this process's status instead.
        """
        if leave_nothing:
            self._offline = b""
        self._drain_until = asyncio.get_running_loop().time() + deadline_s / 2
        self._closing.set()
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=deadline_s)
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=deadline_s)

    async def _serve(self) -> None:
        """One connection, from its first message to its end."""
        will = aiomqtt.Will(self._status_topic, self._offline, _QOS, retain=True)
        connection = _Connection(self._host, self._port, self._client_id, will)
        try:
            # Not as a context manager: at its end it would wait for a broker that may be hanging.
            await connection.__aenter__()
            await self._talk(connection)
        except asyncio.CancelledError:
            connection.cut()  # this process ends, and could not say so itself
            raise
        finally:
            connection.leave()

    async def _talk(self, connection: _Connection) -> None:
        self._unsent = dict.fromkeys(self._retained)
        await connection.subscribe(self._status_topic, _QOS)
        self._tell_back()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch(connection))
            await self._send(connection)
            watching.cancel()

    async def _watch(self, connection: _Connection) -> None:
        """Contradict the last will of an earlier connection, which may be published after this one began."""
        async for message in connection.messages:
            if message.payload != self._online and not self._closing.is_set():
                self.publish(self._status_topic, self._online, retain=True)

    async def _send(self, connection: _Connection) -> None:
        """Send all that is there, one by one and in order, until the bus closes; then say so."""
        loop = asyncio.get_running_loop()
        while not self._closing.is_set() or loop.time() < self._drain_until:
            message = self._next()
            if message is not None:
                await connection.publish(message.topic, message.payload, _QOS, message.retain)
                self._forget(message)
            elif self._closing.is_set():
                break
            else:
                self._wake.clear()
                await self._wake.wait()
        await connection.publish(self._status_topic, self._offline, _QOS, retain=True)

    def _next(self) -> _Message | None:
        """The oldest message, retained ones and others in turn."""
        if self._queue and (self._retained_was_last or not self._unsent):
            return self._queue[0]
        for topic in self._unsent:
            return _Message(topic, self._retained[topic], retain=True)
        return None

    def _forget(self, message: _Message) -> None:
        """A message has been acknowledged, and nothing newer took its place meanwhile."""
        self._retained_was_last = message.retain
        if not message.retain:
            if self._queue and self._queue[0] is message:
                self._queue.popleft()
        elif self._retained[message.topic] is message.payload:
            del self._unsent[message.topic]
            if not message.payload:
                del self._retained[message.topic]

    def _tell_back(self) -> None:
        self._connected = True
        self._away_told = False
        _LOG.info("connected to the broker at %s", self._address)

    def _tell_away(self, reason: BaseException) -> None:
        if not self._away_told:
            _LOG.warning(
                "the broker at %s is away (%s); watchers see nothing until it is back", self._address, reason
            )
        self._away_told = True


class NullBus:
    """The bus of a process without a broker: takes everything, tells nobody."""

    connected = False
    dropped = 0

    def __init__(self) -> None:
        self._closing = asyncio.Event()

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        """Do nothing."""

    def clear(self, topic: str) -> None:
        """Do nothing."""

    async def run(self) -> None:
        """Wait for ``close``."""
        await self._closing.wait()

    async def close(  # as BusClient has it
        self,
        deadline_s: float = CLOSE_DEADLINE_S,  # noqa: ARG002
        *,
        leave_nothing: bool = False,  # noqa: ARG002
    ) -> None:
        """End ``run``."""
        self._closing.set()


Bus = BusClient | NullBus


def open_bus(address: str, client_id: str, status_topic: str) -> Bus:
    """The bus on the broker at ``address`` (``host:port``), or one that does nothing if that is empty.

    ``client_id`` is unique at the broker; ``status_topic`` is the process's own. Nothing happens before
    ``run``. Raises FerryError if the address is malformed.
    """
    return BusClient(address, client_id, status_topic) if address else NullBus()


def _status(state: str, client_id: str) -> bytes:
    return json.dumps({"state": state, "process": client_id}).encode()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    try:
        host.encode("idna")  # or the look-up of the name would raise, later and where nobody expects it
        if host and 0 < int(port) < 2**16:
            return host.removeprefix("[").removesuffix("]"), int(port)
    except ValueError:
        pass
    raise FerryError(malformed(f"broker address {address!r} is not host:port", "for example 127.0.0.1:1883"))
