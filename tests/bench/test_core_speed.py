"""How fast the cluster core decides at the sizes of a large cluster. Absolute bounds, with ample room."""

import statistics
import time

import pytest
from tests.unit.cluster.core_bench import MIB, Bench

from ferry_cluster.commands import Commit
from ferry_cluster.inputs import DeathCertified, Tick
from ferry_cluster.records import Ownership
from ferry_types.messages import DeathCertificate, Renewal
from ferry_types.vms import Capacity

pytestmark = pytest.mark.bench

ROOMY = Capacity(8000 * 16 * MIB, 64, 2)


class LargeBench(Bench):
    """Without the whole state's invariants after every event: that is not what is timed."""

    def __init__(self, hosts: int) -> None:
        super().__init__(0)
        self.handle = lambda event: self.cluster.handle(event, self.now)  # type: ignore[method-assign]
        for number in range(1, hosts + 1):
            self.join(number, capacity=ROOMY)
            self.say(number, Renewal(1))


def test_a_failover_of_1000_vms_over_15_nodes_is_decided_in_a_second() -> None:
    bench = LargeBench(16)
    for number in range(1000):
        bench.run_vm(f"vm{number}", 1)
    began_at = time.perf_counter()
    commands = bench.handle(DeathCertified(DeathCertificate("h1", "life-1", "killed")))
    took_s = time.perf_counter() - began_at
    (commit,) = [command for command in commands if isinstance(command, Commit)]
    owners = [record for record in commit.writes if isinstance(record, Ownership)]
    assert len(owners) == 1000
    assert len({owner.node for owner in owners}) == 15
    assert took_s < 1.0


def test_a_heartbeat_among_64_nodes_with_8000_vms_costs_less_than_100_microseconds() -> None:
    bench = LargeBench(64)
    for number in range(8000):
        bench.run_vm(f"vm{number}", number % 64 + 1)
    took_s = []
    for number in range(1, 641):
        began_at = time.perf_counter()
        bench.say(number % 64 + 1, Renewal(number + 1))
        bench.handle(Tick())
        took_s.append(time.perf_counter() - began_at)
    assert statistics.median(took_s) < 100e-6
