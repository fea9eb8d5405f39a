"""Echo requests to a guest: does it answer, how long does it not, and does its step counter fall?

The guest itself answers, on its host's UDP port, so that a paused guest is silent. A whole image that is
stale is consistent in itself; that is why answers carry the guest's step counter, which falls only when
the guest boots anew.
"""

import asyncio
import math
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from google.protobuf.message import DecodeError

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry.v1.host_pb2 import EchoReply, EchoRequest
from ferry_cli.admin import watch
from ferry_wire.addresses import parse_address

Endpoint = Any
"""An address as the socket module has it: its shape depends on the family."""

REPLY_TIMEOUT_S = 1.0
"""Answers that take longer are lost."""

_SETTLE_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class EchoReport:
    """What became of the requests. ``longest_gap_s``: None if no answer came at all."""

    sent: int
    received: int
    lost: int
    longest_gap_s: float | None
    steps_fell: int


class EchoBooks:
    """Keeps count of requests and answers; times are seconds of any one monotonic clock.

    A gap is a time without an answer: from the first request to the first answer, between two answers, and
    from the last answer to the last request that was not answered.
    """

    def __init__(self) -> None:
        self._pending: dict[int, float] = {}
        self._sequence = 0
        self._lost_at: float | None = None
        self._heard_at: float | None = None
        self._longest_gap_s = 0.0
        self._newest = 0
        self._boot_epoch = 0
        self._step = 0
        self.sent = 0
        self.received = 0
        self.lost = 0
        self.steps_fell = 0

    def request(self, now: float) -> int:
        """Note a request; returns its sequence number."""
        self.sent += 1
        self._sequence += 1
        self._pending[self._sequence] = now
        if self._heard_at is None:
            self._heard_at = now
        return self._sequence

    def answer(self, reply: EchoReply, now: float) -> None:
        """Note an answer; one that comes twice, or after its request was given up, does not count."""
        asked_at = self._pending.pop(reply.sequence, None)
        if asked_at is None:
            return
        if now - asked_at > REPLY_TIMEOUT_S:
            self._lose(asked_at)
            return
        self.received += 1
        if self._heard_at is not None:
            self._longest_gap_s = max(self._longest_gap_s, now - self._heard_at)
        self._heard_at = now
        if reply.sequence < self._newest:
            return  # overtaken on the way: it tells of an earlier moment
        # An older boot that answers a newer request is an older image that runs: that is a fall, too.
        if (reply.boot_epoch, reply.step) < (self._boot_epoch, self._step):
            self.steps_fell += 1
        self._newest, self._boot_epoch, self._step = reply.sequence, reply.boot_epoch, reply.step

    def give_up(self, now: float) -> None:
        """Count requests as lost whose answers are too late by now."""
        late = [number for number, asked_at in self._pending.items() if now - asked_at > REPLY_TIMEOUT_S]
        for number in late:
            self._lose(self._pending.pop(number))

    def report(self) -> EchoReport:
        """The count up to now. Requests that are still open are neither received nor lost."""
        gap_s = self._longest_gap_s
        if self._lost_at is not None and self._heard_at is not None:
            gap_s = max(gap_s, self._lost_at - self._heard_at)
        known = gap_s if self.received else None
        return EchoReport(self.sent, self.received, self.lost, known, self.steps_fell)

    def count_anew(self) -> None:
        """Start the counts at 0, without forgetting when the last answer came and what it said."""
        self._pending.clear()
        self._lost_at = None
        self._longest_gap_s = 0.0
        self.sent = self.received = self.lost = self.steps_fell = 0

    def open_requests(self) -> int:
        """Requests that may still be answered."""
        return len(self._pending)

    def _lose(self, asked_at: float) -> None:
        self.lost += 1
        self._lost_at = max(asked_at, self._lost_at or asked_at)


class EchoClient(asyncio.DatagramProtocol):
    """Sends requests to one guest, wherever ``aim`` says that it is. A context, which owns its sockets."""

    def __init__(self, vm: str) -> None:
        self.vm = vm
        self.books = EchoBooks()
        self._address = ""
        self._target: tuple[asyncio.DatagramTransport, Endpoint] | None = None
        self._transports: dict[int, asyncio.DatagramTransport] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for transport in self._transports.values():
            transport.close()

    async def aim(self, address: str) -> None:
        """Send to ``HOST:PORT`` from now on; an empty address changes nothing. Raises FerryError, OSError."""
        if not address or address == self._address:
            return
        loop = asyncio.get_running_loop()
        peer = parse_address(address)
        family, _, _, _, endpoint = (await loop.getaddrinfo(peer.host, peer.port, type=socket.SOCK_DGRAM))[0]
        if family not in self._transports:
            self._transports[family], _ = await loop.create_datagram_endpoint(lambda: self, family=family)
        self._address, self._target = address, (self._transports[family], endpoint)

    def datagram_received(self, data: bytes, addr: Endpoint) -> None:  # noqa: ARG002 - asyncio's signature
        """Called by asyncio with each answer."""
        try:
            reply = EchoReply.FromString(data)
        except DecodeError:
            return
        if reply.vm == self.vm:
            self.books.answer(reply, time.monotonic())

    def error_received(self, exc: Exception) -> None:
        """Called by asyncio when nobody listens there any more: the request will count as lost."""

    async def ping(self, count: int, interval_s: float) -> None:
        """Send ``count`` requests (0: until cancelled), one every ``interval_s``, and await the answers."""
        due = time.monotonic()
        for _ in range(count) if count else iter(int, 1):
            self._send()
            due = max(due + interval_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
        await self.settle()

    async def settle(self) -> None:
        """Wait for the answers that may still come."""
        deadline = time.monotonic() + REPLY_TIMEOUT_S
        while self.books.open_requests() and time.monotonic() < deadline:  # noqa: ASYNC110 - with a deadline
            await asyncio.sleep(_SETTLE_POLL_S)
        self.books.give_up(math.inf)

    def _send(self) -> None:
        now = time.monotonic()
        self.books.give_up(now)
        sequence = self.books.request(now)
        if self._target is not None:
            transport, endpoint = self._target
            transport.sendto(EchoRequest(vm=self.vm, sequence=sequence).SerializeToString(), endpoint)


async def follow(admin: AdminStub, client: EchoClient, on_change: Callable[[admin_pb2.Vm], None]) -> None:
    """Aim at the VM as it moves, until it is removed; the last address holds while the coordinator is away.

    Raises AioRpcError if the coordinator refuses, for example because there is no such VM.
    """
    request = admin_pb2.VmRequest(name=client.vm)
    async for vm in watch(lambda: admin.WatchVm(request), away_s=math.inf):
        await client.aim(vm.echo_address)
        on_change(vm)
