"""The UDP port on which this host's guests answer echo requests.

The event loop only reads requests and hands them on; a guest answers from its vCPU's thread, straight through
the socket, so that nothing but the guest is measured. Where the host has a NIC of a network for clients,
requests and answers pass it first. Of a guest that has moved away the port itself says where to; that is a
hint, and no guest has answered. What is too long, malformed or for nobody is dropped: that is how a network
treats it.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from ferry.v1 import host_pb2
from ferry_agent.guest.vcpu import EchoReply
from ferry_agent.network.guest_way import GuestWay
from ferry_agent.redirects import Redirect
from ferry_types.limits import ECHO_DATAGRAM_BYTES_MAX
from ferry_types.names import validate_name
from ferry_wire.addresses import Address, cannot_listen, parse_address

Submit = Callable[[str, int, Callable[[EchoReply], None]], None]
"""Takes VM name, sequence number and the callback for the guest's answer. Must not block."""


MovedTo = Callable[[str], Redirect | None]
"""Takes a VM's name; where it answers if it has moved away. Must not block."""

WayOf = Callable[[], GuestWay | None]
"""The NIC by which requests come and answers go now; None: they pass as they are."""


class EchoPort(asyncio.DatagramProtocol):
    """One UDP socket; requests are dropped until ``serve``."""

    def __init__(self, bound: socket.socket, address: Address) -> None:
        self.address = str(address)
        """``host:port`` as bound."""
        self._socket = bound
        self._submit: Submit = lambda _vm, _sequence, _reply: None
        self._moved_to: MovedTo = lambda _vm: None
        self._way_of: WayOf = lambda: None

    @classmethod
    @asynccontextmanager
    async def open(cls, listen: str) -> "AsyncIterator[EchoPort]":
        """Bind ``listen`` (``host:port``, port 0: any free one), and close it at the end.

        Stop the guests before: they answer through the socket. Raises FerryError: a malformed address, or a
        port that is not to be had.
        """
        wanted = parse_address(listen, "echo address", any_port=True)
        loop = asyncio.get_running_loop()
        try:
            bound = await _bind(wanted)
        except OSError as error:
            raise cannot_listen(wanted, "UDP", error) from error
        address = Address(wanted.host, bound.getsockname()[1])
        transport, port = await loop.create_datagram_endpoint(lambda: cls(bound, address), sock=bound)
        try:
            yield port
        finally:
            transport.close()

    def serve(self, submit: Submit, moved_to: MovedTo, way_of: WayOf = lambda: None) -> None:
        """Hand requests to ``submit`` from now on, but for VMs that have moved away."""
        self._submit, self._moved_to, self._way_of = submit, moved_to, way_of

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take one request."""
        if len(data) > ECHO_DATAGRAM_BYTES_MAX:
            return
        try:
            request = host_pb2.EchoRequest.FromString(data)
            vm = validate_name(request.vm)
        except (DecodeError, ValueError):
            return
        way = self._way_of()
        if way is None:
            self._take(vm, request.sequence, partial(self._send, addr))
        else:
            answer = partial(self._send_by, way, addr)
            way.arrive(len(data), partial(self._take, vm, request.sequence, answer))

    def _take(self, vm: str, sequence: int, send: Callable[[host_pb2.EchoReply], None]) -> None:
        redirect = self._moved_to(vm)
        if redirect is not None:
            with suppress(OSError):  # a lost datagram
                send(
                    host_pb2.EchoReply(
                        vm=vm, sequence=sequence, epoch=redirect.epoch, moved_to=redirect.address
                    )
                )
            return

        def reply(answer: EchoReply) -> None:
            # From the vCPU's thread: sendto is one system call, and sockets may be shared by threads. It does
            # not block; a full buffer raises OSError, which the vCPU takes for a lost datagram.
            send(
                host_pb2.EchoReply(
                    vm=vm,
                    sequence=answer.sequence,
                    epoch=answer.epoch,
                    boot_epoch=answer.boot_epoch,
                    step=answer.step,
                )
            )

        self._submit(vm, sequence, reply)

    def _send(self, addr: Any, message: host_pb2.EchoReply) -> None:
        self._send_data(message.SerializeToString(), addr)

    def _send_by(self, way: GuestWay, addr: Any, message: host_pb2.EchoReply) -> None:
        data = message.SerializeToString()
        way.leave(len(data), partial(self._send_data, data, addr))

    def _send_data(self, data: bytes, addr: Any) -> None:
        self._socket.sendto(data, addr)


async def _bind(address: Address) -> socket.socket:
    """A non-blocking UDP socket. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host, address.port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, where = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setblocking(False)
        bound.bind(where)
    except OSError:
        bound.close()
        raise
    return bound
