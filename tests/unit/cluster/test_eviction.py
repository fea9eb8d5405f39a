"""Evicting nodes at the cluster core."""

from typing import Any

import pytest
from tests.unit.cluster.core_bench import LOST_AFTER_S, Bench, commit_of

from ferry_cluster.commands import CloseStream, Command, Reply
from ferry_cluster.inputs import EvictNode, Tick, TurnOffVm
from ferry_types.errors import Refusal
from ferry_types.messages import Renewal, VmStopped, VotesRecorded


def evict(bench: Bench, node: str = "h1") -> list[Command]:
    return bench.handle(EvictNode(8, node))


def answer(commands: list[Command]) -> Any:
    return next(command.result for command in commands if isinstance(command, Reply))


def nothing_is_left(bench: Bench, node: str = "h1") -> bool:
    state = bench.cluster.state
    kept = (state.nodes, state.attendance, state.pending, state.streams.values())
    return not any(node in names for names in kept)


def test_a_live_node_without_vms_is_forgotten_and_sent_away() -> None:
    bench = Bench()
    commands = evict(bench)
    assert answer(commands) == "h1"
    assert commit_of(commands).deletes == ("node/h1",)
    (closed,) = [command for command in commands if isinstance(command, CloseStream)]
    assert (closed.stream, closed.reason.rule) == (1, "evicted")
    assert nothing_is_left(bench)
    assert bench.say(1, Renewal(2)) == []


def test_a_dead_node_is_forgotten_and_never_judged_again() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.wait(LOST_AFTER_S + 1.0)
    assert answer(evict(bench)) == "h1"
    assert nothing_is_left(bench)
    bench.wait(LOST_AFTER_S + 1.0)
    assert bench.cluster.node_views() == [bench.cluster.node_view("h2")]


def test_a_life_that_waits_to_join_goes_with_its_node() -> None:
    bench = Bench()
    bench.handle_closed(1)
    bench.join(1, stream=5, life="life-9")
    commands = evict(bench)
    assert [command.stream for command in commands if isinstance(command, CloseStream)] == [5]
    assert nothing_is_left(bench)


def test_a_node_with_vms_stays_until_they_are_gone() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    refusal = answer(evict(bench))
    assert isinstance(refusal, Refusal)
    assert (refusal.rule, "h1 has VMs: a" in refusal.message) == ("node empty", True)
    bench.handle(TurnOffVm(9, "a"))
    bench.say(1, VmStopped("a", bench.cluster.state.owners["a"].epoch))
    assert answer(evict(bench)) == "h1"


@pytest.mark.parametrize("node", ["h1", "h2"])
def test_a_node_in_a_move_stays(node: str) -> None:
    bench = Bench()
    bench.arm()
    assert isinstance(answer(evict(bench, node)), Refusal)
    assert node in bench.cluster.state.nodes


def test_an_unknown_node_cannot_be_evicted() -> None:
    assert answer(evict(Bench(), "h9")).code == "not_found"


def test_an_evicted_host_may_join_as_a_new_node() -> None:
    bench = Bench()
    evict(bench)
    bench.join(1, stream=7, life="life-9")
    assert bench.cluster.state.nodes["h1"].incarnation == "life-9"


def test_a_node_keeps_its_place_until_its_vote_is_gone() -> None:
    bench = Bench(2, forced=False)
    assert bench.cluster.state.proposal is not None
    bench.say(1, VotesRecorded(1))
    assert bench.cluster.state.quorum.voters == ("uuid-1",)
    assert not [command for command in evict(bench) if isinstance(command, Reply)]
    commands: list[Command] = []
    for number in (2, 3):
        for voter in (1, 2):
            commands += bench.say(voter, VotesRecorded(number))
    assert answer(commands) == "h1"
    assert nothing_is_left(bench)
    assert bench.cluster.state.quorum.voters == ("uuid-2",)
    assert not bench.cluster.state.evicting


def test_a_vote_that_no_majority_takes_away_keeps_its_node() -> None:
    bench = Bench(2, forced=False)
    bench.say(1, VotesRecorded(1))
    evict(bench)
    commands: list[Command] = []
    end = bench.now + LOST_AFTER_S + 1.0
    while bench.now < end:
        bench.now += 0.2
        for number in (1, 2):
            commands += bench.say(number, Renewal(int(bench.now * 1000)))
        commands += bench.handle(Tick())
    assert answer(commands).rule == "quorum"
    assert "h1" in bench.cluster.state.nodes
    assert not bench.cluster.state.evicting
