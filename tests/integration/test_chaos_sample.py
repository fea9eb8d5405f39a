"""A few cases of the chaos matrix, in every run of the suite; `make chaos` runs all of them."""

import socket
from pathlib import Path

import pytest
from tests.chaos.faulty_link import FaultyLink
from tests.chaos.matrix import FAULTS, linked_cluster, survive
from tests.integration.processes import MIB

BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.mark.parametrize(
    ("phase", "fault"),
    [
        ("source.final_sent", "kill coordinator"),
        ("target.committed", "freeze target for 3.0 leases"),
        ("source.paused", "cut n1-coordinator there"),
        ("target.before_ready", "cut peers-n2 there and back"),
    ],
)
def test_a_fault_in_a_phase(tmp_path: Path, phase: str, fault: str) -> None:
    with linked_cluster(tmp_path) as cluster:
        survive(cluster, phase, BY_NAME[fault])
        assert cluster.links["peers-n2"].carried_bytes > 32 * MIB, "the VM's memory went past the link"


def test_a_link_holds_up_what_it_is_told_to_and_no_more() -> None:
    link = FaultyLink()
    with socket.create_server(("127.0.0.1", 0)) as server:
        link.lead_to(f"127.0.0.1:{server.getsockname()[1]}")
        with socket.create_connection(("127.0.0.1", link.port)) as near, server.accept()[0] as far:
            for end in (near, far):
                end.settimeout(5)
            near.sendall(b"1")
            assert far.recv(1) == b"1"
            link.cut("there")
            near.sendall(b"2")
            far.sendall(b"3")
            assert near.recv(1) == b"3", "the other way is open"
            far.settimeout(0.2)
            with pytest.raises(TimeoutError):
                far.recv(1)
            link.heal(broken=False)
            far.settimeout(5)
            assert far.recv(1) == b"2", "nothing is lost"
            link.cut("there", "back")
            link.heal(broken=True)
            assert near.recv(1) == b"", "the connection has ended"
    link.close()
