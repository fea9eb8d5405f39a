"""The streams of the nodes: what hosts say goes to the driver, its orders go back.

A stream is known by its number, which is never used twice in a process's life. Orders that a broken or
overflowing stream swallows are repeated when the host joins again.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from ferry.v1 import membership_pb2, membership_pb2_grpc
from ferry_cluster.inputs import DeathCertified, HostMessage
from ferry_coordinator.driver import Driver
from ferry_types.errors import FerryError, Refusal, malformed
from ferry_types.messages import DeathCertificate, HostOrder, Join
from ferry_wire.conversion import from_proto
from ferry_wire.envelopes import host_envelope_from_proto, host_order_to_proto
from ferry_wire.servers import StreamOutbox

JOIN_DEADLINE_S = 10.0
"""A stream whose first message takes longer is ended."""

ORDERS_QUEUED_MAX = 4096
"""Orders that wait on one stream: a node with the most VMs that an era allows (1,024), a few for each."""

CAUSE_CHARACTERS_MAX = 200

_Context = grpc.aio.ServicerContext[Any, Any]


class NodeStreams:
    """The open streams by their numbers: where the driver sends orders to."""

    def __init__(self) -> None:
        self._outboxes: dict[int, StreamOutbox[HostOrder]] = {}
        self._numbers = itertools.count(1)
        self._closed: Refusal | None = None

    def open(self) -> tuple[int, StreamOutbox[HostOrder]]:
        """A new stream. Raises FerryError after ``close``."""
        if self._closed is not None:
            raise FerryError(self._closed)
        stream = next(self._numbers)
        self._outboxes[stream] = StreamOutbox(ORDERS_QUEUED_MAX, f"order stream {stream}")
        return stream, self._outboxes[stream]

    def drop(self, stream: int) -> None:
        """A stream has ended."""
        del self._outboxes[stream]

    def send(self, stream: int, order: HostOrder) -> None:
        """Queue an order on a stream, if it is still there."""
        outbox = self._outboxes.get(stream)
        if outbox is not None:
            outbox.put(order)

    def end(self, stream: int, reason: Refusal) -> None:
        """End a stream after what is queued on it, if it is still there."""
        outbox = self._outboxes.get(stream)
        if outbox is not None:
            outbox.close(reason)

    def close(self, reason: Refusal) -> None:
        """End all streams, and refuse new ones."""
        self._closed = reason
        for outbox in self._outboxes.values():
            outbox.close(reason)


class MembershipService(membership_pb2_grpc.MembershipServicer):
    """One call per node, as long as the node is connected."""

    def __init__(self, driver: Driver, streams: NodeStreams) -> None:
        self._driver = driver
        self._streams = streams

    async def Attend(
        self, request_iterator: AsyncIterator[membership_pb2.FromHost], _context: _Context
    ) -> AsyncIterator[membership_pb2.ToHost]:
        """Take a node's messages and send it orders, until either side ends it."""
        stream, outbox = self._streams.open()
        hearing = asyncio.create_task(self._hear(stream, request_iterator))
        hearing.add_done_callback(lambda _: outbox.close())
        try:
            async for order in outbox:
                yield host_order_to_proto(order)
            await hearing  # nothing more is to be sent because the node said its last, or something malformed
        finally:
            hearing.cancel()
            self._streams.drop(stream)
            self._driver.stream_closed(stream)

    async def CertifyDeath(
        self, request: membership_pb2.DeathCertificate, _context: _Context
    ) -> membership_pb2.DeathNoted:
        """Note that a life of a node's agent is over; answered once its VMs have been given to others."""
        certificate = from_proto(request, DeathCertificate)
        if len(certificate.cause) > CAUSE_CHARACTERS_MAX:
            raise FerryError(malformed(f"a cause of death has more than {CAUSE_CHARACTERS_MAX} characters"))
        await self._driver.submit(DeathCertified(certificate))
        return membership_pb2.DeathNoted()

    async def _hear(self, stream: int, messages: AsyncIterator[membership_pb2.FromHost]) -> None:
        """Hand in message by message, each once the one before has been dealt with.

        Raises FerryError: a message is malformed, the first one is not Join or does not come.
        """
        try:
            async with asyncio.timeout(JOIN_DEADLINE_S):
                first = await anext(messages, None)
        except TimeoutError:
            late = f"the stream's first message did not come within {JOIN_DEADLINE_S:.0f} s"
            raise FerryError(malformed(late)) from None
        if first is None:
            return
        joining = host_envelope_from_proto(first)
        if not isinstance(joining.body, Join):
            raise FerryError(malformed("the stream's first message is not Join"))
        await self._driver.submit(HostMessage(stream, joining))
        async for message in messages:
            await self._driver.submit(HostMessage(stream, host_envelope_from_proto(message)))
