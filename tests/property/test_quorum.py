"""Votes, promises and failover rounds: both pure cores and a witness on virtual time."""

import pytest
from tests.property.test_cores_together import vm_runs

from ferry_cluster.inputs import DeathCertified, EvictNode, SetQuorum
from ferry_sim.ballots import ADDRESS
from ferry_sim.clockwork import Clockwork
from ferry_sim.storm import all_up
from ferry_sim.world import Size, World
from ferry_types.eras import Era
from ferry_types.messages import DeathCertificate
from ferry_types.profiles import PROFILES
from ferry_types.quorum import WITNESS
from ferry_types.vms import NodeState

FAST = PROFILES["fast"]


def settled(world: World) -> bool:
    """Everybody is up, and the votes are as they should be."""
    cluster = world.cluster
    assert cluster is not None
    state = cluster.state
    return not state.rounds and state.proposal is None and state.quorum.number == state.quorum.highest


def ready_world(hosts: int, era: Era = Era.WS2012R2, *, witness: bool = True) -> World:
    world = World(Size(hosts=hosts), Clockwork(1), era)
    if not witness:
        world.ask(lambda number: SetQuorum(number, "", None))
    world.run_until(lambda: all_up(world) and settled(world))
    world.run(2 * FAST.beat_s)
    return world


def votes(world: World) -> set[str]:
    """Names of those who have a vote."""
    cluster = world.cluster
    assert cluster is not None
    return {vote.name for vote in cluster.quorum_view().votes if vote.has_vote}


def certify(world: World, name: str) -> None:
    certificate = DeathCertificate(name, world.agents[name].incarnation, "killed")
    world.submit(world.reigns[-1], DeathCertified(certificate))


def state_of(world: World, name: str) -> NodeState:
    cluster = world.cluster
    assert cluster is not None
    return cluster.node_view(name).state


# --- a coordinator that is away -----------------------------------------------------------------


def test_a_coordinator_that_is_away_for_a_minute_pauses_nobody() -> None:
    world = ready_world(3)
    for name, node in (("a", "n1"), ("b", "n2"), ("c", "n3")):
        world.create(name, node)
    world.run_until(lambda: all(vm_runs(world, name) for name in "abc"))
    epochs = {agent.name: dict(agent.vcpus) for agent in world.agents.values()}
    world.kill_coordinator()
    for _ in range(600):
        world.run(0.1)
        assert all(agent.running(world.now) for agent in world.agents.values())
    world.start_coordinator()
    for _ in range(100):
        world.run(0.1)
        assert all(agent.running(world.now) for agent in world.agents.values())
    assert {agent.name: agent.vcpus for agent in world.agents.values()} == epochs


def test_without_coordinator_a_majority_runs_on_and_a_minority_pauses() -> None:
    world = ready_world(5)
    for number in range(1, 6):
        world.create(f"vm{number}", f"n{number}")
    world.run_until(lambda: all(vm_runs(world, f"vm{number}") for number in range(1, 6)))
    world.kill_coordinator()
    world.network.split(["n4", "n5"], 60.0)
    world.run(FAST.lease_s)
    for _ in range(100):
        world.run(0.1)
        running = {name for name, agent in world.agents.items() if agent.running(world.now)}
        assert running == {"n1", "n2", "n3"}
    world.start_coordinator()
    world.run_until(lambda: all(vm_runs(world, f"vm{number}") for number in range(1, 6)))
    assert {name: set(agent.vcpus) for name, agent in world.agents.items()} == {
        f"n{number}": {f"vm{number}"} for number in range(1, 6)
    }


def test_the_witness_keeps_half_of_an_even_cluster_running() -> None:
    world = ready_world(2)
    assert votes(world) == {"n1", "n2", WITNESS}
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    world.kill_coordinator()
    world.kill_host("n2")
    for _ in range(200):
        world.run(0.1)
        assert world.agents["n1"].running(world.now) == {"a"}


def test_nobody_runs_on_by_its_own_word_alone() -> None:
    world = ready_world(1)
    assert votes(world) == {"n1"}
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    world.kill_coordinator()
    world.run(FAST.lease_s)
    assert not world.agents["n1"].running(world.now)


# --- hosts that are away ------------------------------------------------------------------------


def test_a_host_cut_off_from_everything_pauses_and_its_vms_run_elsewhere() -> None:
    world = ready_world(3)
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    cut_at = world.now
    world.network.split(["n1"], 20.0)
    world.network.part("n1", ("up", "down"), 20.0)
    world.run(FAST.lease_s)
    assert not world.agents["n1"].running(world.now), "it pauses within L"
    world.run_until(lambda: vm_runs(world, "a"))
    assert world.now - cut_at < FAST.coordinator_span_s + FAST.beat_s + 0.5, "L(1+e), and a round"
    assert world.agents["n1"].stream is None or state_of(world, "n1") is NodeState.DOWN
    world.run_until(lambda: all_up(world))
    assert not world.agents["n1"].host.state.images


def test_in_profile_windows_a_dead_host_is_given_up_after_its_lease_within_a_beat() -> None:
    windows = PROFILES["windows"]
    world = World(Size(hosts=3, profile="windows"), Clockwork(1))
    world.run_until(lambda: all_up(world) and settled(world))
    world.run(3 * windows.beat_s)
    world.kill_host("n1")
    cluster = world.cluster
    assert cluster is not None
    lease_until = cluster.state.attendance["n1"].lease_until
    assert lease_until is not None
    renewed_at = lease_until - windows.coordinator_span_s
    world.run_until(lambda: not cluster.state.nodes["n1"].up, step_s=0.01)
    given_up_after_s = world.now * world.reigns[-1].clock_rate - renewed_at
    assert windows.lease_s < given_up_after_s < windows.lease_s + windows.beat_s


def test_a_minority_that_reaches_the_coordinator_runs_on_without_failovers() -> None:
    world = ready_world(3)
    for name, node in (("a", "n1"), ("b", "n2")):
        world.create(name, node)
    world.run_until(lambda: all(vm_runs(world, name) for name in "ab"))
    for name in ("n2", "n3"):
        world.network.part(name, ("up", "down"), 15.0)
    for _ in range(140):
        world.run(0.1)
        assert world.agents["n1"].running(world.now) == {"a"}, "by its grants (rule Q6)"
        assert world.agents["n2"].running(world.now) == {"b"}, "by n3's promises"
    assert world.cluster is not None
    assert world.cluster.state.owners["b"].node == "n2", "no majority has given it up"
    assert state_of(world, "n2") is NodeState.DOWN
    world.run_until(lambda: all_up(world) and settled(world))
    assert world.agents["n2"].running(world.now) == {"b"}


def test_half_of_the_votes_fail_nobody_over_until_quorum_is_forced() -> None:
    world = ready_world(4, Era.WS2008R2, witness=False)
    assert votes(world) == {"n1", "n2", "n3", "n4"}
    world.create("a", "n4")
    world.run_until(lambda: vm_runs(world, "a"))
    for name in ("n3", "n4"):
        world.kill_host(name)
    world.run(60.0)
    assert not vm_runs(world, "a")
    cluster = world.cluster
    assert cluster is not None
    assert cluster.quorum_view().under_judgement == ("n3", "n4")
    assert "2 of 4 votes" in cluster.quorum_view().reason
    world.kill_coordinator()
    world.start_coordinator(forced=True)
    forced_at = world.now
    world.run_until(lambda: vm_runs(world, "a"))
    assert world.now - forced_at > FAST.coordinator_span_s, "it waits L(1+e)"
    assert votes(world) <= {"n1", "n2", "n3", "n4"}


def test_the_last_host_comes_back_after_a_power_cut_and_goes_on() -> None:
    world = ready_world(3)
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    for name in ("n2", "n3"):
        world.kill_host(name)
        world.run_until(lambda name=name: state_of(world, name) is NodeState.DOWN and settled(world))  # type: ignore[misc]
    assert votes(world) == {"n1"}
    world.kill_host("n1")
    world.run(10.0)
    assert not vm_runs(world, "a")
    world.start_host("n1")
    world.run_until(
        lambda: vm_runs(world, "a"), explain=lambda: world.cluster and world.cluster.quorum_view()
    )


def test_hosts_that_all_lose_power_at_once_come_back_and_give_each_others_former_lives_up() -> None:
    world = ready_world(3)
    world.create("a", "n1")
    world.run_until(lambda: vm_runs(world, "a"))
    for name in ("n1", "n2", "n3"):
        world.kill_host(name)
    for name in ("n1", "n2", "n3"):
        world.start_host(name)
    world.run_until(lambda: all_up(world) and vm_runs(world, "a"))


# --- who has a vote -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("era", "hosts", "witness", "expected"),
    [
        (Era.WS2008R2, 4, True, {"n1", "n2", "n3", "n4", WITNESS}),
        (Era.WS2008R2, 4, False, {"n1", "n2", "n3", "n4"}),
        (Era.WS2012, 3, True, {"n1", "n2", "n3", WITNESS}),
        (Era.WS2012R2, 3, True, {"n1", "n2", "n3"}),
        (Era.WS2012R2, 4, True, {"n1", "n2", "n3", "n4", WITNESS}),
        (Era.WS2012R2, 4, False, {"n1", "n2", "n3"}),
    ],
)
def test_votes_follow_the_eras_rules(era: Era, hosts: int, witness: bool, expected: set[str]) -> None:
    assert votes(ready_world(hosts, era, witness=witness)) == expected


def test_dynamic_quorum_follows_the_living_down_to_the_last() -> None:
    world = ready_world(5)
    world.create("a", "n5")
    world.run_until(lambda: vm_runs(world, "a"))
    for last, expected in (
        ("n5", {"n1", "n2", "n3", "n4", WITNESS}),
        ("n4", {"n1", "n2", "n3"}),
        ("n3", {"n1", "n2", WITNESS}),
        ("n2", {"n1"}),
    ):
        world.kill_host(last)
        world.run_until(lambda last=last: state_of(world, last) is NodeState.DOWN and settled(world))  # type: ignore[misc]
        assert votes(world) == expected
        world.run_until(lambda: vm_runs(world, "a"))
    for name in ("n2", "n3", "n4", "n5"):
        world.start_host(name)
    world.run_until(lambda: all_up(world) and settled(world))
    assert votes(world) == {"n1", "n2", "n3", "n4", "n5"}


def test_a_witness_that_falls_silent_loses_its_vote_and_gets_it_back() -> None:
    world = ready_world(2)
    world.ballots.witness.alive = False
    world.run_until(lambda: votes(world) == {"n1"})
    world.ballots.witness.alive = True
    world.run_until(lambda: votes(world) == {"n1", "n2", WITNESS})


def test_an_evicted_node_leaves_no_vote_behind_dead_or_alive() -> None:
    world = ready_world(4)
    world.ask(lambda number: EvictNode(number, "n4"))
    world.kill_host("n3")
    certify(world, "n3")
    world.ask(lambda number: EvictNode(number, "n3"))
    world.run_until(lambda: settled(world) and votes(world) == {"n1", "n2", WITNESS})
    assert world.cluster is not None
    assert world.cluster.state.quorum.voters == ("uuid-n1", "uuid-n2")


@pytest.mark.parametrize("hosts", [1, 2])
def test_a_cluster_outlives_the_eviction_of_its_only_voter(hosts: int) -> None:
    world = ready_world(hosts, witness=False)
    assert votes(world) == {"n1"}
    world.ask(lambda number: EvictNode(number, "n1"))
    world.run_until(lambda: world.cluster is not None and "n1" not in world.cluster.state.nodes)
    world.kill_host("n1")  # as an agent does that is sent away
    world.start_host("n9")
    world.run_until(lambda: settled(world) and votes(world) == ({"n9"} if hosts == 1 else {"n2"}))


def test_an_admin_changes_the_witness_and_static_votes_stay_with_the_dead() -> None:
    world = ready_world(3)
    world.ask(lambda number: SetQuorum(number, None, False))
    world.run_until(lambda: settled(world) and votes(world) == {"n1", "n2", "n3", WITNESS})
    world.kill_host("n3")
    certify(world, "n3")
    world.run(5.0)
    assert votes(world) == {"n1", "n2", "n3", WITNESS}
    world.ask(lambda number: SetQuorum(number, "", True))
    world.run_until(lambda: settled(world) and votes(world) == {"n1"})
    world.ask(lambda number: SetQuorum(number, ADDRESS, None))
    world.run_until(lambda: settled(world) and votes(world) == {"n1", "n2", WITNESS})
