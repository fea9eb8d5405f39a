"""Rules of the host core, as the lists of commands that events lead to."""

from typing import Any

import pytest

from ferry_host import commands, inputs
from ferry_host.host import Host
from ferry_host.state import HostIdentity
from ferry_host.turn import ENDED_MOVES_MAX, InvalidTransition, Turn
from ferry_types.errors import failed
from ferry_types.messages import (
    Armed,
    ArmHandOff,
    BeginOutgoing,
    CancelMigration,
    DiscardVm,
    EpochRaised,
    GoOn,
    Grant,
    HostOrder,
    Join,
    MigrationFailed,
    NicsChanged,
    OrderRefused,
    PrepareIncoming,
    ProposeAbort,
    RaiseEpoch,
    Renewal,
    ResumeSource,
    RunVm,
    SourceReleased,
    StartVm,
    StopVm,
    TargetReady,
    TargetRuns,
    VmRunning,
    VmStopped,
    Welcome,
)
from ferry_types.migrations import HandOffTimes, MigrationFigures, MigrationOptions
from ferry_types.networks import Nic, NicFault
from ferry_types.profiles import PROFILES
from ferry_types.vms import Capacity, ImagePhase, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve

MIB = 2**20
FAST = PROFILES["fast"]
BROKEN = failed("the stream broke")


def make_spec(name: str = "a") -> VmSpec:
    return VmSpec(name, 16 * MIB, resolve("idle", 16 * MIB), FillSpec(Fill.ZERO))


class Bench:
    """A host core with a lease, driven by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        identity = HostIdentity("h", "uuid", "life", "x:1", "x:2", Capacity(32 * MIB, 2, 2), "0")
        self.host = Host(identity)
        self.handle(inputs.Connected())
        self.order(Welcome("c", FAST.beat_s, FAST.lease_s, "2012r2"))
        self.renew()

    def handle(self, event: inputs.Event) -> list[commands.Command]:
        return self.host.handle(event, self.now)

    def order(self, body: Any, session: int | None = None, term: int = 1) -> list[commands.Command]:
        session = self.host.state.session if session is None else session
        return self.handle(inputs.OrderReceived(HostOrder(term, "life", session, body)))

    def renew(self) -> list[commands.Command]:
        [renewal] = reports(self.handle(inputs.Beat()))
        assert isinstance(renewal, Renewal)
        return self.order(Grant(renewal.seq))

    def run_vm(self, epoch: int = 1) -> None:
        self.order(StartVm(make_spec(), epoch))
        self.handle(inputs.Booted("a", epoch))
        self.order(EpochRaised("a", epoch, True))
        self.handle(inputs.QuantumRan("a", epoch, self.now))

    def begin(self) -> list[commands.Command]:
        return self.order(BeginOutgoing("m1", "t", "a", 1, "h2", "y:1", MigrationOptions()))

    def send_final(self) -> None:
        self.run_vm()
        self.begin()
        self.handle(inputs.SwitchDue("m1"))
        self.order(Armed("m1"))
        assert commands.SendFinal("m1") in self.handle(inputs.FinalCopyDue("m1"))

    def receive(self) -> None:
        self.order(PrepareIncoming("m1", "t", make_spec(), 1, "h1"))
        self.handle(inputs.IncomingAllocated("m1"))

    @property
    def phase(self) -> ImagePhase | None:
        image = self.host.state.images.get("a")
        return image.phase if image else None


def reports(done: list[commands.Command]) -> list[Any]:
    return [command.envelope.body for command in done if isinstance(command, commands.Report)]


def test_the_deadline_counts_from_sending() -> None:
    bench = Bench()
    bench.now += 0.25
    [renewal] = reports(bench.handle(inputs.Beat()))
    sent_at = bench.now
    bench.now += 0.5
    assert bench.order(Grant(renewal.seq)) == [commands.SetDeadline(sent_at + FAST.host_span_s)]


def test_a_grant_that_comes_too_late_revives_nothing() -> None:
    bench = Bench()
    [renewal] = reports(bench.handle(inputs.Beat()))
    bench.now += FAST.lease_s
    done = bench.order(Grant(renewal.seq))
    assert done[0] == commands.SetDeadline(None)
    assert bench.host.state.deadline_s is None


def test_whatever_comes_first_after_the_deadline_finds_the_gate_closed() -> None:
    bench = Bench()
    bench.run_vm()
    bench.now += FAST.lease_s
    done = bench.order(StopVm("a", 1))
    assert done[:2] == [commands.SetDeadline(None), commands.HoldVcpu("a")]
    assert isinstance(reports(done)[0], Join)
    assert bench.phase is ImagePhase.RUNNING, "an order of the session that ended was obeyed"
    assert bench.host.state.session == 2


def test_held_vms_go_on_only_when_told() -> None:
    bench = Bench()
    bench.run_vm()
    bench.now += FAST.lease_s
    bench.handle(inputs.LeaseTimer())
    bench.order(Welcome("c", FAST.beat_s, FAST.lease_s, "2012r2"))
    assert [c for c in bench.renew() if isinstance(c, commands.RunVcpu)] == []
    assert bench.order(GoOn("a", 2)) == []
    assert bench.order(GoOn("a", 1)) == [commands.RunVcpu("a", 1)]


@pytest.mark.parametrize("body", [StartVm(make_spec("b"), 1), StopVm("a", 1), DiscardVm("a", 9)])
def test_orders_of_another_session_life_or_reign_are_refused(body: Any) -> None:
    bench = Bench()
    bench.run_vm()
    assert bench.order(body, session=7) == []
    assert bench.handle(inputs.OrderReceived(HostOrder(1, "other", 1, body))) == []
    bench.order(GoOn("a", 1), term=5)
    assert bench.order(body, term=4) == []


def test_no_quantum_before_the_epoch_is_raised() -> None:
    bench = Bench()
    assert bench.order(StartVm(make_spec(), 3)) == [commands.BootImage(make_spec(), 3)]
    assert reports(bench.handle(inputs.Booted("a", 3))) == [RaiseEpoch("a", 3)]
    assert bench.order(EpochRaised("a", 3, True)) == [commands.RunVcpu("a", 3)]


def test_an_overtaken_epoch_is_refused_for_good() -> None:
    bench = Bench()
    bench.order(StartVm(make_spec(), 3))
    bench.handle(inputs.Booted("a", 3))
    done = bench.order(EpochRaised("a", 3, False))
    assert commands.DestroyImage("a") in done
    assert isinstance(reports(done)[0], OrderRefused)
    again = bench.order(StartVm(make_spec(), 3))
    assert [type(body) for body in reports(again)] == [OrderRefused]
    assert bench.phase is None


def test_a_repeated_start_returns_what_it_led_to() -> None:
    bench = Bench()
    bench.run_vm()
    assert reports(bench.order(StartVm(make_spec(), 1))) == [VmRunning("a", 1, "", 100.0)]


def test_an_image_that_does_not_fit_is_refused() -> None:
    bench = Bench()
    bench.run_vm()
    bench.order(StartVm(make_spec("b"), 1))
    [refusal] = reports(bench.order(StartVm(make_spec("c"), 1)))
    assert isinstance(refusal, OrderRefused)
    assert refusal.reason.rule == "memory"


def test_failure_before_the_final_copy_resumes_the_source() -> None:
    bench = Bench()
    bench.run_vm()
    bench.begin()
    bench.handle(inputs.SwitchDue("m1"))
    bench.order(Armed("m1"))
    done = bench.handle(inputs.OutgoingFailed("m1", BROKEN))
    assert done[:2] == [commands.StopOutgoing("m1"), commands.RunVcpu("a", 1)]
    assert reports(done) == [MigrationFailed("m1", BROKEN)]


def test_failure_after_the_final_copy_only_asks() -> None:
    bench = Bench()
    bench.send_final()
    done = bench.handle(inputs.OutgoingFailed("m1", BROKEN))
    assert reports(done) == [ProposeAbort("m1", BROKEN.message)]
    assert not [c for c in done if isinstance(c, commands.RunVcpu)]
    bench.now += 3600
    later = bench.handle(inputs.LeaseTimer())
    assert not [c for c in later if isinstance(c, commands.RunVcpu)]
    assert bench.phase is ImagePhase.AWAITING


def test_a_cancel_after_the_final_copy_is_the_stores_to_decide() -> None:
    bench = Bench()
    bench.send_final()
    assert bench.order(CancelMigration("m1", "cancelled")) == []
    assert bench.phase is ImagePhase.AWAITING


def test_a_committed_abort_raises_before_it_runs() -> None:
    bench = Bench()
    bench.send_final()
    done = bench.order(ResumeSource("m1", "a", 2))
    assert reports(done) == [RaiseEpoch("a", 2)]
    assert not [c for c in done if isinstance(c, commands.RunVcpu)]
    assert bench.order(EpochRaised("a", 2, True)) == [commands.RunVcpu("a", 2)]


def test_what_is_taken_back_runs_only_if_the_target_has_raised_nothing() -> None:
    bench = Bench()
    bench.send_final()
    done = bench.order(ResumeSource("m1", "a", 3, unless_raised=2))
    assert reports(done) == [RaiseEpoch("a", 3, unless_raised=2)]
    repeated = bench.order(ResumeSource("m1", "a", 3, unless_raised=2))
    assert reports(repeated) == [RaiseEpoch("a", 3, unless_raised=2)]
    done = bench.order(EpochRaised("a", 3, False))
    assert commands.DestroyImage("a") in done
    [refusal] = reports(done)
    assert isinstance(refusal, OrderRefused)
    assert refusal.reason.message == "a may have run elsewhere under epoch 2: this image is old"


def test_the_source_deletes_after_target_runs() -> None:
    bench = Bench()
    bench.send_final()
    times = HandOffTimes(3.0, 4.0)
    released = commands.ReleaseSource("m1", "a", 2, 5.0, times, "n2:7")
    assert bench.order(TargetRuns("m1", "a", 2, 5.0, times, "n2:7")) == [released]
    assert bench.phase is None


def test_the_target_tells_when_it_was_ready_and_heard_of_the_commit() -> None:
    bench = Bench()
    bench.receive()
    bench.now = 100.5
    bench.handle(inputs.IncomingComplete("m1"))
    bench.now = 100.6
    bench.order(RunVm("m1", "a", 2))
    bench.now = 100.7
    bench.order(EpochRaised("a", 2, True))
    running = VmRunning("a", 2, "m1", 100.65, HandOffTimes(100.5, 100.6))
    assert reports(bench.handle(inputs.QuantumRan("a", 2, 100.65))) == [running]
    assert reports(bench.order(RunVm("m1", "a", 2))) == [running]


def test_a_guest_is_announced_once_for_each_epoch_that_it_runs_under() -> None:
    bench = Bench()
    bench.order(StartVm(make_spec(), 1))
    bench.handle(inputs.Booted("a", 1))
    bench.order(EpochRaised("a", 1, True))
    assert bench.handle(inputs.QuantumRan("a", 1, 100.0))[1:] == [commands.AnnounceGuest("a", 1)]
    assert commands.AnnounceGuest("a", 1) not in bench.handle(inputs.QuantumRan("a", 1, 101.0))
    bench.order(ResumeSource("m1", "a", 3))
    bench.order(EpochRaised("a", 3, True))
    assert commands.AnnounceGuest("a", 3) in bench.handle(inputs.QuantumRan("a", 3, 102.0))


def test_no_final_copy_once_the_lease_has_run_out() -> None:
    bench = Bench()
    bench.run_vm()
    bench.begin()
    bench.handle(inputs.SwitchDue("m1"))
    bench.order(Armed("m1"))
    bench.now += FAST.lease_s
    done = bench.handle(inputs.FinalCopyDue("m1"))
    assert commands.SendFinal("m1") not in done
    assert commands.StopOutgoing("m1") in done


def test_the_commit_finds_the_target_ready_or_is_refused() -> None:
    bench = Bench()
    bench.receive()
    [refusal] = reports(bench.order(RunVm("m1", "a", 2)))
    assert isinstance(refusal, OrderRefused)
    bench.receive()
    assert bench.phase is ImagePhase.RECEIVING
    assert reports(bench.handle(inputs.IncomingComplete("m1"))) == [TargetReady("m1")]
    assert [type(body) for body in reports(bench.order(RunVm("m1", "a", 2)))] == [OrderRefused]
    done = bench.order(RunVm("m1", "a", 3))
    assert reports(done) == [RaiseEpoch("a", 3)]


def test_incoming_memory_of_an_older_session_is_forgotten() -> None:
    bench = Bench()
    bench.receive()
    bench.handle(inputs.IncomingComplete("m1"))
    bench.now += FAST.lease_s
    done = bench.handle(inputs.LeaseTimer())
    assert commands.DropIncoming("m1") in done
    assert bench.phase is None
    assert [type(body) for body in reports(bench.order(RunVm("m1", "a", 2)))] == [OrderRefused]


def test_a_rejoin_repeats_what_a_broken_stream_swallowed() -> None:
    bench = Bench()
    bench.run_vm()
    bench.begin()
    bench.handle(inputs.SwitchDue("m1"))
    bench.handle(inputs.Disconnected())
    bench.handle(inputs.Connected())
    said = reports(bench.order(Welcome("c", FAST.beat_s, FAST.lease_s, "2012r2")))
    assert VmRunning("a", 1, "", 100.0) in said
    assert ArmHandOff("m1") in said


def test_a_connection_without_a_lease_begins_a_session() -> None:
    bench = Bench()
    before = bench.host.state.session
    bench.handle(inputs.Disconnected())
    bench.handle(inputs.Connected())
    assert bench.host.state.session == before, "the lease still holds"
    bench.now += FAST.lease_s
    bench.handle(inputs.LeaseTimer())
    bench.handle(inputs.Disconnected())
    bench.handle(inputs.Connected())
    assert bench.host.state.session == before + 2


def test_a_stop_ends_the_move_that_nobody_cancelled() -> None:
    bench = Bench()
    bench.run_vm()
    bench.begin()
    assert bench.order(StopVm("a", 1)) == [commands.StopOutgoing("m1"), commands.HaltImage("a", 1)]
    assert reports(bench.handle(inputs.Halted("a", 1))) == [VmStopped("a", 1)]


def test_a_host_that_has_nothing_to_release_says_so() -> None:
    bench = Bench()
    assert reports(bench.order(TargetRuns("m1", "a", 2, 5.0))) == [SourceReleased("m1", MigrationFigures())]


def test_a_resumed_source_is_not_reported_before_it_runs() -> None:
    bench = Bench()
    bench.send_final()
    bench.order(ResumeSource("m1", "a", 2))
    bench.order(EpochRaised("a", 2, True))
    bench.handle(inputs.Disconnected())
    bench.handle(inputs.Connected())
    assert not reports(bench.order(Welcome("c", FAST.beat_s, FAST.lease_s, "2012r2")))


def test_a_late_stop_takes_no_refusal_back() -> None:
    bench = Bench()
    assert [type(body) for body in reports(bench.order(RunVm("m1", "a", 5)))] == [OrderRefused]
    bench.order(StopVm("a", 3))
    assert [type(body) for body in reports(bench.order(StartVm(make_spec(), 5)))] == [OrderRefused]


def test_what_is_remembered_of_moves_is_bounded() -> None:
    bench = Bench()
    for number in range(ENDED_MOVES_MAX + 5):
        bench.order(PrepareIncoming(f"m{number}", "t", make_spec(), 1, "h1"))
        bench.order(CancelMigration(f"m{number}", "cancelled"))
    assert len(bench.host.state.ended_moves) == ENDED_MOVES_MAX
    assert f"m{ENDED_MOVES_MAX + 4}" in bench.host.state.ended_moves


def test_copies_are_independent_and_fingerprints_canonical() -> None:
    bench = Bench()
    bench.run_vm()
    copied = bench.host.state.copy()
    assert copied.fingerprint() == bench.host.state.fingerprint()
    bench.begin()
    assert copied.images["a"].outgoing is None
    assert copied.fingerprint() != bench.host.state.fingerprint()


def test_unknown_steps_of_an_image_are_refused() -> None:
    bench = Bench()
    bench.run_vm()
    turn = Turn(bench.host.state, bench.now)
    with pytest.raises(InvalidTransition):
        turn.step(bench.host.state.images["a"], ImagePhase.READY)


CRASHED = failed("its guest crashed")


def test_a_crashed_guest_is_destroyed_and_its_epoch_refused_for_good() -> None:
    bench = Bench()
    bench.run_vm()
    done = bench.handle(inputs.GuestCrashed("a", 1, CRASHED))
    assert done[0] == commands.DestroyImage("a")
    assert reports(done) == [OrderRefused("a", 1, CRASHED)]
    assert reports(bench.order(StartVm(make_spec(), 1))) == [OrderRefused("a", 1, CRASHED)]


def test_a_guest_that_crashes_while_it_is_moved_ends_the_move_first() -> None:
    bench = Bench()
    bench.run_vm()
    bench.begin()
    done = bench.handle(inputs.GuestCrashed("a", 1, CRASHED))
    assert done[:2] == [commands.StopOutgoing("m1"), commands.DestroyImage("a")]
    assert reports(done) == [MigrationFailed("m1", CRASHED), OrderRefused("a", 1, CRASHED)]


def test_a_crash_of_another_epoch_or_after_the_final_copy_changes_nothing() -> None:
    bench = Bench()
    bench.run_vm()
    assert bench.handle(inputs.GuestCrashed("a", 2, CRASHED)) == []
    assert bench.handle(inputs.GuestCrashed("b", 1, CRASHED)) == []
    bench.begin()
    bench.handle(inputs.SwitchDue("m1"))
    bench.order(Armed("m1"))
    bench.handle(inputs.FinalCopyDue("m1"))
    assert bench.host.state.images["a"].phase is ImagePhase.AWAITING
    assert bench.handle(inputs.GuestCrashed("a", 1, CRASHED)) == []


# --- NICs -----------------------------------------------------------------------------------------


def test_nics_that_go_down_are_reported_and_every_join_repeats_them() -> None:
    bench = Bench()
    fault = NicFault("live", "pulled")
    assert reports(bench.handle(inputs.NicsTurned((fault,)))) == [NicsChanged((fault,))]
    bench.handle(inputs.Disconnected())
    (join,) = reports(bench.handle(inputs.Connected()))
    assert join.nics_down == (fault,)


def test_a_join_that_has_waited_is_brought_up_to_date() -> None:
    nic = Nic("live", "migration", "10.0.1.5")
    capacity = Capacity(32 * MIB, 2, 2, nics=(nic,))
    host = Host(HostIdentity("h", "uuid", "life", "x:1", "x:2", capacity, "0"))
    host.handle(inputs.Connected(), 1.0)
    welcome = Welcome("c", FAST.beat_s, FAST.lease_s, "2012r2")
    order = HostOrder(1, "life", host.state.session, welcome)
    assert NicsChanged(()) in reports(host.handle(inputs.OrderReceived(order), 1.5))
