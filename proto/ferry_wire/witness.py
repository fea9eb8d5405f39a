"""The witness, as agents and the coordinator ask it (rule Q4)."""

from typing import Final

from ferry.v1 import quorum_pb2, quorum_pb2_grpc
from ferry_types.errors import FerryError, failed
from ferry_types.quorum import WitnessRecord
from ferry_wire.channels import Channels
from ferry_wire.conversion import from_proto, to_proto
from ferry_wire.status import SAME_VERSION, answered

CALL_S: Final = 1.0
"""Deadline of each call. A host that asks for a promise has less than a lease (2 s in profile ``fast``) left,
and asks the other voters meanwhile; an answer takes one durable write, which is milliseconds."""

CHANNELS_MAX: Final = 8
"""Witnesses that are kept in touch with: one of each cluster, and the last ones before it."""


class WitnessClient:
    """Reads and replaces the records of witnesses, over one channel for each. Use it from one event loop.

    Every call raises FerryError if there is no answer in time, or none that can be understood. A replacement
    that failed may have been made all the same: read again.
    """

    def __init__(self) -> None:
        self._channels = Channels(CHANNELS_MAX)

    async def read(self, address: str, cluster: str) -> WitnessRecord:
        """The record that the witness at ``host:port`` keeps of a cluster; ``NO_RECORD`` if there is none."""
        stub = await self._stub(address)
        call = stub.Read(quorum_pb2.WitnessQuery(cluster=cluster), timeout=CALL_S)
        return _record(await answered(call, address), address)

    async def replace(self, address: str, cluster: str, record: WitnessRecord) -> tuple[bool, WitnessRecord]:
        """Replace the record of the revision before this one's, and no other.

        Returns whether that was done, and the record as it is now: this one, or the one that is in its place.
        """
        stub = await self._stub(address)
        request = quorum_pb2.WitnessReplacement(
            cluster=cluster, record=to_proto(record, quorum_pb2.WitnessRecord)
        )
        answer = await answered(stub.Replace(request, timeout=CALL_S), address)
        now = _record(answer.record, address)
        if answer.replaced and now != record:
            raise _malformed(address, "it has replaced a record, but not by the one that it was given")
        return answer.replaced, now

    async def close(self) -> None:
        """Close all connections; calls in progress are cancelled."""
        await self._channels.close()

    async def _stub(self, address: str) -> quorum_pb2_grpc.WitnessStub:
        return quorum_pb2_grpc.WitnessStub(await self._channels.get(address))


def _record(message: quorum_pb2.WitnessRecord, address: str) -> WitnessRecord:
    try:
        return from_proto(message, WitnessRecord)
    except FerryError as error:
        raise _malformed(address, error.refusal.message) from error


def _malformed(address: str, what: str) -> FerryError:
    return FerryError(
        failed(
            f"the witness at {address} gave an answer that is not well formed: {what}",
            SAME_VERSION,
        )
    )
