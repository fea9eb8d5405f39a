"""The UDP port on which this host's guests answer echo requests.

The event loop only reads requests and hands them on; a guest answers from its vCPU's thread, straight through
the socket, so that nothing but the guest is measured. Of a guest that has moved away the port itself says
where to; that is a hint, and no guest has answered. What is too long, malformed or for nobody is dropped:
that is how a network treats it.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from google.protobuf.message import DecodeError

from ferry.v1 import host_pb2
from ferry_agent.guest.vcpu import EchoReply
from ferry_agent.redirects import Redirect
from ferry_types.limits import ECHO_DATAGRAM_BYTES_MAX
from ferry_types.names import validate_name
from ferry_wire.addresses import Address, cannot_listen, parse_address

Submit = Callable[[str, int, Callable[[EchoReply], None]], None]
"""Takes VM name, sequence number and the callback for the guest's answer. Must not block."""


MovedTo = Callable[[str], Redirect | None]
"""Takes a VM's name; where it answers if it has moved away. Must not block."""


class EchoPort(asyncio.DatagramProtocol):
    """One UDP socket; requests are dropped until ``serve``."""

    def __init__(self, bound: socket.socket, address: Address) -> None:
        self.address = str(address)
        """``host:port`` as bound."""
        self._socket = bound
        self._submit: Submit = lambda _vm, _sequence, _reply: None
        self._moved_to: MovedTo = lambda _vm: None

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

    def serve(self, submit: Submit, moved_to: MovedTo) -> None:
        """Hand requests to ``submit`` from now on, but for VMs that have moved away."""
        self._submit, self._moved_to = submit, moved_to

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Take one request."""
        if len(data) > ECHO_DATAGRAM_BYTES_MAX:
            return
        try:
            request = host_pb2.EchoRequest.FromString(data)
            vm = validate_name(request.vm)
        except (DecodeError, ValueError):
            return
        bound = self._socket
        redirect = self._moved_to(vm)
        if redirect is not None:
            away = host_pb2.EchoReply(
                vm=vm, sequence=request.sequence, epoch=redirect.epoch, moved_to=redirect.address
            )
            with suppress(OSError):  # a lost datagram
                bound.sendto(away.SerializeToString(), addr)
            return

        def reply(answer: EchoReply) -> None:
            # From the vCPU's thread: sendto is one system call, and sockets may be shared by threads. It does
            # not block; a full buffer raises OSError, which the vCPU takes for a lost datagram.
            message = host_pb2.EchoReply(
                vm=vm,
                sequence=answer.sequence,
                epoch=answer.epoch,
                boot_epoch=answer.boot_epoch,
                step=answer.step,
            )
            bound.sendto(message.SerializeToString(), addr)

        self._submit(vm, request.sequence, reply)


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
