"""The main promise: a busy guest moves back and forth and nobody loses a page or misses it for long."""

import socket
import threading
import time
from pathlib import Path

import pytest
from tests.integration.processes import MIB, Cluster, running_cluster

from ferry.v1 import host_pb2
from ferry_types.migrations import TransportOption

ECHO_GAP_S_MAX = 0.25


class Echoes:
    """Asks a guest every 5 ms, on both hosts' echo ports, and keeps the longest gap between answers."""

    def __init__(self, vm: str, addresses: list[str]) -> None:
        self.vm = vm
        self.addresses = [(a.rpartition(":")[0], int(a.rpartition(":")[2])) for a in addresses]
        self.gap_s_max = 0.0
        self.steps_fell = 0
        self.answers = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Echoes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last_at, step, boot = time.monotonic(), 0, 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.005)
            sequence = 0
            while not self._stop.is_set():
                sequence += 1
                request = host_pb2.EchoRequest(vm=self.vm, sequence=sequence).SerializeToString()
                for address in self.addresses:
                    sock.sendto(request, address)
                try:
                    reply = host_pb2.EchoReply.FromString(sock.recv(512))
                except TimeoutError:
                    continue
                now = time.monotonic()
                self.gap_s_max = max(self.gap_s_max, now - last_at)
                last_at = now
                self.answers += 1
                self.steps_fell += reply.boot_epoch == boot and reply.step < step
                step, boot = reply.step, reply.boot_epoch
                self._stop.wait(0.005)


def move_often(cluster: Cluster, moves: int, option: TransportOption) -> None:
    name = f"busy-{option}"
    vm = cluster.create(
        name,
        "n1",
        memory_bytes=256 * MIB,
        workload="sql",
        write_rate_bytes_per_s=50 * MIB,
        working_set_bytes=64 * MIB,
    )
    nodes = cluster.nodes()
    with Echoes(name, [nodes["n1"].echo_address, nodes["n2"].echo_address]) as echoes:
        for number in range(moves):
            to = ("n2", "n1")[number % 2]
            record = cluster.ended(cluster.migrate(name, to, verify=True, option=option))
            assert record.state == "completed", record.reason
            assert record.figures.verified
            assert record.options.option == option
        assert cluster.audit(name).ok
    assert echoes.answers > 0
    assert echoes.steps_fell == 0
    assert echoes.gap_s_max <= ECHO_GAP_S_MAX
    assert cluster.vm(name).epoch >= vm.epoch + moves


@pytest.mark.timeout(180)
@pytest.mark.parametrize("moves", [10, pytest.param(50, marks=pytest.mark.chaos)])
def test_verified_moves_of_a_busy_guest(tmp_path: Path, moves: int) -> None:
    with running_cluster(tmp_path, 2) as cluster:
        move_often(cluster, moves, TransportOption.TCPIP)


@pytest.mark.timeout(120)
def test_verified_moves_by_the_other_options(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 2) as cluster:
        move_often(cluster, 10, TransportOption.SMB)
        move_often(cluster, 10, TransportOption.DIRECT)
