"""Where the agent is reached by its NICs: one server at each address, as long as the NIC is up.

The agent's own address (``--listen``) is none of them. It answers whatever is down, so that there is a way to
bring a NIC up again, as a management controller would be.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from ferry_agent.network.nics import Nics
from ferry_types.networks import Nic
from ferry_wire.addresses import Address, parse_address
from ferry_wire.servers import BoundServer, create_server

Offer = Callable[[BoundServer], None]
"""Adds the servicers of what is offered to a server that does not run yet."""

_log = structlog.get_logger("network")


def nic_address(nic: Nic, own_address: str) -> str:
    """Where an agent is reached by a NIC (``host:port``): the port is that of its own address."""
    return str(Address(nic.address, parse_address(own_address).port))


class NicListeners:
    """The servers by NIC. ``turn`` is how a NIC goes down and comes up."""

    def __init__(self, nics: Nics, own_address: str, protos: Iterable[Any], offer: Offer) -> None:
        """``own_address``: the agent's, as bound; NICs listen on the same port."""
        self._nics = nics
        self._own_address = own_address
        self._protos = tuple(protos)
        self._offer = offer
        self._servers: dict[str, BoundServer] = {}
        self._one_at_a_time = asyncio.Lock()

    async def open(self) -> None:
        """Listen on all NICs. Raises FerryError, and listens on none, if an address is not to be had."""
        try:
            for nic in self._nics.all:
                self._bind(nic)
            for server in self._servers.values():
                await server.start()
        except BaseException:
            await self.close()
            raise

    async def turn(self, name: str, *, up: bool) -> None:
        """Take a NIC down, which cuts what passes it, or bring it up.

        Raises FerryError: there is no such NIC, or its address is not to be had any more; then it stays down.
        """
        async with self._one_at_a_time:
            if self._nics.is_up(name) is up:
                return
            if up:
                self._bind(self._nics.get(name))
                await self._servers[name].start()
                self._nics.turn(name, up=True)
            else:
                self._nics.turn(name, up=False)
                await self._servers.pop(name).stop(grace_s=0)
            _log.info("a NIC was turned", nic=name, up=up)

    async def close(self) -> None:
        """Listen no more."""
        servers, self._servers = self._servers, {}
        await asyncio.gather(*(server.stop() for server in servers.values()))

    def _bind(self, nic: Nic) -> None:
        server = create_server(nic_address(nic, self._own_address), self._protos)
        self._offer(server)
        self._servers[nic.name] = server
