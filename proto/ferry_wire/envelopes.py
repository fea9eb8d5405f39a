"""What a host and the coordinator say to each other <-> messages of ``ferry/v1/membership.proto``."""

from ferry.v1 import membership_pb2
from ferry_types.messages import HostEnvelope, HostOrder
from ferry_wire.conversion import from_proto, to_proto


def host_envelope_to_proto(envelope: HostEnvelope) -> membership_pb2.FromHost:
    """A host's message, ready for the wire."""
    return to_proto(envelope, membership_pb2.FromHost)


def host_envelope_from_proto(message: membership_pb2.FromHost) -> HostEnvelope:
    """A host's message from the wire. Raises FerryError (malformed)."""
    return from_proto(message, HostEnvelope)


def host_order_to_proto(order: HostOrder) -> membership_pb2.ToHost:
    """The coordinator's message, ready for the wire."""
    return to_proto(order, membership_pb2.ToHost)


def host_order_from_proto(message: membership_pb2.ToHost) -> HostOrder:
    """The coordinator's message from the wire. Raises FerryError (malformed)."""
    return from_proto(message, HostOrder)
