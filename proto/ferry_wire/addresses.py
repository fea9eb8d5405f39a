"""Addresses of processes: ``host:port``, where host is a name, an IPv4 address or an IPv6 one in brackets."""

import errno
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ferry_types.errors import FerryError, failed, malformed

PORT_MAX = 65_535

_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_LOOKS_NUMERIC = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process listens or shall listen. ``host`` bears no brackets; port 0: any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """``host:port``, with brackets about an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address; None if it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every interface, and so nothing that a peer could connect to."""
        return self.ip is not None and self.ip.is_unspecified


def parse_address(text: str, what: str = "address", *, any_port: bool = False) -> Address:
    """Read ``127.0.0.1:7000``, ``[::1]:7000`` or ``host.example:7000``.

    ``what`` names the value in the message; ``any_port`` admits port 0, for servers that take a free one.
    Raises FerryError (malformed).
    """
    host, colon, port_text = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    address = Address(host[1:-1] if bracketed else host, int(port_text) if _is_port(port_text) else -1)
    if not colon or address.port < 0 or not _is_host(address, bracketed=bracketed):
        raise FerryError(
            malformed(
                f"{what} {text[:300]!r} is not host:port",
                "write for example 127.0.0.1:7000, host1.example:7000 or [::1]:7000",
            )
        )
    if address.port == 0 and not any_port:
        raise FerryError(malformed(f"{what} {text!r} has port 0", f"give a port from 1 to {PORT_MAX}"))
    return address


def cannot_listen(address: Address, protocol: str, error: OSError) -> FerryError:
    """What to tell about a port (``protocol``: TCP or UDP) that could not be bound."""
    match error.errno:
        case errno.EADDRINUSE:
            what = f"port {address.port} on {address.host} is in use ({protocol})"
            hint = "stop the process that has it, or choose another port (0: any free one)"
        case errno.EACCES:
            what = f"port {address.port} on {address.host} may not be taken ({protocol}): permission denied"
            hint = "choose a port from 1024 on (0: any free one)"
        case errno.EADDRNOTAVAIL:
            what = f"cannot listen on {address}: {address.host} is not an address of this machine"
            hint = "choose one of its own addresses, or 127.0.0.1"
        case _:
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or error
            what = f"cannot listen on {address} ({protocol}): {reason}"
            hint = "check the address"
    return FerryError(failed(what, hint))


def announce_address(address_file: Path | None, address: str) -> None:
    """Put an address into a file at once, so that nobody reads half of it; without a file do nothing.

    Raises FerryError if the file cannot be written.
    """
    if address_file is None:
        return
    draft = address_file.with_name(f".{address_file.name}.{os.getpid()}")
    try:
        draft.write_text(address, encoding="ascii")
        draft.replace(address_file)
    except OSError as error:
        what = f"the address file {address_file} cannot be written: {error.strerror}"
        raise FerryError(failed(what, "name another one (--address-file)")) from error


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= PORT_MAX


def _is_host(address: Address, *, bracketed: bool) -> bool:
    if address.ip is not None:
        return bracketed == (address.ip.version == 6)
    # Four numbers too large for an IPv4 address are a slip of the pen, not a name.
    numeric = _LOOKS_NUMERIC.fullmatch(address.host) is not None
    return not bracketed and not numeric and _HOSTNAME.fullmatch(address.host) is not None
