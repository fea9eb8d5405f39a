"""``vm ping`` against guests that a test plays: it follows them, counts, and notices an old image."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ferry.v1.host_pb2 import EchoReply, EchoRequest
from ferry_cli.echo import EchoClient
from ferry_types.errors import FerryError


@dataclass
class Guest(asyncio.DatagramProtocol):
    """Answers as ``answer`` says; None is silence."""

    answer: Callable[[EchoRequest], EchoReply | None]
    heard: int = 0
    transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard += 1
        reply = self.answer(EchoRequest.FromString(data))
        if reply is not None:
            self.transport.sendto(reply.SerializeToString(), addr)

    @property
    def address(self) -> str:
        return "127.0.0.1:" + str(self.transport.get_extra_info("sockname")[1])


@asynccontextmanager
async def guest(answer: Callable[[EchoRequest], EchoReply | None]) -> AsyncIterator[Guest]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(
        lambda: Guest(answer), local_addr=("127.0.0.1", 0)
    )
    yield protocol
    transport.close()


def steps(request: EchoRequest) -> EchoReply:
    return EchoReply(vm=request.vm, sequence=request.sequence, epoch=1, boot_epoch=1, step=request.sequence)


def falling(request: EchoRequest) -> EchoReply:
    reply = steps(request)
    reply.step = 1000 - request.sequence
    return reply


def every_other(request: EchoRequest) -> EchoReply | None:
    return steps(request) if request.sequence % 2 else None


def silent(_: EchoRequest) -> None:
    return None


async def test_a_guest_that_answers_loses_nothing(ferry: Any, cluster: Any, vm: Any) -> None:
    async with guest(steps) as there:
        cluster.vms = [vm("a", echo_address=there.address)]
        ran = await ferry("vm", "ping", "a", "--count", "20", "-o", "json")
    assert ran.code == 0
    assert {"sent": 20, "received": 20, "lost": 0, "steps_fell": 0}.items() <= ran.document.items()
    assert 0 < ran.document["longest_gap_s"] < 5


async def test_lost_answers_are_counted(ferry: Any, cluster: Any, vm: Any) -> None:
    async with guest(every_other) as there:
        cluster.vms = [vm("a", echo_address=there.address)]
        ran = await ferry("vm", "ping", "a", "--count", "20", "-o", "json")
    assert (ran.code, ran.document["received"], ran.document["lost"]) == (0, 10, 10)


async def test_a_step_counter_that_falls_is_exit_1(ferry: Any, cluster: Any, vm: Any) -> None:
    async with guest(falling) as there:
        cluster.vms = [vm("a", echo_address=there.address)]
        ran = await ferry("vm", "ping", "a", "--count", "5", "-o", "json")
    assert (ran.code, ran.document["steps_fell"]) == (1, 4)


async def test_silence_is_exit_1(ferry: Any, cluster: Any, vm: Any) -> None:
    async with guest(silent) as there:
        cluster.vms = [vm("a", echo_address=there.address)]
        ran = await ferry("vm", "ping", "a", "--count", "3", "-o", "json")
    assert ran.code == 1
    assert ran.document == {"sent": 3, "received": 0, "lost": 3, "longest_gap_s": None, "steps_fell": 0}


async def test_ping_follows_a_guest_that_moves(ferry: Any, cluster: Any, vm: Any) -> None:
    async with guest(steps) as before, guest(steps) as after:
        cluster.vms = [vm("a", echo_address=before.address)]
        process = await ferry.start("vm", "ping", "a", "-o", "json")
        async with asyncio.timeout(20):
            while not before.heard:  # noqa: ASYNC110 - with a deadline
                await asyncio.sleep(0.01)
            cluster.vms = [vm("a", node="n2", epoch=2, echo_address=after.address)]
            cluster.more.set()
            while not after.heard:  # noqa: ASYNC110 - with a deadline
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    report = json.loads(out)
    assert process.returncode == 0
    assert report["received"] > 0
    assert report["sent"] == report["received"] + report["lost"]
    assert b"a is on n2 (epoch 2)" in err


async def test_a_vm_that_is_off_or_unknown_is_not_pinged(ferry: Any, cluster: Any, vm: Any) -> None:
    cluster.vms = [vm("a", "off")]
    assert (await ferry("vm", "ping", "a", "--count", "1")).code == 5
    assert (await ferry("vm", "ping", "nobody", "--count", "1")).code == 4


async def test_the_client_refuses_an_address_that_is_none() -> None:
    async with EchoClient("a") as client:
        with pytest.raises(FerryError):
            await client.aim("nowhere")
