"""Which transport serves which performance option."""

from collections.abc import Callable, Mapping
from typing import Final

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.breakage import Breakage
from ferry_agent.migration.ports import WireOf
from ferry_agent.migration.transports.compressed import CompressedTransport
from ferry_agent.migration.transports.direct import DirectTransport
from ferry_agent.migration.transports.lanes import plan_lanes
from ferry_agent.migration.transports.smb import SmbTransport
from ferry_agent.migration.transports.tcpip import TcpipTransport
from ferry_agent.migration.transports.transport import AttemptParts, CloseLane, SentPages, Transport
from ferry_types.messages import BeginOutgoing
from ferry_types.migrations import TransportOption
from ferry_wire.channels import IdleChannels

_TRANSPORTS: Final[Mapping[TransportOption, Callable[[AttemptParts], Transport]]] = {
    TransportOption.TCPIP: TcpipTransport,
    TransportOption.COMPRESSION: CompressedTransport,
    TransportOption.SMB: SmbTransport,
    TransportOption.DIRECT: DirectTransport,
}


def make_transport(
    order: BeginOutgoing,
    memory: GuestMemory,
    sent_pages: SentPages,
    breakage: Breakage,
    wire_of: WireOf,
    close_lane: CloseLane,
    channels: IdleChannels,
) -> Transport:
    """The transport of an attempt, not yet connected. Without an option it goes by TCP/IP."""
    option = effective_option(order)
    lanes = plan_lanes(option, order.routes, order.target_address)
    parts = AttemptParts(order, lanes, memory, sent_pages, breakage, wire_of, close_lane, channels)
    return _TRANSPORTS[option](parts)


def effective_option(order: BeginOutgoing) -> TransportOption:
    """The cluster has chosen, unless it is of a release that had no choice."""
    return order.options.option or TransportOption.TCPIP
