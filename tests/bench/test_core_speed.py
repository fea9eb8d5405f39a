"""How fast the cluster core decides at the sizes of a large cluster. Absolute bounds, with ample room."""

import statistics
import time

import pytest
from tests.unit.cluster.core_bench import MIB, Bench, make_spec

from ferry_cluster.commands import Commit
from ferry_cluster.inputs import DeathCertified, Tick
from ferry_cluster.placement import Room, Wish, choose_host
from ferry_cluster.records import Origin, Ownership, RaisedEpoch, VmRecord
from ferry_types.messages import DeathCertificate, Renewal
from ferry_types.roles import RoleRules
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

    def fill(self, vms: int, hosts: int) -> None:
        """So many VMs run, in turn on these hosts; each has an anti-affinity class that sixteen share."""
        state = self.cluster.state
        for number in range(vms):
            spec, node = make_spec(f"vm{number}"), f"h{number % hosts + 1}"
            rules = RoleRules(anti_affinity=(f"class{number % (vms // 16)}",))
            name, life = spec.name, state.nodes[node].incarnation
            state.put(VmRecord(spec, wanted=True, rules=rules))
            state.put(Ownership(name, 1, node, life, Origin.BOOT))
            state.put(RaisedEpoch(name, 1))
            state.running[name] = 1


@pytest.fixture(scope="module")
def large() -> LargeBench:
    """64 nodes with 8,000 VMs."""
    bench = LargeBench(64)
    bench.fill(8000, 64)
    bench.cluster.check()
    return bench


def test_a_failover_of_1000_vms_over_15_nodes_is_decided_in_a_second() -> None:
    bench = LargeBench(16)
    bench.fill(1000, 1)
    began_at = time.perf_counter()
    commands = bench.handle(DeathCertified(DeathCertificate("h1", "life-1", "killed")))
    took_s = time.perf_counter() - began_at
    (commit,) = [command for command in commands if isinstance(command, Commit)]
    owners = [record for record in commit.writes if isinstance(record, Ownership)]
    assert len(owners) == 1000
    assert len({owner.node for owner in owners}) == 15
    assert took_s < 1.0


def test_a_heartbeat_among_64_nodes_with_8000_vms_costs_less_than_100_microseconds(large: LargeBench) -> None:
    took_s = []
    for number in range(1, 641):
        began_at = time.perf_counter()
        large.say(number % 64 + 1, Renewal(number + 1))
        large.handle(Tick())
        took_s.append(time.perf_counter() - began_at)
    assert statistics.median(took_s) < 100e-6


def test_a_placement_among_64_nodes_with_8000_vms_costs_less_than_5_milliseconds(large: LargeBench) -> None:
    rules, took_s = RoleRules(anti_affinity=("class1",), preferred_owners=("h7", "h9")), []
    for _ in range(20):
        began_at = time.perf_counter()
        room = Room(large.settings, large.cluster.state, large.now)
        chosen = choose_host(room, Wish(VmRecord(make_spec("new"), wanted=True, rules=rules)))
        took_s.append(time.perf_counter() - began_at)
        assert isinstance(chosen, str)
    assert statistics.median(took_s) < 5e-3


def test_a_drain_of_100_vms_among_8000_is_planned_within_a_second(large: LargeBench) -> None:
    began_at = time.perf_counter()
    plan = large.cluster.drain_plan("h1", "")
    took_s = time.perf_counter() - began_at
    assert len(plan.moves) >= 100
    assert took_s < 1.0
