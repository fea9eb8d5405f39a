"""The witness process: its service, and the one owner of its signals.

It has no clock and no opinion (rule Q4): what a record means is for those who read and replace it.
"""

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any, Final

from ferry.v1 import quorum_pb2, quorum_pb2_grpc
from ferry_types.quorum import WitnessRecord
from ferry_wire.addresses import announce_address
from ferry_wire.conversion import from_proto, to_proto
from ferry_wire.files import exclusive_directory
from ferry_wire.servers import create_server
from ferry_witness.records import OWNER, Records
from ferry_witness.settings import WitnessSettings

if TYPE_CHECKING:
    import grpc.aio

SERVICE: Final = quorum_pb2.DESCRIPTOR.services_by_name["Witness"]

_LOG = logging.getLogger(__name__)


class WitnessService(quorum_pb2_grpc.WitnessServicer):
    """Reads and replaces records.

    A record is written while nothing else is done, in the event loop's own thread: nobody reads what may not
    last, no two replacements interleave, and a caller that gives up interrupts none.
    """

    def __init__(self, records: Records) -> None:
        self._records = records

    async def Read(
        self, request: quorum_pb2.WitnessQuery, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> quorum_pb2.WitnessRecord:
        """A cluster's record."""
        return self._present(request.cluster)

    async def Replace(
        self, request: quorum_pb2.WitnessReplacement, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> quorum_pb2.WitnessOutcome:
        """Replace a cluster's record, if it is the one that the new one was made from."""
        record = from_proto(request.record, WitnessRecord)
        replaced = self._records.replace(request.cluster, record)
        return quorum_pb2.WitnessOutcome(replaced=replaced, record=self._present(request.cluster))

    def _present(self, cluster: str) -> quorum_pb2.WitnessRecord:
        return to_proto(self._records.read(cluster), quorum_pb2.WitnessRecord)


async def serve(settings: WitnessSettings) -> None:
    """Be the witness until SIGTERM or SIGINT.

    Raises FerryError: the directory or a record in it cannot be used, another witness uses it, or the address
    is not to be had.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with exclusive_directory(settings.dir, OWNER):
        records = Records(settings.dir)
        server = create_server(settings.listen, (SERVICE,))
        quorum_pb2_grpc.add_WitnessServicer_to_server(WitnessService(records), server.grpc)
        try:
            await server.start()
            announce_address(settings.address_file, server.address)
            _LOG.info("witness listens on %s and keeps its records in %s", server.address, settings.dir)
            await stopped.wait()
        finally:
            await server.stop()
