"""The embedded MQTT broker, a process of its own: ``python -m ferry_coordinator.broker``.

amqtt keeps sessions and retained messages in memory; who publishes through ``ferry_wire.bus`` tells it again
after a restart. Any broker for MQTT 3.1.1 serves in its place, by address.

amqtt reads a message of whatever size its header names, and binds before it can say to which port. So this
module listens itself, and hands connections over whose reader refuses what is too large.
"""

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

from amqtt.adapters import (
    StreamReaderAdapter,
    StreamWriterAdapter,
)
from amqtt.broker import Broker
from amqtt.errors import AMQTTError

from ferry_wire.addresses import Address, announce_address
from ferry_wire.bus import PAYLOAD_BYTES_MAX

MESSAGE_BYTES_MAX = PAYLOAD_BYTES_MAX + 1024
"""Largest part of a packet that is read at once: a payload, or a topic."""

CONNECTIONS_MAX = 1024
"""Two processes a node in the largest cluster, and watchers."""

SHUTDOWN_S = 1.0
"""How long clients may take to be told goodbye."""

_LISTENER = "default"
_CONFIG = {
    # External: amqtt itself opens no port.
    "listeners": {_LISTENER: {"type": "external"}},
    # Named one by one: amqtt's defaults log every packet and publish statistics of the machine.
    "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
}
_LOG = logging.getLogger(__name__)


class _BoundedReader(asyncio.StreamReader):
    """Ends the stream at the first packet that is larger than allowed."""

    def __init__(self) -> None:
        super().__init__()
        self._cut_off = False

    async def readexactly(self, n: int) -> bytes:
        """Read as the base class does; an announced excess is the end of the stream, whatever follows it."""
        if n > MESSAGE_BYTES_MAX and not self._cut_off:
            _LOG.warning("cut off a client: it announced %d bytes, allowed are %d", n, MESSAGE_BYTES_MAX)
            self._cut_off = True
        if self._cut_off:
            raise asyncio.IncompleteReadError(b"", n)
        return await super().readexactly(n)


class _Listener:
    """Accepts connections for the broker, up to a number."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._connections = 0

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Bind and accept; port 0 takes a free one. Raises OSError."""
        loop = asyncio.get_running_loop()
        return await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(_BoundedReader(), self._serve),
            host,
            port,
            reuse_address=True,
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections == CONNECTIONS_MAX:
            _LOG.warning("refused a client: %d are connected", self._connections)
            writer.close()
            return
        self._connections += 1
        try:
            await self._broker.external_connected(
                StreamReaderAdapter(reader), StreamWriterAdapter(writer), _LISTENER
            )
        except (AMQTTError, OSError) as error:
            _LOG.warning("a client was cut off: %s", error)
        finally:
            self._connections -= 1
            writer.close()


async def serve(host: str, port: int, address_file: Path | None) -> None:
    """Be the broker until SIGTERM or SIGINT. Writes ``host:port`` to the file once it listens.

    Raises OSError if it cannot listen.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    broker = Broker(_CONFIG)
    await broker.start()
    server = await _Listener(broker).listen(host, port)
    announce_address(address_file, str(Address(*server.sockets[0].getsockname()[:2])))
    await stopped.wait()
    server.close()
    # With the connections go their last wills, and amqtt would complain that nobody is left to hear them.
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    try:
        await asyncio.wait_for(broker.shutdown(), SHUTDOWN_S)
    except TimeoutError:
        _LOG.warning("clients were cut off that took longer than %s s to let go", SHUTDOWN_S)


def _listen_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) >= 2**16:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:1883")
    return host.removeprefix("[").removesuffix("]"), int(port)


def main() -> int:
    """Run the process; the exit code is 0, 1 if it cannot listen, or 2 if it was called wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m ferry_coordinator.broker", description="The MQTT broker of a lab."
    )
    parser.add_argument("--listen", metavar="HOST:PORT", type=_listen_address, default=("127.0.0.1", 0))
    parser.add_argument(
        "--address-file", metavar="FILE", type=Path, help="gets HOST:PORT once the broker listens"
    )
    arguments = parser.parse_args()
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    host, port = arguments.listen
    try:
        asyncio.run(serve(host, port, arguments.address_file))
    except OSError as error:
        _LOG.error("cannot listen on %s port %d: %s", host, port, error.strerror or error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
