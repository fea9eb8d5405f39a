"""Rules of the cluster core, as the lists of commands that events lead to."""

from dataclasses import replace
from typing import Any

import pytest

from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import CheckTerm, CloseStream, Command, Commit, Guard, Reply, Send
from ferry_cluster.inputs import (
    CancelMove,
    CreateVm,
    HostMessage,
    MigrateVm,
    RemoveVm,
    StreamClosed,
    Tick,
    TurnOffVm,
)
from ferry_cluster.invariants import InvariantViolation
from ferry_cluster.moves import HISTORY_MAX
from ferry_cluster.records import NodeRecord, Origin, Ownership, Record
from ferry_cluster.state import ClusterSettings
from ferry_cluster.turn import InvalidTransition, Turn
from ferry_types.eras import Era
from ferry_types.errors import Refusal, refused
from ferry_types.messages import (
    Armed,
    ArmHandOff,
    CancelMigration,
    DiscardVm,
    EpochRaised,
    FromHost,
    Grant,
    HostEnvelope,
    ImageReport,
    IncomingPrepared,
    Join,
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
    VmStopped,
    Welcome,
)
from ferry_types.migrations import MigrationFigures, MigrationOptions, MigrationState
from ferry_types.profiles import PROFILES
from ferry_types.vms import Capacity, ImagePhase, Priority, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve

MIB = 2**20
FAST = PROFILES["fast"]
LOST_AFTER_S = FAST.coordinator_span_s


def make_spec(name: str, memory_bytes: int = 16 * MIB) -> VmSpec:
    return VmSpec(name, memory_bytes, resolve("idle", memory_bytes), FillSpec(Fill.ZERO))


class Bench:
    """A cluster core with hosts h1, h2, ... on streams 1, 2, ..., driven by hand."""

    def __init__(self, hosts: int = 2, era: Era = Era.WS2012R2) -> None:
        self.now = 100.0
        self.cluster = Cluster(ClusterSettings("c", era, FAST), 1, [], self.now)
        for number in range(1, hosts + 1):
            self.join(number)
            self.say(number, Renewal(1))

    def handle(self, event: Any) -> list[Command]:
        commands = self.cluster.handle(event, self.now)
        self.cluster.check()
        return commands

    def say(self, number: int, body: FromHost, session: int = 1, life: str = "") -> list[Command]:
        envelope = HostEnvelope(life or f"life-{number}", session, body)
        return self.handle(HostMessage(number, envelope))

    def join(self, number: int, **changes: Any) -> list[Command]:
        stream = changes.pop("stream", number)
        session, life = changes.pop("session", 1), changes.pop("life", f"life-{number}")
        fields: dict[str, Any] = {
            "name": f"h{number}",
            "uuid": f"uuid-{number}",
            "address": "127.0.0.1:1",
            "echo_address": "127.0.0.1:2",
            "capacity": Capacity(64 * MIB, 2, 2),
            "version": "0",
            "images": (),
            **changes,
        }
        return self.handle(HostMessage(stream, HostEnvelope(life, session, Join(**fields))))

    def run_vm(self, name: str, number: int) -> None:
        self.handle(CreateVm(7, make_spec(name), f"h{number}", True))
        epoch = self.cluster.state.owners[name].epoch
        self.say(number, RaiseEpoch(name, epoch))
        self.say(number, VmRunning(name, epoch, "", 0.0))

    def migrate(self, vm: str, to: str) -> list[Command]:
        return self.handle(MigrateVm(9, vm, to, MigrationOptions(), False, "token", 1))

    def arm(self) -> None:
        """A move m1 of VM a from h1 to h2, armed."""
        self.run_vm("a", 1)
        self.migrate("a", "h2")
        self.say(2, IncomingPrepared("m1"))
        self.say(1, ArmHandOff("m1"))

    def wait(self, seconds: float) -> None:
        """Time goes by while the coordinator looks at its clock."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.2)
            self.handle(Tick())


def orders(commands: list[Command], number: int) -> list[Any]:
    return [c.order.body for c in commands if isinstance(c, Send) and c.stream == number]


def commit_of(commands: list[Command]) -> Commit:
    """The one commit, which stands before everything that is told."""
    assert isinstance(commands[0], Commit)
    assert sum(isinstance(c, Commit) for c in commands) == 1
    return commands[0]


def test_a_grant_waits_for_the_term() -> None:
    bench = Bench(1)
    commands = bench.say(1, Renewal(5))
    assert commands[0] == CheckTerm(1)
    assert orders(commands, 1) == [Grant(5)]


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
    [again] = bench.join(1, stream=9, life="copy of the data directory")
    assert isinstance(again, CloseStream)


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


def test_the_source_lets_go_only_when_the_target_runs() -> None:
    bench = Bench()
    bench.arm()
    bench.say(2, TargetReady("m1"))
    bench.say(2, RaiseEpoch("a", 2))
    commands = bench.say(2, VmRunning("a", 2, "m1", 12.5))
    assert orders(commands, 1) == [TargetRuns("m1", "a", 2, 12.5)]


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


def test_a_target_in_a_new_session_is_not_committed_to() -> None:
    bench = Bench()
    bench.arm()
    commands = bench.join(2, session=2)
    assert bench.cluster.state.migrations["m1"].state is MigrationState.FAILED
    assert orders(commands, 1) == [ResumeSource("m1", "a", 2)]
    assert orders(bench.say(2, TargetReady("m1")), 2) == []


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


def test_a_removed_vms_epochs_are_not_used_again() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.handle(TurnOffVm(3, "a"))
    bench.say(1, VmStopped("a", 1))
    bench.handle(RemoveVm(4, "a"))
    commands = bench.handle(CreateVm(7, make_spec("a"), "h1", True))
    assert orders(commands, 1) == [StartVm(make_spec("a"), 2)]


def test_unknown_steps_of_a_move_are_refused_with_its_story() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.migrate("a", "h2")
    cluster = bench.cluster
    turn = Turn(cluster.settings, cluster.state, 1, bench.now)
    with pytest.raises(InvalidTransition, match="m1 of a: preparing -> completed"):
        turn.move_to(cluster.state.migrations["m1"], MigrationState.COMPLETED)


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
    assert orders(bench.say(2, Renewal(2)), 2) == [Grant(2), StartVm(make_spec("a"), 3)]


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


def test_a_vm_that_is_being_stopped_does_not_move() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.handle(TurnOffVm(3, "a"))
    [reply] = [c for c in bench.migrate("a", "h2") if isinstance(c, Reply)]
    assert isinstance(reply.result, Refusal)
    assert reply.result.rule == "vm stopping"


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


def test_copies_are_independent_and_fingerprints_canonical() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    state = bench.cluster.state
    copied = state.copy()
    assert copied.fingerprint() == state.fingerprint()
    bench.run_vm("b", 2)
    assert "b" not in copied.vms
    assert copied.fingerprint() != state.fingerprint()


def test_history_is_bounded() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    for number in range(1, HISTORY_MAX + 6):
        bench.migrate("a", "h2")
        bench.handle(CancelMove(3, f"m{number}"))
    assert len(bench.cluster.state.migrations) == HISTORY_MAX
    assert f"m{HISTORY_MAX + 5}" in bench.cluster.state.migrations


def test_a_node_record_survives_with_its_identity() -> None:
    bench = Bench(1)
    node = bench.cluster.state.nodes["h1"]
    assert isinstance(node, NodeRecord)
    assert (node.uuid, node.up) == ("uuid-1", True)
