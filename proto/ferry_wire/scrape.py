"""Prometheus metrics over HTTP, served from a thread."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from ferry_types.errors import FerryError, failed
from ferry_wire.addresses import Address, parse_address


@contextmanager
def served_metrics(registry: CollectorRegistry, listen: str) -> Iterator[str]:
    """Serve a registry on ``listen`` (``host:port``, port 0: any free one); yields the address as bound.

    Raises FerryError: a malformed address, or one that is not to be had.
    """
    wanted = parse_address(listen, "metrics address", any_port=True)
    try:
        server, thread = start_http_server(wanted.port, wanted.host, registry)
    except OSError as error:
        raise FerryError(
            failed(
                f"metrics cannot be served on {wanted}: {error.strerror or error}",
                "choose another --metrics-listen; port 0 takes a free one",
            )
        ) from error
    try:
        yield str(Address(wanted.host, server.server_port))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
