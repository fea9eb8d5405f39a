"""What the bus promises (``ferry_wire.bus``), whatever the broker: the embedded one, and mosquitto."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import pytest

from ferry_coordinator import broker as embedded
from ferry_coordinator.ports import EventBus
from ferry_types.errors import ErrorCode, FerryError
from ferry_wire import bus as bus_module
from ferry_wire import topics
from ferry_wire.bus import BusClient, NullBus, open_bus

DEADLINE_S = 15.0
AT_ONCE_S = 0.9
"""More than anything takes on a busy machine that does not wait, less than the bus's own deadlines."""

STATUS = topics.process_status("lab", "node1")
STATE = topics.vm_state("lab", "web")
EVENTS = topics.events("lab", "node1")
EVERYTHING = f"{topics.ROOT}/#"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


# --- brokers ----------------------------------------------------------------------------------------


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Broker:
    """A broker process on a port that it keeps when it is started again."""

    kind: str
    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self._command(), env=ENVIRONMENT, stderr=subprocess.DEVNULL
        )
        await until(self._listens)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _command(self) -> list[str]:
        if self.kind == "amqtt":
            return [sys.executable, "-m", "ferry_coordinator.broker", "--listen", self.address]
        config = self.folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        return [mosquitto(), "-c", str(config)]

    async def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, "the broker has ended"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except ConnectionRefusedError:
            return False
        writer.close()
        return True


def mosquitto() -> str:
    found = shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
    if found is None:
        reason = "mosquitto is not installed (apt install mosquitto)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(params=["amqtt", "mosquitto"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    started = Broker(request.param, tmp_path, free_port())
    await started.start()
    yield started
    await started.kill()


# --- waiting and watching ---------------------------------------------------------------------------


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await holds():  # noqa: ASYNC110 - what other processes do comes with no event
            await asyncio.sleep(0.01)


class Watcher:
    """Somebody who subscribes to everything and remembers what came."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.seen: list[aiomqtt.Message] = []

    async def expect(self, topic: str, payload: bytes | None = None, **fields: str) -> aiomqtt.Message:
        """The next message of the topic that has this payload, or these fields in its JSON."""
        async with asyncio.timeout(DEADLINE_S):
            async for message in self.client.messages:
                self.seen.append(message)
                if str(message.topic) != topic or (payload is not None and message.payload != payload):
                    continue
                if not fields or fields.items() <= json.loads(bytes(message.payload)).items():
                    return message
        raise AssertionError("unreachable: the time-out comes first")


@asynccontextmanager
async def watching(broker: Broker) -> AsyncIterator[Watcher]:
    client = aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V311)
    async with client:
        await client.subscribe(EVERYTHING, 1)
        yield Watcher(client)


@asynccontextmanager
async def running(address: str) -> AsyncIterator[BusClient]:
    bus = open_bus(address, "node1", STATUS)
    assert isinstance(bus, BusClient)
    task = asyncio.create_task(bus.run())
    try:
        yield bus
    finally:
        await bus.close()
        assert task.done()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "EXCHANGE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(bus_module, "PAUSE_MAX_S", 0.2)


# --- a broker that is there -------------------------------------------------------------------------


async def test_messages_arrive_in_order_and_with_qos_1(broker: Broker) -> None:
    async with watching(broker) as watcher, running(broker.address) as bus:
        for number in range(50):
            bus.publish(EVENTS, f'{{"number": {number}}}')
        last = await watcher.expect(EVENTS, b'{"number": 49}')
    assert last.qos == 1
    numbers = [json.loads(bytes(m.payload))["number"] for m in watcher.seen if str(m.topic) == EVENTS]
    assert numbers == list(range(50))


async def test_a_process_is_online_until_it_closes_the_bus(broker: Broker) -> None:
    async with watching(broker) as watcher:
        async with running(broker.address):
            await watcher.expect(STATUS, state="online", process="node1")
        await watcher.expect(STATUS, state="offline", process="node1")
    async with watching(broker) as latecomer:
        message = await latecomer.expect(STATUS, state="offline")
        assert message.retain


async def test_a_closed_bus_has_no_last_will(broker: Broker) -> None:
    async with watching(broker) as watcher:
        async with running(broker.address):
            await watcher.expect(STATUS, state="online")
        await watcher.client.publish(EVENTS, b"end", qos=1)
        await watcher.expect(EVENTS, b"end")
    states = [json.loads(bytes(m.payload))["state"] for m in watcher.seen if str(m.topic) == STATUS]
    assert states.count("offline") == 1


async def test_what_is_queued_at_the_end_is_still_sent(broker: Broker) -> None:
    async with watching(broker) as watcher:
        async with running(broker.address) as bus:
            await watcher.expect(STATUS, state="online")
            bus.publish(EVENTS, b"last words")
        await watcher.expect(EVENTS, b"last words")
        await watcher.expect(STATUS, state="offline")


async def test_who_comes_later_sees_what_is_retained_and_not_what_was_cleared(broker: Broker) -> None:
    other = topics.vm_state("lab", "gone")
    async with running(broker.address) as bus:
        async with watching(broker) as watcher:
            bus.publish(STATE, b"old", retain=True)
            bus.publish(other, b"there", retain=True)
            await watcher.expect(other, b"there")
            bus.clear(other)
            bus.publish(STATE, b"new", retain=True)
            await watcher.expect(STATE, b"new")
            assert b"" in [message.payload for message in watcher.seen if str(message.topic) == other]
        async with watching(broker) as latecomer:
            await latecomer.expect(STATE, b"new")
            bus.publish(EVENTS, b"end")
            await latecomer.expect(EVENTS, b"end")
        assert other not in [str(message.topic) for message in latecomer.seen]
        assert set(bus._retained) == {STATUS, STATE}


async def test_of_a_retained_topic_the_latest_value_always_arrives(broker: Broker) -> None:
    async with watching(broker) as watcher, running(broker.address) as bus:
        for number in range(30):
            # Each value comes while the one before it is on its way.
            bus.publish(STATE, b"%d" % number, retain=True)
            bus.publish(STATE, b"%d!" % number, retain=True)
            await watcher.expect(STATE, b"%d!" % number)
            bus.publish(STATE, b"%d?" % number, retain=True)
            await asyncio.sleep(0)


async def test_a_killed_process_goes_offline_by_its_last_will(broker: Broker) -> None:
    script = (
        "import asyncio, sys\n"
        "from ferry_wire.bus import open_bus\n"
        "asyncio.run(open_bus(sys.argv[1], 'node1', sys.argv[2]).run())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, broker.address, STATUS, env=ENVIRONMENT
    )
    try:
        async with watching(broker) as watcher:
            await watcher.expect(STATUS, state="online")
            process.kill()
            await watcher.expect(STATUS, state="offline", process="node1")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_bus_that_is_cancelled_instead_of_closed_goes_offline_too(broker: Broker) -> None:
    async with watching(broker) as watcher:
        task = asyncio.create_task(open_bus(broker.address, "node1", STATUS).run())
        await watcher.expect(STATUS, state="online")
        task.cancel()
        await watcher.expect(STATUS, state="offline")
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_late_last_will_of_an_earlier_connection_is_contradicted(broker: Broker) -> None:
    async with watching(broker) as watcher, running(broker.address):
        await watcher.expect(STATUS, state="online")
        await watcher.client.publish(STATUS, b'{"state": "offline"}', qos=1, retain=True)
        await watcher.expect(STATUS, state="offline")
        await watcher.expect(STATUS, state="online")


async def test_a_message_that_is_too_large_is_dropped_and_counted(broker: Broker) -> None:
    async with watching(broker) as watcher, running(broker.address) as bus:
        bus.publish(EVENTS, bytes(bus_module.PAYLOAD_BYTES_MAX + 1))
        bus.publish(EVENTS, bytes(bus_module.PAYLOAD_BYTES_MAX))
        message = await watcher.expect(EVENTS)
        assert len(bytes(message.payload)) == bus_module.PAYLOAD_BYTES_MAX
        assert bus.dropped == 1


# --- a broker that is not ---------------------------------------------------------------------------


async def test_a_restarted_broker_is_told_everything_again(broker: Broker, impatient: None) -> None:
    async with running(broker.address) as bus:
        async with watching(broker) as watcher:
            bus.publish(STATE, b"before", retain=True)
            await watcher.expect(STATE, b"before")
        await broker.kill()
        await until(is_away(bus))
        bus.publish(EVENTS, b"meanwhile")
        await broker.start()
        await until(is_connected(bus))
        async with watching(broker) as newcomer:
            await newcomer.expect(STATE, b"before")
        async with watching(broker) as newcomer:
            await newcomer.expect(STATUS, state="online")


async def test_what_was_published_while_the_broker_was_away_arrives(broker: Broker, impatient: None) -> None:
    await broker.kill()
    async with running(broker.address) as bus:
        bus.publish(STATE, b"early", retain=True)
        bus.publish(STATE, b"late", retain=True)
        await broker.start()
        async with watching(broker) as watcher:
            await watcher.expect(STATE, b"late")
    assert b"early" not in [message.payload for message in watcher.seen]


async def test_a_frozen_broker_holds_up_nobody(broker: Broker, impatient: None) -> None:
    sockets_before = open_sockets()
    async with running(broker.address) as bus:
        await until(is_connected(bus))
        broker.freeze()
        began = time.monotonic()
        for number in range(500):
            bus.publish(EVENTS, b"%d" % number)
        assert time.monotonic() - began < AT_ONCE_S
        await until(is_away(bus))  # it gave up waiting, and then cannot connect anew either
        broker.thaw()
        await until(is_connected(bus))
        async with watching(broker) as watcher:
            bus.publish(EVENTS, b"end")
            await watcher.expect(EVENTS, b"end")
            broker.freeze()
            bus.publish(EVENTS, b"never sent")
            began = time.monotonic()
            await bus.close(deadline_s=0.2)
            assert time.monotonic() - began < 0.2 + AT_ONCE_S
            broker.thaw()
            await watcher.expect(STATUS, state="offline")

    async def no_socket_is_left() -> bool:
        return open_sockets() <= sockets_before

    await until(no_socket_is_left)


async def test_without_a_broker_messages_are_bounded_and_the_end_comes_at_once() -> None:
    async with running(f"127.0.0.1:{free_port()}") as bus:
        for number in range(bus_module.QUEUED_MESSAGES_MAX + 10):
            bus.publish(EVENTS, str(number))
        await until(is_away(bus))
        assert bus.dropped == 10
        assert not bus.connected
        began = time.monotonic()
        await bus.close()
        assert time.monotonic() - began < AT_ONCE_S


def test_a_process_ends_at_once_though_its_broker_is_away() -> None:
    async def live() -> None:
        async with running(f"127.0.0.1:{free_port()}") as bus:
            await until(is_away(bus))

    threads_before = threading.active_count()
    began = time.monotonic()
    asyncio.run(live())
    assert time.monotonic() - began < 2 * AT_ONCE_S
    assert threading.active_count() == threads_before


async def test_no_address_means_no_bus() -> None:
    bus = open_bus("", "node1", STATUS)
    assert isinstance(bus, NullBus)
    port: EventBus = bus
    port.clear(STATE)
    task = asyncio.create_task(bus.run())
    bus.publish(STATE, b"nobody sees it", retain=True)
    assert (bus.connected, bus.dropped) == (False, 0)
    await bus.close()
    await asyncio.wait_for(task, DEADLINE_S)


@pytest.mark.parametrize(
    "address", ["broker", ":1883", "broker:", "broker:0", "broker:65536", "broker:x", "a..b:1"]
)
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(FerryError) as raised:
        open_bus(address, "node1", STATUS)
    assert raised.value.refusal.code is ErrorCode.MALFORMED
    assert address in raised.value.refusal.message


def is_connected(bus: BusClient) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bus.connected

    return holds


def is_away(bus: BusClient) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return bus._away_told

    return holds


def open_sockets() -> int:
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += str(descriptor.readlink()).startswith("socket:")
        except FileNotFoundError:  # the folder's own, closed by now
            continue
    return count


# --- the embedded broker as a process ---------------------------------------------------------------


async def start_embedded(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-W", "default", "-m", "ferry_coordinator.broker", *arguments,
        env=ENVIRONMENT, stderr=subprocess.PIPE,
    )  # fmt: skip


async def test_the_embedded_broker_says_where_it_listens_and_ends_at_once(tmp_path: Path) -> None:
    file = tmp_path / "address"
    process = await start_embedded("--address-file", str(file))

    async def is_there() -> bool:
        return file.exists()

    try:
        await until(is_there)
        host, _, port = file.read_text().rpartition(":")
        assert host == "127.0.0.1"
        async with running(f"{host}:{port}") as bus:
            async with watching(Broker("amqtt", tmp_path, int(port))) as watcher:
                bus.publish(EVENTS, b"it serves")
                await watcher.expect(EVENTS, b"it serves")
            process.terminate()
            began = time.monotonic()
            assert process.stderr is not None
            noise = await process.stderr.read()
            assert await process.wait() == 0
            assert time.monotonic() - began < embedded.SHUTDOWN_S + AT_ONCE_S
        assert noise == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_embedded_broker_cuts_off_who_announces_too_much(tmp_path: Path) -> None:
    broker = Broker("amqtt", tmp_path, free_port())
    await broker.start()
    try:
        async with watching(broker) as watcher:
            await watcher.client.publish(EVENTS, bytes(embedded.MESSAGE_BYTES_MAX - 100), qos=1)
            await watcher.expect(EVENTS)
            with pytest.raises(aiomqtt.MqttError):
                await asyncio.gather(
                    watcher.client.publish(EVENTS, bytes(2 * embedded.MESSAGE_BYTES_MAX), qos=1),
                    watcher.expect(EVENTS),
                )
    except aiomqtt.MqttError:
        pass  # the watcher's own farewell finds the connection gone
    finally:
        await broker.kill()


async def test_the_embedded_broker_says_that_its_port_is_taken() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        process = await start_embedded("--listen", f"127.0.0.1:{port}")
        _, message = await process.communicate()
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in message.decode()


async def test_the_embedded_broker_refuses_a_malformed_address() -> None:
    process = await start_embedded("--listen", "somewhere")
    _, message = await process.communicate()
    assert process.returncode == 2
    assert "'somewhere' is not HOST:PORT" in message.decode()
