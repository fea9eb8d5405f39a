"""Connections to other processes of the product: gRPC over plain TCP, bounded, without proxies."""

from typing import Final

import grpc.aio

from ferry_types.limits import MESSAGE_BYTES_MAX
from ferry_wire.addresses import parse_address

METADATA_BYTES_MAX: Final = 16 * 2**10
"""Largest metadata of a call; a status with its refusal packed inside travels there."""

KEEPALIVE_INTERVAL_MS: Final = 10_000
"""A connection that is silent for so long is asked for a sign of life."""

RECONNECT_BACKOFF_MS_MAX: Final = 1_000
"""Longest pause before gRPC tries a lost connection again; a peer that is back is found within about that."""

CALL_GRACE_S: Final = 1.0
"""What a call gets whose channel makes room for another: cut off, it would cancel the task that awaits it."""

Options = tuple[tuple[str, int], ...]

LIMITS: Final[Options] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
)
"""Size caps of both ends."""

CONTROL_OPTIONS: Final[Options] = (
    *LIMITS,
    ("grpc.enable_http_proxy", 0),  # a proxy of the environment's never stands between two hosts
    ("grpc.use_local_subchannel_pool", 1),  # else channels to one address would share a connection
    ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Also how long gRPC waits for a connection to be made, so not less.
    ("grpc.min_reconnect_backoff_ms", RECONNECT_BACKOFF_MS_MAX),
    ("grpc.max_reconnect_backoff_ms", RECONNECT_BACKOFF_MS_MAX),
)
"""For orders, reports and questions."""

BULK_OPTIONS: Final[Options] = (
    *CONTROL_OPTIONS,
    # Memory travels in frames of 2 MiB: fewer, larger pieces on the way (a few per cent more throughput).
    ("grpc.http2.max_frame_size", 4 * 2**20),
    ("grpc.experimental.tcp_min_read_chunk_size", 2**20),
)
"""For the memory of VMs."""


def open_channel(address: str, options: Options = CONTROL_OPTIONS) -> grpc.aio.Channel:
    """A channel to ``host:port``; it connects when it is first used, and again when the connection is lost.

    Close it, or use it in ``async with``. Raises FerryError (malformed) if the address is not well formed.
    """
    peer = parse_address(address)
    scheme = "dns:///" if peer.ip is None else f"ipv{peer.ip.version}:"
    return grpc.aio.insecure_channel(f"{scheme}{peer}", options=options)


class IdleChannels:
    """Channels that nobody uses just now, kept with their connections for whoever is next to need one.

    Each has one user at a time, who takes it and puts it back; one whose connection is in doubt is closed
    instead. A channel whose peer has gone meanwhile connects anew.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle: list[tuple[str, Options, grpc.aio.Channel]] = []

    def take(self, address: str, options: Options = CONTROL_OPTIONS) -> grpc.aio.Channel:
        """A channel to ``host:port``. Raises FerryError (malformed) if that is not well formed."""
        for place, (peer, made_with, channel) in reversed(list(enumerate(self._idle))):
            if (peer, made_with) == (address, options):
                del self._idle[place]
                return channel
        return open_channel(address, options)

    async def put_back(
        self, channel: grpc.aio.Channel, address: str, options: Options = CONTROL_OPTIONS
    ) -> None:
        """The calls that it carried have ended. Beyond the limit, the longest unused is closed."""
        self._idle.append((address, options, channel))
        if len(self._idle) > self._limit:
            _, _, channel = self._idle.pop(0)
            await channel.close()

    async def close(self) -> None:
        """Close those that nobody uses."""
        idle, self._idle = self._idle, []
        for _, _, channel in idle:
            await channel.close()


class Channels:
    """Channels to peers that are asked now and then, one for each address; the longest unused go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def get(self, address: str) -> grpc.aio.Channel:
        """The channel to ``host:port``. Raises FerryError (malformed) if that is not well formed."""
        channel = self._channels.pop(address, None) or open_channel(address)
        self._channels[address] = channel  # the latest at the end
        if len(self._channels) > self._limit:
            await self._channels.pop(next(iter(self._channels))).close(grace=CALL_GRACE_S)
        return channel

    async def close(self) -> None:
        """Close all; calls in progress are cancelled."""
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()
