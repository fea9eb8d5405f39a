"""Addresses of NICs that a file leaves out: a lab deals out those of this machine's loopback.

All of 127.0.0.0/8 is this machine on Linux, so that every NIC of a lab gets an address of its own: of its
network's subnet, or 127.1.HOST.NIC.
"""

import ipaddress
from collections.abc import Iterator
from typing import Final

from ferry_sim.scenarios.wiring import Wiring

LOOPBACK: Final = ipaddress.IPv4Network("127.0.0.0/8")

OWN: Final = "127.0.0.1"
"""Where the processes of a lab listen themselves."""

Owner = tuple[str, str]
"""A host and a NIC of it."""


class NoAddressLeft(Exception):
    """A subnet is used up, or is none that a lab could deal out of."""

    def __init__(self, owner: Owner, what: str) -> None:
        super().__init__(what)
        self.owner = owner
        self.what = what


def deal(wiring: Wiring) -> dict[Owner, str]:
    """The address of every NIC. Raises NoAddressLeft."""
    dealt = {
        (host, name): nic.address
        for host, described in wiring.hosts.items()
        for name, nic in described.nics.items()
        if nic.address is not None
    }
    taken = {OWN, *dealt.values()}
    for number, (host, described) in enumerate(wiring.hosts.items(), start=1):
        for index, (name, nic) in enumerate(described.nics.items(), start=1):
            if (host, name) in dealt:
                continue
            network = wiring.networks.get(nic.network)
            subnet = network.subnet if network is not None else None
            free = _of_subnet((host, name), subnet) if subnet else _of_host(number, index)
            address = next((each for each in free if each not in taken), None)
            if address is None:
                raise NoAddressLeft((host, name), f"subnet {subnet} has no address left for it")
            taken.add(address)
            dealt[host, name] = address
    return dealt


def _of_host(number: int, index: int) -> Iterator[str]:
    """127.1.HOST.NIC, and the others of that host if somebody has it."""
    for last in (*range(index, 255), *range(1, index)):
        yield f"127.1.{number}.{last}"


def _of_subnet(owner: Owner, text: str) -> Iterator[str]:
    subnet = ipaddress.ip_network(text)
    if not (isinstance(subnet, ipaddress.IPv4Network) and subnet.subnet_of(LOOPBACK)):
        raise NoAddressLeft(
            owner, f"give it an address: a lab deals out those of {LOOPBACK}, and not of {subnet}"
        )
    for address in subnet.hosts():
        yield str(address)
