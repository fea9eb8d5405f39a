"""A link that peers share when NICs have a rate: loopback of a network namespace, held to it by the kernel.

Our own moves pass the NICs of their agents, which hold pages to the rate less the headers that the MTU costs.
Peers know nothing of those. So that all have the same goodput, theirs start behind a loopback whose token
bucket carries just that, and segments as large as loopback has them. QEMU's own `max-bandwidth` would not do:
it counts pages before they are compressed.
"""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ferry_cli.bench.children import Child, child
from ferry_cli.bench.peers import PeerUnavailable
from ferry_types.errors import FerryError, failed
from ferry_types.links import goodput_bytes_per_s

MTU_BYTES = 9000
"""Of the NICs that have a rate: jumbo frames, as live-migration networks have them."""

_LOOPBACK_SHARE = 65_484 / 65_550
"""Payload of what the kernel counts of a full segment: loopback's MTU of 65536, its headers, Ethernet's."""

_BURST_S = 0.001
_BURST_BYTES_MIN = 256 * 1024
_QUEUE_S = 0.01
_TOOLS = ("unshare", "nsenter", "ip", "tc")


def link_goodput_bytes_per_s(rate_bytes_per_s: int) -> float:
    """What a NIC of this rate carries of pages, and so the link of the peers."""
    return goodput_bytes_per_s(rate_bytes_per_s, MTU_BYTES)


def shaping_command(rate_bytes_per_s: int) -> str:
    """What makes the loopback of a network namespace carry a NIC's goodput, as a line for a shell."""
    bits_per_s = round(link_goodput_bytes_per_s(rate_bytes_per_s) / _LOOPBACK_SHARE * 8)
    burst_bytes = max(_BURST_BYTES_MIN, round(rate_bytes_per_s * _BURST_S))
    limit_bytes = burst_bytes + round(rate_bytes_per_s * _QUEUE_S)
    bucket = f"tbf rate {bits_per_s}bit burst {burst_bytes} limit {limit_bytes}"
    return f"ip link set lo up && tc qdisc add dev lo root {bucket}"


@asynccontextmanager
async def shaped_link(rate_bytes_per_s: int) -> AsyncIterator[tuple[str, ...]]:
    """The words that start a command behind such a link, which is gone with the block.

    Raises PeerUnavailable where namespaces cannot be made.
    """
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        hint = "install it: apt-get install iproute2 util-linux"
        raise _unavailable(f"needs {', '.join(missing)}, which is not installed", hint)
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    script = f"{shaping_command(rate_bytes_per_s)} && echo shaped && exec cat"
    async with child("shaped link", ("unshare", *user, "--net", "sh", "-c", script)) as holder:
        await _made(holder)
        spaces = [f"--net=/proc/{holder.pid}/ns/net"]
        if user:
            spaces += [f"--user=/proc/{holder.pid}/ns/user", "--preserve-credentials"]
        yield ("nsenter", *spaces, "--")


async def _made(holder: Child) -> None:
    try:
        await holder.hear()
    except FerryError as error:
        hint = "run as root, or allow user namespaces"
        raise _unavailable(f"cannot be made here: {error.refusal.message}", hint) from error


def _unavailable(what: str, hint: str) -> PeerUnavailable:
    return PeerUnavailable(failed(f"the link of the peers {what}", hint))
