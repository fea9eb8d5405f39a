"""Rules of moves in the cluster core, as the lists of commands that events lead to."""

import pytest
from tests.unit.cluster.core_bench import LOST_AFTER_S, MIB, Bench, commit_of, orders

from ferry_cluster.commands import Guard, Reply
from ferry_cluster.inputs import (
    CancelMove,
    DeathCertified,
    HostMessage,
    StreamClosed,
    Tick,
    TurnOffVm,
)
from ferry_cluster.moves import HISTORY_MAX
from ferry_cluster.records import Origin, Ownership
from ferry_cluster.turn import InvalidTransition, Turn
from ferry_types.eras import Era
from ferry_types.errors import Refusal, failed
from ferry_types.messages import (
    Armed,
    ArmHandOff,
    CancelMigration,
    DeathCertificate,
    DiscardVm,
    EpochRaised,
    HostEnvelope,
    ImageReport,
    IncomingPrepared,
    OrderRefused,
    PrepareIncoming,
    ProposeAbort,
    RaiseEpoch,
    Renewal,
    ResumeSource,
    RunVm,
    SourceReleased,
    StartVm,
    TargetReady,
    TargetRuns,
    VmRunning,
    Welcome,
)
from ferry_types.migrations import HandOffTimes, MigrationFigures, MigrationState
from ferry_types.vms import ImagePhase


def test_the_move_is_committed_by_one_guarded_compare_and_set() -> None:
    bench = Bench()
    bench.arm()
    commands = bench.say(2, TargetReady("m1"))
    commit = commit_of(commands)
    assert commit.term == 1
    assert commit.guards == (Guard("owner/a", Ownership("a", 1, "h1", "life-1", Origin.BOOT)),)
    assert commit.writes == (Ownership("a", 2, "h2", "life-2", Origin.MOVE, "m1"),)
    assert orders(commands, 2) == [RunVm("m1", "a", 2)]
    assert orders(commands, 1) == []


def test_a_source_whose_guest_has_crashed_ends_the_move_and_loses_the_vm() -> None:
    bench = Bench()
    bench.arm()
    commands = bench.say(1, OrderRefused("a", 1, failed("its guest crashed")))
    assert bench.cluster.state.migrations["m1"].state is MigrationState.FAILED
    assert Ownership("a", 2, "h2", "life-2", Origin.BOOT) in commit_of(commands).writes
    assert [type(order) for order in orders(commands, 2)] == [CancelMigration, StartVm]
    assert RunVm not in [type(order) for order in orders(bench.say(2, TargetReady("m1")), 2)]


def test_the_source_lets_go_only_when_the_target_runs() -> None:
    bench = Bench()
    bench.arm()
    bench.say(2, TargetReady("m1"))
    bench.say(2, RaiseEpoch("a", 2))
    times = HandOffTimes(12.2, 12.4)
    commands = bench.say(2, VmRunning("a", 2, "m1", 12.5, times))
    assert orders(commands, 1) == [TargetRuns("m1", "a", 2, 12.5, times, "127.0.0.1:2")]


def test_to_ask_is_to_propose_abort_and_one_wins() -> None:
    bench = Bench()
    bench.arm()
    commands = bench.say(1, ProposeAbort("m1", "the stream broke"))
    assert Ownership("a", 2, "h1", "life-1", Origin.ABORT, "m1") in commit_of(commands).writes
    assert orders(commands, 1) == [ResumeSource("m1", "a", 2)]
    late = bench.say(2, TargetReady("m1"))
    assert orders(late, 2) == [CancelMigration("m1", "the move has ended")]
    assert bench.cluster.state.owners["a"].node == "h1"


def test_an_abort_after_the_commit_changes_nothing() -> None:
    bench = Bench()
    bench.arm()
    bench.say(2, TargetReady("m1"))
    assert bench.say(1, ProposeAbort("m1", "the stream broke")) == []
    assert bench.cluster.state.owners["a"].node == "h2"


def committed() -> Bench:
    bench = Bench()
    bench.arm()
    bench.say(2, TargetReady("m1"))
    return bench


TAKEN_BACK = Ownership("a", 3, "h1", "life-1", Origin.TAKE_BACK, "m1")


def test_a_target_that_dies_after_the_commit_is_taken_back_from() -> None:
    bench = committed()
    commands = bench.handle(DeathCertified(DeathCertificate("h2", "life-2", "killed")))
    assert TAKEN_BACK in commit_of(commands).writes
    assert orders(commands, 1) == [ResumeSource("m1", "a", 3, unless_raised=2)]
    assert bench.cluster.migration_view("m1").record.reason == "target h2 was lost after the hand-off"
    assert orders(bench.say(1, RaiseEpoch("a", 3, unless_raised=2)), 1) == [EpochRaised("a", 3, True)]
    repeated = bench.say(1, RaiseEpoch("a", 3, unless_raised=2))
    assert orders(repeated, 1) == [EpochRaised("a", 3, True)], "its own raise is no reason to fail"


def test_a_target_that_refuses_the_commit_is_taken_back_from() -> None:
    bench = committed()
    commands = bench.say(2, OrderRefused("a", 2, failed("it is not here")))
    assert TAKEN_BACK in commit_of(commands).writes
    assert StartVm not in [type(order) for number in (1, 2) for order in orders(commands, number)]


def test_what_the_target_has_raised_is_booted_cold() -> None:
    bench = committed()
    bench.say(2, RaiseEpoch("a", 2))
    bench.handle(DeathCertified(DeathCertificate("h2", "life-2", "killed")))
    assert orders(bench.say(1, RaiseEpoch("a", 3, unless_raised=2)), 1) == [EpochRaised("a", 3, False)]
    commands = bench.say(1, OrderRefused("a", 3, failed("this image is old")))
    assert Ownership("a", 4, "h1", "life-1", Origin.BOOT) in commit_of(commands).writes
    assert [type(order) for order in orders(commands, 1)] == [StartVm]


def test_what_the_target_is_known_to_run_is_not_taken_back() -> None:
    bench = committed()
    bench.say(2, RaiseEpoch("a", 2))
    bench.say(2, VmRunning("a", 2, "m1", 12.5))
    commands = bench.handle(DeathCertified(DeathCertificate("h2", "life-2", "killed")))
    assert [type(order) for order in orders(commands, 1)] == [DiscardVm, StartVm]


def test_a_source_that_rejoins_is_told_again_what_it_takes_back() -> None:
    bench = committed()
    bench.handle_closed(1)
    bench.handle(DeathCertified(DeathCertificate("h2", "life-2", "killed")))
    report = ImageReport("a", 1, ImagePhase.AWAITING, "m1")
    told = orders(bench.join(1, stream=3, images=(report,)), 3)
    assert ResumeSource("m1", "a", 3, unless_raised=2) in told
    assert DiscardVm not in [type(order) for order in told]
    asked = orders(bench.say(3, ProposeAbort("m1", "the stream broke"), life="life-1"), 3)
    assert asked == [ResumeSource("m1", "a", 3, unless_raised=2)]


def test_what_was_handed_over_since_its_inventory_was_made_stays() -> None:
    bench = committed()
    report = ImageReport("a", 1, ImagePhase.SWITCHING, "m1")
    told = orders(bench.join(1, stream=3, images=(report,)), 3)
    assert [type(order) for order in told] == [Welcome]


def test_a_target_in_a_new_session_is_not_committed_to() -> None:
    bench = Bench()
    bench.arm()
    commands = bench.join(2, session=2)
    assert bench.cluster.state.migrations["m1"].state is MigrationState.FAILED
    assert orders(commands, 1) == [ResumeSource("m1", "a", 2)]
    assert RunVm not in [type(order) for order in orders(bench.say(2, TargetReady("m1")), 2)]


def test_a_cancel_after_the_commit_is_refused() -> None:
    bench = Bench()
    bench.arm()
    bench.say(2, TargetReady("m1"))
    [reply] = [c for c in bench.handle(CancelMove(3, "m1")) if isinstance(c, Reply)]
    assert isinstance(reply.result, Refusal)
    assert reply.result.rule == "before the commit"


def test_arming_a_cancelled_move_is_refused() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.migrate("a", "h2")
    bench.say(2, IncomingPrepared("m1"))
    bench.handle(CancelMove(3, "m1"))
    sent = orders(bench.say(1, ArmHandOff("m1")), 1)
    assert Armed("m1") not in sent
    assert sent == [CancelMigration("m1", "the move has ended")]


def test_era_2008r2_allows_one_move_per_host() -> None:
    bench = Bench(3, Era.WS2008R2)
    bench.run_vm("a", 1)
    bench.run_vm("b", 1)
    assert [type(o) for o in orders(bench.migrate("a", "h2"), 2)] == [PrepareIncoming]
    assert orders(bench.migrate("b", "h3"), 3) == []
    assert bench.cluster.migration_view("m2").record.reason == "waits for a free slot on h1 (1 of 1 in use)"


def test_unknown_steps_of_a_move_are_refused_with_its_story() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.migrate("a", "h2")
    cluster = bench.cluster
    turn = Turn(cluster.settings, cluster.state, 1, bench.now)
    with pytest.raises(InvalidTransition, match="m1 of a: preparing -> completed"):
        turn.move_to(cluster.state.migrations["m1"], MigrationState.COMPLETED)


def test_a_vm_that_is_being_stopped_does_not_move() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.handle(TurnOffVm(3, "a"))
    [reply] = [c for c in bench.migrate("a", "h2") if isinstance(c, Reply)]
    assert isinstance(reply.result, Refusal)
    assert reply.result.rule == "vm stopping"


def test_the_source_keeps_its_memory_until_it_has_let_go() -> None:
    bench = Bench()
    bench.arm()
    bench.say(2, TargetReady("m1"))
    assert bench.cluster.state.memory_used_bytes() == {"h1": 16 * MIB, "h2": 16 * MIB}
    bench.say(2, RaiseEpoch("a", 2))
    bench.say(2, VmRunning("a", 2, "m1", 12.5))
    bench.say(1, SourceReleased("m1", MigrationFigures()))
    assert bench.cluster.state.memory_used_bytes() == {"h1": 0, "h2": 16 * MIB}


def test_a_source_lost_in_the_black_out_is_told_to_drop_its_image_when_it_comes_back() -> None:
    bench = Bench()
    bench.arm()
    bench.say(2, TargetReady("m1"))
    until = bench.now + LOST_AFTER_S
    while bench.now < until:
        bench.now += 0.2
        bench.say(2, Renewal(2))
        bench.handle(Tick())
    handed_over = ImageReport("a", 1, ImagePhase.AWAITING, "m1")
    sent = orders(bench.join(1, stream=5, session=2, images=(handed_over,)), 5)
    assert DiscardVm("a", 1) not in sent, "the target may not have raised its epoch yet"
    bench.say(2, RaiseEpoch("a", 2))
    bench.handle(StreamClosed(5))
    until = bench.now + LOST_AFTER_S
    while bench.now < until:
        bench.now += 0.2
        bench.say(2, Renewal(3))
        bench.handle(Tick())
    bench.say(2, VmRunning("a", 2, "m1", 12.5))
    assert bench.cluster.state.migrations["m1"].state is MigrationState.COMPLETED
    sent = orders(bench.join(1, stream=6, session=3, images=(handed_over,)), 6)
    assert DiscardVm("a", 1) in sent
    late = bench.handle(HostMessage(6, HostEnvelope("life-1", 3, ProposeAbort("m1", "the stream broke"))))
    assert orders(late, 6) == [DiscardVm("a", 1)]


def test_a_source_that_missed_the_cancel_is_told_again() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.migrate("a", "h2")
    bench.say(2, IncomingPrepared("m1"))
    bench.handle(StreamClosed(1))
    bench.handle(CancelMove(3, "m1"))
    copying = ImageReport("a", 1, ImagePhase.RUNNING, "m1")
    sent = orders(bench.join(1, stream=5, images=(copying,)), 5)
    assert CancelMigration("m1", "the move has ended") in sent


def test_a_queued_move_waits_until_its_vm_goes_on() -> None:
    bench = Bench(3, Era.WS2008R2)
    bench.run_vm("a", 1)
    bench.run_vm("b", 1)
    bench.migrate("a", "h2")
    bench.migrate("b", "h3")
    bench.join(1, session=2, images=(ImageReport("b", 1, ImagePhase.RUNNING),))
    assert orders(bench.handle(CancelMove(3, "m1")), 3) == []
    running = bench.say(1, VmRunning("b", 1, "", 0.0), session=2)
    assert [type(order) for order in orders(running, 3)] == [PrepareIncoming]


def test_history_is_bounded() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    for number in range(1, HISTORY_MAX + 6):
        bench.migrate("a", "h2")
        bench.handle(CancelMove(3, f"m{number}"))
    assert len(bench.cluster.state.migrations) == HISTORY_MAX
    assert f"m{HISTORY_MAX + 5}" in bench.cluster.state.migrations
