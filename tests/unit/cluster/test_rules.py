"""Rules of the cluster core, as the lists of commands that events lead to."""

from dataclasses import replace

import pytest
from tests.unit.cluster.core_bench import FAST, LOST_AFTER_S, Bench, commit_of, make_spec, orders

from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import CheckTerm, CloseStream, Commit, Guard, Reply
from ferry_cluster.inputs import (
    CreateVm,
    RemoveVm,
    StreamClosed,
    Tick,
    TurnOffVm,
)
from ferry_cluster.invariants import InvariantViolation
from ferry_cluster.records import Origin, Ownership, Record
from ferry_types.errors import Refusal, refused
from ferry_types.messages import (
    EpochRaised,
    Grant,
    OrderRefused,
    RaiseEpoch,
    Renewal,
    StartVm,
    VmStopped,
    Welcome,
)
from ferry_types.roles import Priority


def test_a_grant_waits_for_the_term() -> None:
    bench = Bench(1)
    commands = bench.say(1, Renewal(5))
    assert commands[0] == CheckTerm(1)
    assert orders(commands, 1) == [Grant(5, 0, bench.cluster.state.quorum.number)]


@pytest.mark.parametrize(("session", "life"), [(2, "life-1"), (1, "life-9")])
def test_other_sessions_and_lives_are_not_heard(session: int, life: str) -> None:
    bench = Bench(1)
    assert bench.say(1, Renewal(5), session, life) == []


def test_a_start_is_committed_before_it_is_ordered() -> None:
    bench = Bench()
    commands = bench.handle(CreateVm(7, make_spec("a"), "h1", True))
    commit = commit_of(commands)
    owner = Ownership("a", 1, "h1", "life-1", Origin.BOOT)
    assert owner in commit.writes
    assert Guard("owner/a", None) in commit.guards
    assert orders(commands, 1) == [StartVm(make_spec("a"), 1)]


def test_only_the_owner_raises_and_never_down() -> None:
    bench = Bench()
    bench.handle(CreateVm(7, make_spec("a"), "h1", True))
    assert orders(bench.say(2, RaiseEpoch("a", 1)), 2) == [EpochRaised("a", 1, False)]
    assert orders(bench.say(1, RaiseEpoch("a", 2)), 1) == [EpochRaised("a", 2, False)]
    assert orders(bench.say(1, RaiseEpoch("a", 1)), 1) == [EpochRaised("a", 1, True)]
    repeated = bench.say(1, RaiseEpoch("a", 1))
    assert orders(repeated, 1) == [EpochRaised("a", 1, True)]
    assert not [c for c in repeated if isinstance(c, Commit)]


def test_nobody_is_judged_before_the_lease_and_its_margin() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.say(1, Renewal(2))
    until = bench.now + LOST_AFTER_S
    while bench.now < until - 0.2:
        bench.now += 0.15
        bench.say(2, Renewal(2))
        bench.handle(Tick())
    assert bench.cluster.state.owners["a"].node == "h1"
    bench.now = until
    commands = bench.handle(Tick())
    commit = commit_of(commands)
    before = Ownership("a", 1, "h1", "life-1", Origin.BOOT)
    assert Guard("owner/a", before) in commit.guards
    assert Ownership("a", 2, "h2", "life-2", Origin.BOOT) in commit.writes
    assert orders(commands, 2) == [StartVm(make_spec("a"), 2)]


def test_a_closed_stream_proves_nothing() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    assert not [c for c in bench.handle(StreamClosed(1)) if isinstance(c, Commit)]
    assert bench.cluster.state.owners["a"].node == "h1"
    assert bench.cluster.state.nodes["h1"].up


def test_a_stalled_coordinator_judges_nobody_for_a_whole_lease() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.now += 60.0
    bench.handle(Tick())
    assert bench.cluster.state.nodes["h1"].up
    bench.wait(LOST_AFTER_S - 0.1)
    assert bench.cluster.state.nodes["h1"].up
    bench.wait(0.2)
    assert not bench.cluster.state.nodes["h1"].up


def test_a_restarted_coordinator_judges_nobody_for_a_whole_lease() -> None:
    bench = Bench()
    records = list(bench.cluster.state.nodes.values())
    cluster = Cluster(bench.cluster.settings, 2, records, 500.0)
    now = 500.0
    while now < 500.0 + LOST_AFTER_S - 0.1:
        now += 0.05
        cluster.handle(Tick(), now)
        assert cluster.state.nodes["h1"].up
    cluster.handle(Tick(), now + 0.1)
    assert not cluster.state.nodes["h1"].up


def test_a_live_name_is_not_given_away() -> None:
    bench = Bench()
    [closed] = bench.join(1, stream=8, uuid="other", life="thief")
    assert isinstance(closed, CloseStream)
    assert closed.reason.rule == "live name claimed"


def test_a_copy_of_a_host_is_sent_away_once_the_first_has_renewed_again() -> None:
    bench = Bench(1)
    until = bench.now + LOST_AFTER_S  # a coordinator that has just started judges nobody
    while bench.now < until:
        bench.now += FAST.beat_s
        bench.say(1, Renewal(2))
    bench.join(1, stream=9, life="copy of the data directory")
    assert bench.cluster.node_view("h1").state == "joining"
    assert not [c for c in bench.say(1, Renewal(2)) if isinstance(c, CloseStream)]
    bench.wait(2 * FAST.beat_s)
    closed, *_ = [c for c in bench.say(1, Renewal(3)) if isinstance(c, CloseStream)]
    assert (closed.stream, closed.reason.rule) == (9, "live name claimed")
    assert bench.cluster.node_view("h1").state == "up"


def test_renewals_that_a_frozen_coordinator_left_lying_turn_no_later_life_away() -> None:
    bench = Bench()
    bench.join(1, stream=9, life="second")
    bench.now += 10.0
    assert not [c for c in bench.say(1, Renewal(2)) if isinstance(c, CloseStream)]
    bench.handle(StreamClosed(1))
    until = bench.now + LOST_AFTER_S + 0.1
    while bench.now < until:
        bench.now += 0.2
        bench.say(2, Renewal(2))
        bench.handle(Tick())
    assert bench.cluster.state.nodes["h1"].incarnation == "second"


def test_a_new_life_waits_until_the_old_lease_has_run_out() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.handle(StreamClosed(1))
    waiting = bench.join(1, stream=8, life="second")
    assert not [o for o in orders(waiting, 8) if isinstance(o, Welcome)]
    assert bench.cluster.node_view("h1").state == "joining"
    until = bench.now + LOST_AFTER_S
    while bench.now < until:
        bench.now += 0.2
        bench.say(2, Renewal(2))
        bench.handle(Tick())
    assert bench.cluster.state.nodes["h1"].incarnation == "second"
    assert bench.cluster.state.owners["a"].node == "h2"
    bench.cluster.check()


def test_the_lost_session_gets_no_more_grants() -> None:
    bench = Bench()
    until = bench.now + LOST_AFTER_S
    while bench.now <= until:
        bench.now += 0.2
        bench.say(2, Renewal(2))
        bench.handle(Tick())
    assert not bench.cluster.state.nodes["h1"].up
    assert orders(bench.say(1, Renewal(9)), 1) == []
    [closed] = bench.join(1, stream=5)
    assert isinstance(closed, CloseStream)
    assert closed.reason.rule == "session"
    assert isinstance(bench.join(1, stream=6, session=2)[0], Commit)
    assert orders(bench.say(1, Renewal(9)), 1) == []


def test_a_removed_vms_epochs_are_not_used_again() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.handle(TurnOffVm(3, "a"))
    bench.say(1, VmStopped("a", 1))
    bench.handle(RemoveVm(4, "a"))
    commands = bench.handle(CreateVm(7, make_spec("a"), "h1", True))
    assert orders(commands, 1) == [StartVm(make_spec("a"), 2)]


def test_invariants_are_checked() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.cluster.state.put(Ownership("a", 9, "h2", "another life", Origin.BOOT))
    with pytest.raises(InvariantViolation, match="another life"):
        bench.cluster.check()


def test_a_raised_epoch_is_told_again_only_while_the_term_is_the_stores() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    assert bench.say(1, RaiseEpoch("a", 1))[0] == CheckTerm(1)


def lose_the_only_connected_host(bench: Bench) -> None:
    """VM a has no host then: h1 is lost, h2 is up and not connected."""
    bench.run_vm("a", 1)
    until = bench.now + LOST_AFTER_S
    while bench.now < until:
        bench.now += 0.2
        if bench.now < until - 1.0:
            bench.say(2, Renewal(2))
        elif bench.cluster.node_view("h2").reason == "":
            bench.handle(StreamClosed(2))
        bench.handle(Tick())
    assert bench.cluster.vm_view("a").state == "failed"
    assert bench.cluster.state.nodes["h2"].up


def test_a_vm_without_a_host_gets_the_one_that_comes_back() -> None:
    bench = Bench()
    lose_the_only_connected_host(bench)
    assert orders(bench.join(2), 2)[-1] == StartVm(make_spec("a"), 3)


def test_a_restarted_coordinator_places_what_has_no_host() -> None:
    bench = Bench()
    lose_the_only_connected_host(bench)
    state = bench.cluster.state
    records: list[Record] = [*state.nodes.values(), *state.vms.values(), *state.owners.values()]
    bench.cluster = Cluster(bench.cluster.settings, 2, records, bench.now)
    assert orders(bench.join(2), 2)[-1] == StartVm(make_spec("a"), 3)


def test_after_a_stall_the_next_renewal_makes_a_host_a_target_again() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.now += 60.0
    commands = bench.say(1, OrderRefused("a", 1, refused("memory", "no room")))
    assert isinstance(commands[0], Commit)
    assert bench.cluster.state.owners["a"].node is None
    grant = Grant(2, 0, bench.cluster.state.quorum.number)
    assert orders(bench.say(2, Renewal(2)), 2) == [grant, StartVm(make_spec("a"), 3)]


def test_why_a_vm_has_no_host_stays_on_record() -> None:
    bench = Bench(1)
    bench.run_vm("a", 1)
    bench.say(1, OrderRefused("a", 1, refused("file", "no such file")))
    bench.run_vm("b", 1)
    assert "no such file" in bench.cluster.vm_view("a").reason


def test_a_vm_that_is_refused_while_it_is_being_stopped_is_off() -> None:
    bench = Bench()
    bench.handle(CreateVm(7, make_spec("a"), "h1", True))
    bench.handle(TurnOffVm(3, "a"))
    commands = bench.say(1, OrderRefused("a", 1, refused("file", "no such file")))
    assert Reply(3, "a") in commands
    assert orders(commands, 2) == []
    assert bench.cluster.vm_view("a").state == "off"


@pytest.mark.parametrize("request_", [TurnOffVm(3, "a"), RemoveVm(3, "a")])
def test_whoever_waits_for_a_start_hears_that_it_will_not_come(request_: TurnOffVm | RemoveVm) -> None:
    bench = Bench(1)
    bench.handle(CreateVm(7, make_spec("a"), "h1", True))
    bench.cluster.state.put(Ownership("a", 2))
    bench.handle(StreamClosed(1))
    answered = {c.request for c in bench.handle(request_) if isinstance(c, Reply)}
    assert answered == {3, 7}


@pytest.mark.parametrize("priority", [Priority.MEDIUM, Priority.NONE])
def test_whoever_waits_for_a_start_hears_of_a_loss_without_a_failover(priority: Priority) -> None:
    bench = Bench(1)
    bench.handle(CreateVm(7, replace(make_spec("a"), priority=priority), "h1", True))
    replies = []
    until = bench.now + LOST_AFTER_S
    while bench.now < until:
        bench.now += 0.2
        replies += [c for c in bench.handle(Tick()) if isinstance(c, Reply)]
    assert [reply.request for reply in replies] == [7]
    assert isinstance(replies[0].result, Refusal)


def test_copies_are_independent_and_fingerprints_canonical() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    state = bench.cluster.state
    copied = state.copy()
    assert copied.fingerprint() == state.fingerprint()
    bench.run_vm("b", 2)
    assert "b" not in copied.vms
    assert copied.fingerprint() != state.fingerprint()


def test_a_restarted_coordinator_still_knows_whose_a_name_is() -> None:
    before = Bench(1)
    after = Bench(0)
    after.cluster = Cluster(before.cluster.settings, 2, list(before.cluster.state.nodes.values()), after.now)
    [closed] = after.join(1, stream=8, uuid="other", life="thief")
    assert isinstance(closed, CloseStream)
    assert closed.reason.rule == "live name claimed"
    assert after.cluster.state.nodes["h1"].uuid == "uuid-1"
