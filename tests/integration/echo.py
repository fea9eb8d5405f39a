"""An echo client for tests: one datagram each way."""

import socket
import time

from tests.integration.processes import DEADLINE_S

from ferry.v1 import host_pb2


def echo_once(address: str, vm: str) -> host_pb2.EchoReply:
    """The guest's answer; asks again while it does not come."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + DEADLINE_S
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.2)
        sequence = 0
        while True:
            sequence += 1
            sock.sendto(host_pb2.EchoRequest(vm=vm, sequence=sequence).SerializeToString(), (host, int(port)))
            try:
                return host_pb2.EchoReply.FromString(sock.recv(512))
            except TimeoutError:
                assert time.monotonic() < end, f"{vm} at {address} does not answer"
