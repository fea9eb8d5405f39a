"""What every gRPC server of the product has: caps, deadlines, health, reflection, and bounded streams."""

import asyncio
import socket
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ferry_types.errors import FerryError, Refusal, failed
from ferry_wire.addresses import Address, cannot_listen, parse_address
from ferry_wire.channels import KEEPALIVE_INTERVAL_MS, LIMITS, Options
from ferry_wire.status import RefusalInterceptor

CONCURRENT_RPCS_MAX: Final = 1024
"""Calls in progress on one server, streams included: 64 nodes and a thousand watchers."""

STOP_GRACE_S: Final = 0.5
"""What calls in progress get to end when a server stops; streams are then cut."""

DEADLINE_S_DEFAULT: Final = 30.0

DEADLINES: Final[Mapping[str, float]] = {
    # Filling a VM's memory may take a while.
    "/ferry.v1.Admin/CreateVm": 300.0,
    "/ferry.v1.Admin/StartVm": 300.0,
    # A guest reads all of its memory.
    "/ferry.v1.Host/Audit": 90.0,
}
"""Seconds within which a unary call is answered, where that is not ``DEADLINE_S_DEFAULT``."""

_SERVER_OPTIONS: Final[Options] = (
    *LIMITS,
    ("grpc.so_reuseport", 0),  # else a second process could listen on the same port, and take turns
    ("grpc.keepalive_time_ms", KEEPALIVE_INTERVAL_MS),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Channels ask for signs of life; gRPC's own default takes that for an attack.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_INTERVAL_MS // 2),
    ("grpc.http2.max_frame_size", 4 * 2**20),
    ("grpc.experimental.tcp_min_read_chunk_size", 2**20),
)

T = TypeVar("T")


def deadline_s(method: str) -> float:
    """Seconds within which a server answers a unary call, by method (``/package.Service/Name``)."""
    return DEADLINES.get(method, DEADLINE_S_DEFAULT)


class BoundServer:
    """A gRPC server that has its port, and listens from ``start`` on."""

    def __init__(self, server: grpc.aio.Server, address: Address, services: tuple[str, ...]) -> None:
        self.grpc = server
        """For ``add_..._to_server``, before ``start``."""
        self.address = str(address)
        """``host:port`` as bound, with the port that was chosen."""
        self._services = services
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*services, health.SERVICE_NAME, reflection.SERVICE_NAME), server)

    async def start(self) -> None:
        """Answer calls, and say so to health checks."""
        await self.grpc.start()
        for service in (health.OVERALL_HEALTH, *self._services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Take no more calls, and end those in progress within the grace. Frees the port."""
        await self._health.enter_graceful_shutdown()
        await self.grpc.stop(grace_s)


def create_server(
    listen: str,
    protos: Iterable[Any],
    *,
    concurrent_rpcs_max: int = CONCURRENT_RPCS_MAX,
) -> BoundServer:
    """A server bound to ``listen`` (``host:port``, port 0: any free one). Needs a running event loop.

    ``protos`` are what it offers: file descriptors (``admin_pb2.DESCRIPTOR``) with all services in them, and
    descriptors of single services; add a servicer for each to ``.grpc`` before ``start``. Handlers raise
    FerryError for what callers cause.

    Raises FerryError: malformed address, or a port that is in use or may not be taken.
    """
    wanted = parse_address(listen, "listen address", any_port=True)
    _require_free(wanted)
    server = grpc.aio.server(
        interceptors=(RefusalInterceptor(deadline_s),),
        options=_SERVER_OPTIONS,
        maximum_concurrent_rpcs=concurrent_rpcs_max,
    )
    try:
        port = server.add_insecure_port(str(wanted))
    except RuntimeError as error:  # somebody was faster
        raise FerryError(failed(f"cannot listen on {wanted}: {error}", "try again")) from error
    services = tuple(service.full_name for proto in protos for service in _services(proto))
    return BoundServer(server, Address(wanted.host, port), services)


def _services(proto: Any) -> Iterable[Any]:
    """The service descriptors in a file's descriptor, or the one that it is."""
    return proto.services_by_name.values() if hasattr(proto, "services_by_name") else (proto,)


def _require_free(address: Address) -> None:
    """Raise FerryError if the address cannot be bound: gRPC says so on standard error, and not why."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does
        try:
            probe.bind((address.host, address.port))
            probe.listen()
        except OSError as error:
            raise cannot_listen(address, "TCP", error) from error


class StreamOutbox(Generic[T]):
    """What a streaming handler has yet to send: bounded, so that a reader that is too slow costs no more.

    Producers ``put`` without waiting; one consumer iterates. When it would hold more than ``items_max``,
    it drops them all and ends the stream: the reader comes back and asks for the present state.
    Use it from one event loop.
    """

    def __init__(self, items_max: int, stream: str) -> None:
        """``stream`` says whose it is, for the message (``the order stream of node1``)."""
        self._items: deque[T] = deque()
        self._items_max = items_max
        self._stream = stream
        self._closed = False
        self._refusal: Refusal | None = None
        self._wake = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether it takes no more items."""
        return self._closed

    def put(self, item: T) -> None:
        """Queue an item; dropped once it is closed."""
        if self._closed:
            return
        if len(self._items) < self._items_max:
            self._items.append(item)
            self._wake.set()
            return
        self._items.clear()
        what = f"{self._stream} fell {self._items_max} messages behind and was closed"
        self.close(failed(what, "open it again; what is current is told anew"))

    def close(self, refusal: Refusal | None = None) -> None:
        """Take no more items; after those queued the stream ends, with ``refusal`` if there is one."""
        if not self._closed:
            self._closed = True
            self._refusal = refusal
        self._wake.set()

    def __aiter__(self) -> "StreamOutbox[T]":
        return self

    async def __anext__(self) -> T:
        """The next item. Raises FerryError with the refusal that it was closed with."""
        while not self._items:
            if self._refusal is not None:
                raise FerryError(self._refusal)
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        return self._items.popleft()
