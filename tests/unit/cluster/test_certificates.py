"""Death certificates at the cluster core (rule C1)."""

from dataclasses import replace

import pytest
from tests.unit.cluster.core_bench import Bench, commit_of, orders

from ferry_cluster.commands import CloseStream, Command, Commit, Send
from ferry_cluster.inputs import DeathCertified
from ferry_cluster.records import NodeRecord, Origin, Ownership
from ferry_types.messages import DeathCertificate, Renewal, StartVm, Wait, Welcome

KILLED = "it was killed by SIGKILL"


def certify(bench: Bench, number: int = 1, life: str = "life-1") -> list[Command]:
    return bench.handle(DeathCertified(DeathCertificate(f"h{number}", life, KILLED)))


def test_a_certified_node_is_lost_at_once_and_its_vms_are_given_to_others() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    commands = certify(bench)
    commit = commit_of(commands)
    assert Ownership("a", 2, "h2", "life-2", Origin.BOOT) in commit.writes
    assert [record.up for record in commit.writes if isinstance(record, NodeRecord)] == [False]
    assert [order.epoch for order in orders(commands, 2) if isinstance(order, StartVm)] == [2]
    assert [command.stream for command in commands if isinstance(command, CloseStream)] == [1]


def test_a_proof_needs_no_waiting_after_a_stall() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.now += 60.0
    certify(bench)
    assert bench.cluster.state.owners["a"].node != "h1"


@pytest.mark.parametrize(("number", "life"), [(1, "life-0"), (1, ""), (9, "life-1")])
def test_a_certificate_of_another_life_or_node_changes_nothing(number: int, life: str) -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    before = dict(bench.cluster.state.owners)
    assert certify(bench, number, life) == []
    assert bench.cluster.state.owners == before
    assert bench.cluster.state.nodes["h1"].up


def test_a_repeated_certificate_changes_nothing() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    certify(bench)
    owner = bench.cluster.state.owners["a"]
    assert not [command for command in certify(bench) if isinstance(command, Commit | Send)]
    assert bench.cluster.state.owners["a"] == owner


def test_no_session_of_a_dead_life_joins_again() -> None:
    bench = Bench()
    certify(bench)
    commands = bench.join(1, stream=5, session=7)
    assert [command.stream for command in commands if isinstance(command, CloseStream)] == [5]
    assert not bench.cluster.state.nodes["h1"].up


def test_a_life_that_waits_for_its_predecessor_is_admitted_by_the_certificate() -> None:
    bench = Bench()
    bench.handle_closed(1)
    waiting = bench.join(1, stream=5, life="life-9")
    assert [type(order) for order in orders(waiting, 5)] == [Wait]
    commands = certify(bench)
    assert Welcome in [type(order) for order in orders(commands, 5)]
    assert bench.cluster.state.nodes["h1"] == replace(
        bench.cluster.state.nodes["h1"], incarnation="life-9", up=True
    )
    assert orders(bench.say(1, Renewal(2)), 1) == []
