"""The two pure cores together, under faults: nobody runs twice, and after healing everything runs."""

import pytest

from ferry_cluster.inputs import TurnOffVm
from ferry_cluster.records import MigrationRecord
from ferry_sim.clockwork import Clockwork
from ferry_sim.storm import Storm, all_up
from ferry_sim.world import MIB, Size, World
from ferry_types.errors import Refusal
from ferry_types.migrations import ENDED, MigrationState
from ferry_types.vms import VmState


def make_world(hosts: int = 3, seed: int = 1, limit: int = 2) -> World:
    world = World(Size(hosts=hosts, limit=limit), Clockwork(seed))
    world.run_until(lambda: all_up(world))
    return world


def vm_runs(world: World, name: str) -> bool:
    """The coordinator says so, and the owner's vCPU does run."""
    if world.cluster is None or name not in world.cluster.state.vms:
        return False
    view = world.cluster.vm_view(name)
    return view.state is VmState.RUNNING and name in world.agents[view.node].running(world.now)


def moved(world: World, vm: str, to: str) -> MigrationRecord:
    move = world.migrate(vm, to)
    assert isinstance(move, MigrationRecord), move
    cluster = world.cluster
    assert cluster is not None
    world.run_until(lambda: cluster.state.migrations[move.id].state in ENDED)
    return cluster.state.migrations[move.id]


def test_a_vm_is_created_moved_and_stays_consistent() -> None:
    world = make_world()
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    move = moved(world, "a", "n2")
    assert move.state is MigrationState.COMPLETED
    world.run_until(lambda: vm_runs(world, "a"))
    assert world.agents["n2"].running(world.now) == {"a"}
    assert not world.agents["n1"].host.state.images


def test_a_killed_host_fails_over_within_four_seconds() -> None:
    world = make_world()
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    killed_at = world.now
    world.kill_host("n1")
    world.run_until(lambda: vm_runs(world, "a"))
    assert world.now - killed_at < 4.0


def test_a_coordinator_that_is_back_within_a_lease_is_not_noticed() -> None:
    world = make_world()
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    epoch = world.agents["n1"].vcpus["a"]
    world.kill_coordinator()
    for _ in range(10):
        world.run(0.1)
        assert world.agents["n1"].running(world.now) == {"a"}
    world.start_coordinator()
    for _ in range(100):
        world.run(0.1)
        assert world.agents["n1"].running(world.now) == {"a"}
    assert world.agents["n1"].vcpus["a"] == epoch


def test_hosts_that_are_alone_pause_and_go_on_under_the_same_epoch() -> None:
    world = make_world()
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    epoch = world.agents["n1"].vcpus["a"]
    world.kill_coordinator()
    world.network.losses = 1.0
    world.run(10)
    assert world.agents["n1"].running(world.now) == set()
    world.start_coordinator()
    world.run_until(lambda: vm_runs(world, "a"))
    world.run(10)
    assert world.agents["n1"].vcpus == {"a": epoch}


def test_a_frozen_host_wakes_up_without_running() -> None:
    world = make_world()
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    world.freeze(world.agents["n1"], 6.0)
    world.run(5.0)
    assert world.cluster is not None
    assert world.cluster.vm_view("a").node != "n1"
    world.run(10.0)
    assert world.agents["n1"].running(world.now) == set()
    assert not world.agents["n1"].host.state.images
    assert all_up(world)


def test_limits_hold_and_the_queue_is_served_in_order() -> None:
    world = make_world(hosts=2)
    for name in "abcdef":
        world.create(name, "n1")
    world.run_until(lambda: all(vm_runs(world, name) for name in "abcdef"))
    ids = []
    for name in "abcdef":
        move = world.migrate(name, "n2")
        assert isinstance(move, MigrationRecord)
        ids.append(move.id)
    cluster = world.cluster
    assert cluster is not None
    ended: list[str] = []
    while len(ended) < len(ids):
        world.run(0.005)
        assert max(cluster.state.slots_used().values()) <= 2
        ended += [i for i in ids if i not in ended and cluster.state.migrations[i].state in ENDED]
    assert [cluster.state.migrations[i].state for i in ids] == [MigrationState.COMPLETED] * 6
    assert ended[0] in ids[:2]
    assert ended[-1] in ids[-2:]


@pytest.mark.parametrize(
    ("vm", "to", "rule"),
    [
        ("a", "n1", "same node"),
        ("off", "n2", "vm running"),
        ("b", "n2", "memory"),
        ("a", "n3", "node up"),
        ("ghost", "n2", ""),
        ("a", "ghost", ""),
    ],
)
def test_moves_that_a_rule_refuses_change_nothing(vm: str, to: str, rule: str) -> None:
    world = make_world()
    world.create("a", "n1")
    world.create("b", "n1", 160 * MIB)
    world.create("full", "n2", 200 * MIB)
    world.create("off", "n1")
    names = ("a", "b", "full", "off")
    world.run_until(lambda: all(vm_runs(world, name) for name in names))
    world.ask(lambda number: TurnOffVm(number, "off"))
    world.kill_host("n3")
    world.run(5)
    before = dict(world.store.records)
    answer = world.migrate(vm, to)
    assert isinstance(answer, Refusal)
    assert answer.rule == rule
    assert world.store.records == before


def test_a_refused_first_start_takes_the_vm_back() -> None:
    world = make_world()
    world.shell.unbootable.add("a")
    request = world.create("a", "n1")
    world.run(1)
    answer = world.replies[request]
    assert isinstance(answer, Refusal)
    assert answer.message == "no such file"
    assert world.cluster is not None
    assert not world.cluster.state.vms


@pytest.mark.parametrize("seed", range(70))
def test_random_faults(seed: int) -> None:
    """Requests, kills, freezes, bad streams, failing moves, successors; then everything heals."""
    Storm(seed).run()
