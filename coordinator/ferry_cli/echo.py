"""Echo requests to a guest: does it answer, how long does it not, and does its step counter fall?

The guest itself answers, on its host's UDP port, so that a paused guest is silent. A whole image that is
stale is consistent in itself; that is why answers carry the guest's step counter, which falls only when
the guest boots anew.

A guest that has moved is found in two ways: the coordinator's stream says where it is, and the host that it
left answers for some time with a redirect. A redirect is a hint and no answer. It is followed if its epoch is
later than that of the place where requests go and than any that a guest has answered under: none leads back.
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
from ferry_types.errors import FerryError
from ferry_wire.addresses import parse_address

Endpoint = Any
"""An address as the socket module has it: its shape depends on the family."""

REPLY_TIMEOUT_S = 1.0
"""Answers that take longer are lost."""

REDIRECTS_PER_REQUEST_MAX = 4
"""Times that one request goes out again: who moves more often within a second is not to be caught up with."""

_SETTLE_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class EchoReport:
    """What became of the requests. ``longest_gap_s``: None if no answer came at all."""

    sent: int
    received: int
    lost: int
    longest_gap_s: float | None
    steps_fell: int


@dataclass(slots=True)
class _Request:
    """One that is still open; ``sent_again`` counts how often it followed a redirect."""

    asked_at: float
    sent_again: int = 0


class EchoBooks:
    """Keeps count of requests and answers; times are seconds of any one monotonic clock.

    A gap is a time without an answer: from the first request to the first answer, between two answers, and
    from the last answer to the last request that was not answered.
    """

    def __init__(self) -> None:
        self._pending: dict[int, _Request] = {}
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
        self._pending[self._sequence] = _Request(now)
        if self._heard_at is None:
            self._heard_at = now
        return self._sequence

    def answer(self, reply: EchoReply, now: float) -> None:
        """Note an answer; one that comes twice, or after its request was given up, does not count."""
        request = self._pending.pop(reply.sequence, None)
        if request is None:
            return
        if now - request.asked_at > REPLY_TIMEOUT_S:
            self._lose(request.asked_at)
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

    def send_again(self, sequence: int) -> bool:
        """Whether a request that was redirected may go out again: it is open, and has not gone too often.

        It stays the same request, asked when it was first asked.
        """
        request = self._pending.get(sequence)
        if request is None or request.sent_again == REDIRECTS_PER_REQUEST_MAX:
            return False
        request.sent_again += 1
        return True

    def give_up(self, now: float) -> None:
        """Count requests as lost whose answers are too late by now."""
        late = [
            number for number, request in self._pending.items() if now - request.asked_at > REPLY_TIMEOUT_S
        ]
        for number in late:
            self._lose(self._pending.pop(number).asked_at)

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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a guest answers, and under which epoch; 0: nobody has said."""

    address: str
    epoch: int


class EchoClient(asyncio.DatagramProtocol):
    """Sends requests to one guest, wherever ``aim`` or a redirect says that it is.

    A context, which owns its sockets.
    """

    def __init__(self, vm: str) -> None:
        self.vm = vm
        self.books = EchoBooks()
        self._aim = _Place("", 0)
        self._target: tuple[asyncio.DatagramTransport, Endpoint] | None = None
        self._transports: dict[int, asyncio.DatagramTransport] = {}
        self._heard_epoch = 0
        """The latest that a guest has answered under."""
        self._hint: _Place | None = None
        """Where the redirect leads that is being followed."""
        self._redirected: list[int] = []
        """Open requests that go out again once it has been followed."""
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._following is not None:
            self._following.cancel()
        for transport in self._transports.values():
            transport.close()

    async def aim(self, address: str, epoch: int = 0) -> None:
        """Send to ``HOST:PORT`` from now on; an empty address changes nothing. Raises FerryError, OSError.

        ``epoch``: under which the guest is there, 0 if unknown. An older one than a guest has answered under
        is late news, and changes nothing either.
        """
        if not address or 0 < epoch < self._heard_epoch:
            return
        if address != self._aim.address:
            self._target = await self._reach(address)
        self._aim = _Place(address, epoch)

    async def _reach(self, address: str) -> tuple[asyncio.DatagramTransport, Endpoint]:
        """A socket, and that address as it takes it. Raises FerryError, OSError."""
        loop = asyncio.get_running_loop()
        peer = parse_address(address)
        family, _, _, _, endpoint = (await loop.getaddrinfo(peer.host, peer.port, type=socket.SOCK_DGRAM))[0]
        if family not in self._transports:
            self._transports[family], _ = await loop.create_datagram_endpoint(lambda: self, family=family)
        return self._transports[family], endpoint

    def datagram_received(self, data: bytes, addr: Endpoint) -> None:
        """Called by asyncio with each answer."""
        try:
            reply = EchoReply.FromString(data)
        except DecodeError:
            return
        if reply.vm != self.vm:
            return
        if reply.moved_to:
            self._redirect(reply.sequence, _Place(reply.moved_to, reply.epoch), addr)
        else:
            self._heard_epoch = max(self._heard_epoch, reply.epoch)
            self.books.answer(reply, time.monotonic())

    def _redirect(self, sequence: int, to: _Place, came_from: Endpoint) -> None:
        """Follow a redirect, and send that request there; others that are under way get the same redirect."""
        hinted_epoch = 0 if self._hint is None else self._hint.epoch
        is_news = to.epoch > max(self._aim.epoch, self._heard_epoch, hinted_epoch)
        if not (is_news or to in (self._hint, self._aim)) or not self.books.send_again(sequence):
            return
        if is_news:
            self._redirected.append(sequence)
            if self._following is not None:
                self._following.cancel()
            self._hint = to
            self._following = asyncio.create_task(self._follow(to, came_from))
        elif to == self._hint:
            self._redirected.append(sequence)
        else:
            self._transmit(sequence)

    async def _follow(self, to: _Place, came_from: Endpoint) -> None:
        """Aim where a redirect leads, unless that is where it came from, or newer things are known by now."""
        try:
            reached = await self._reach(to.address)
        except (FerryError, OSError):
            reached = None  # it leads nowhere: those requests are lost
        self._hint = None
        sequences, self._redirected = self._redirected, []
        if reached is None or reached[1][:2] == came_from[:2] or to.epoch <= self._aim.epoch:
            return
        self._aim, self._target = to, reached
        for sequence in sequences:
            self._transmit(sequence)

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
        self._transmit(self.books.request(now))

    def _transmit(self, sequence: int) -> None:
        if self._target is not None:
            transport, endpoint = self._target
            transport.sendto(EchoRequest(vm=self.vm, sequence=sequence).SerializeToString(), endpoint)


async def follow(admin: AdminStub, client: EchoClient, on_change: Callable[[admin_pb2.Vm], None]) -> None:
    """Aim at the VM as it moves, until it is removed; the last address holds while the coordinator is away.

    Raises AioRpcError if the coordinator refuses, for example because there is no such VM.
    """
    request = admin_pb2.VmRequest(name=client.vm)
    async for vm in watch(lambda: admin.WatchVm(request), away_s=math.inf):
        await client.aim(vm.echo_address, vm.epoch)
        on_change(vm)
