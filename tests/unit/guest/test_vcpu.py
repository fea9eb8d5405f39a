"""The vCPU thread: pace, pause, lease gate, echo, audit."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.guest.conftest import MIB, BootGuest
from tests.unit.tries import TRIES

from ferry_agent.guest.audit import AuditReport
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.trace import RunTrace, read_trace
from ferry_agent.guest.vcpu import INBOX_ECHOES_MAX, EchoReply, Vcpu
from ferry_types.limits import PAGE_SIZE
from ferry_types.workloads import AccessPattern, resolve

DEADLINE_S = 10.0


class Gate:
    """A lease that tests open and close."""

    def __init__(self) -> None:
        self.open = True
        self.looks = 0

    def is_open(self) -> bool:
        self.looks += 1
        return self.open


def eventually(condition: Callable[[], bool]) -> None:
    deadline_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_at, "the condition did not come true"
        time.sleep(0.001)


class Rig:
    """A vCPU and what it has called back."""

    def __init__(self, guest: Guest, trace: RunTrace | None = None) -> None:
        self.guest = guest
        self.gate = Gate()
        self.firsts: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        self.replies: queue.SimpleQueue[EchoReply] = queue.SimpleQueue()
        self.crashes: queue.SimpleQueue[tuple[int, Exception]] = queue.SimpleQueue()
        self.vcpu = Vcpu(
            guest,
            self.gate,
            on_first_quantum=lambda epoch, at_s: self.firsts.put((epoch, at_s)),
            on_crash=lambda epoch, error: self.crashes.put((epoch, error)),
            trace=trace,
        )

    def pause(self) -> float:
        done: queue.SimpleQueue[float] = queue.SimpleQueue()
        self.vcpu.request_pause(done.put)
        return done.get(timeout=DEADLINE_S)

    def audit(self) -> AuditReport | None:
        done: queue.SimpleQueue[AuditReport | None] = queue.SimpleQueue()
        self.vcpu.request_audit(done.put)
        return done.get(timeout=DEADLINE_S)

    def echo(self, sequence: int = 1) -> EchoReply:
        assert self.vcpu.submit_echo(sequence, self.replies.put)
        return self.replies.get(timeout=DEADLINE_S)

    def first(self) -> tuple[int, float]:
        return self.firsts.get(timeout=DEADLINE_S)


@pytest.fixture
def rig(boot: BootGuest) -> Iterator[Rig]:
    rig = Rig(boot())
    yield rig
    rig.gate.open = False
    rig.vcpu.stop()


def test_it_runs_once_started_and_tells_when_it_began(rig: Rig) -> None:
    assert rig.vcpu.paused
    before = time.monotonic()
    rig.vcpu.start()
    rig.vcpu.resume(7)
    epoch, at_s = rig.first()
    assert epoch == 7
    assert before <= at_s <= time.monotonic()
    assert rig.vcpu.first_quantum_at == at_s
    eventually(lambda: rig.vcpu.steps > 10)
    assert not rig.vcpu.paused


def test_a_paused_guest_changes_nothing_and_does_not_answer(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    asked_at = time.monotonic()
    ran_until = rig.pause()
    assert ran_until <= time.monotonic()
    assert ran_until >= asked_at or ran_until == pytest.approx(asked_at, abs=0.05)
    state, dirty = rig.vcpu.device_state(), rig.guest.memory.dirty.count()
    assert not rig.vcpu.submit_echo(1, rig.replies.put)
    report = rig.audit()  # gives a guest that still ran the time to show it
    assert report is not None
    assert report.ok
    assert (rig.vcpu.device_state(), rig.guest.memory.dirty.count()) == (state, dirty)
    assert rig.vcpu.write_bytes_per_s == 0


def test_an_idle_guest_counts_as_running_until_it_is_paused(boot: BootGuest) -> None:
    rig = Rig(boot(spec=resolve("idle", 4 * MIB)))
    rig.vcpu.start()
    rig.vcpu.resume(1)
    _, began = rig.first()
    eventually(lambda: time.monotonic() > began + 0.05)
    asked_at = time.monotonic()
    assert asked_at <= rig.pause() <= time.monotonic()
    assert rig.vcpu.steps == 1
    rig.vcpu.stop()


def test_a_guest_that_sleeps_is_paused_before_the_request_returns(boot: BootGuest) -> None:
    rig = Rig(boot(spec=resolve("idle", 4 * MIB)))
    rig.vcpu.start()

    def is_paused_at_once() -> bool:
        rig.vcpu.resume(1)
        rig.first()
        time.sleep(0.001)  # for the thread to fall asleep; if that was too short, once more
        done: list[float] = []
        rig.vcpu.request_pause(done.append)
        is_at_once = bool(done) and rig.vcpu.paused
        eventually(lambda: bool(done))
        return is_at_once

    eventually(is_paused_at_once)
    rig.vcpu.stop()


def test_a_pause_that_follows_upon_its_heels_comes_after_the_resume(rig: Rig) -> None:
    rig.vcpu.start()
    for epoch in range(1, 200):
        rig.vcpu.resume(epoch)
        rig.pause()
        assert rig.vcpu.paused
    steps = rig.vcpu.steps
    report = rig.audit()  # gives a guest that still ran the time to show it
    assert report is not None
    assert (rig.vcpu.paused, rig.vcpu.steps) == (True, steps)


def test_device_state_is_that_of_a_paused_guest_only(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    with pytest.raises(RuntimeError, match="not paused"):
        rig.vcpu.device_state()


def test_it_resumes_at_once_under_the_epoch_given(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    rig.pause()
    steps = rig.vcpu.steps
    rig.vcpu.resume(9)
    epoch, _ = rig.first()
    assert epoch == 9
    eventually(lambda: rig.vcpu.steps > steps)
    assert rig.echo().epoch == 9


def test_an_answer_tells_epoch_boot_and_step(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    first, second = rig.echo(1), rig.echo(2)
    assert (first.sequence, first.epoch, first.boot_epoch) == (1, 7, 3)
    assert 1 <= first.step <= second.step


def test_an_idle_guest_answers_at_once(boot: BootGuest) -> None:
    rig = Rig(boot(spec=resolve("idle", 4 * MIB)))
    rig.vcpu.start()
    rig.vcpu.resume(1)
    rig.first()
    started = time.monotonic()
    for sequence in range(20):
        rig.echo(sequence)
    assert time.monotonic() - started < 0.5
    assert rig.vcpu.steps <= 2
    rig.vcpu.stop()


def test_echo_requests_beyond_the_bound_are_dropped(rig: Rig) -> None:
    inside, release = threading.Event(), threading.Event()

    def hold_the_thread(_reply: EchoReply) -> None:
        inside.set()
        release.wait(DEADLINE_S)

    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    assert rig.vcpu.submit_echo(0, hold_the_thread)
    assert inside.wait(DEADLINE_S)
    taken = [rig.vcpu.submit_echo(sequence, rig.replies.put) for sequence in range(INBOX_ECHOES_MAX + 5)]
    release.set()
    assert taken == [True] * INBOX_ECHOES_MAX + [False] * 5


def test_a_socket_that_refuses_a_reply_does_not_end_the_guest(rig: Rig) -> None:
    def refuse(_reply: EchoReply) -> None:
        raise BlockingIOError

    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    rig.vcpu.submit_echo(1, refuse)
    assert rig.echo(2).sequence == 2


def test_nothing_runs_or_answers_while_the_gate_is_closed(rig: Rig) -> None:
    rig.gate.open = False
    rig.vcpu.start()
    rig.vcpu.resume(7)
    eventually(lambda: rig.gate.looks > 1)
    rig.vcpu.submit_echo(1, rig.replies.put)
    rig.pause()
    assert rig.vcpu.steps == 0
    assert rig.replies.empty()
    assert rig.firsts.empty()


def test_a_poke_makes_it_look_at_the_gate_again(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    rig.gate.open = False
    rig.pause()
    rig.vcpu.resume(7)
    rig.vcpu.submit_echo(1, rig.replies.put)  # answered only if it runs; the queue keeps the order
    steps = rig.vcpu.steps
    rig.gate.open = True
    rig.vcpu.poke()
    rig.first()
    assert rig.vcpu.steps > steps
    assert rig.echo(2).sequence == 2


class ClosingGuest:
    """Freezes its host inside the quantum of a step: the lease is over when the step ends."""

    def __init__(self, rig: Rig, step: int) -> None:
        self._make_step = rig.guest.step
        self._rig = rig
        self._step = step

    def __call__(self) -> int:
        pages = self._make_step()
        if self._rig.guest.registers.step == self._step:
            self._rig.gate.open = False
        return pages


def test_what_a_frozen_quantum_did_is_not_published(boot: BootGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(boot())
    monkeypatch.setattr(rig.guest, "step", ClosingGuest(rig, step=1))
    rig.vcpu.start()
    rig.vcpu.resume(7)
    eventually(lambda: rig.vcpu.steps == 1)
    rig.vcpu.submit_echo(1, rig.replies.put)
    rig.pause()
    assert rig.firsts.empty()
    assert rig.replies.empty()
    assert rig.vcpu.pages_written == 0
    rig.vcpu.stop()


def test_a_lease_renewed_after_the_hold_was_ordered_does_not_let_it_run(
    boot: BootGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(boot())
    inside, release = threading.Event(), threading.Event()
    make_step = rig.guest.step

    def frozen_step() -> int:
        pages = make_step()
        inside.set()
        release.wait(DEADLINE_S)
        return pages

    monkeypatch.setattr(rig.guest, "step", frozen_step)
    rig.vcpu.start()
    rig.vcpu.resume(7)
    assert inside.wait(DEADLINE_S)
    rig.gate.open = False
    paused: queue.SimpleQueue[float] = queue.SimpleQueue()
    rig.vcpu.submit_echo(1, rig.replies.put)
    lapsed_at = time.monotonic()
    rig.vcpu.request_pause(paused.put)
    rig.gate.open = True
    release.set()
    assert paused.get(timeout=DEADLINE_S) <= lapsed_at
    assert rig.firsts.empty()
    assert rig.replies.empty()
    rig.vcpu.stop()


def test_audits_while_it_runs_and_while_it_is_paused(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    running = rig.audit()
    rig.pause()
    assert running == rig.audit()
    assert running is not None
    assert running.ok


def test_an_audit_of_a_vcpu_that_was_never_started_has_no_result(rig: Rig) -> None:
    assert rig.audit() is None


def test_whoever_asks_a_stopped_vcpu_is_answered(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    rig.vcpu.stop()
    assert rig.audit() is None
    assert rig.pause() <= time.monotonic()
    assert not rig.vcpu.submit_echo(1, rig.replies.put)
    rig.vcpu.stop()


def test_whoever_waits_when_it_is_stopped_is_answered(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    rig.gate.open = False  # so that the audit cannot end
    done: queue.SimpleQueue[AuditReport | None] = queue.SimpleQueue()
    rig.vcpu.request_audit(done.put)
    rig.vcpu.stop()
    assert done.get(timeout=DEADLINE_S) is None


def test_it_writes_at_the_rate_asked_for(boot: BootGuest) -> None:
    spec = resolve("sql", 16 * MIB, write_rate_bytes_per_s=20 * MIB, access=AccessPattern.SEQUENTIAL)
    rig = Rig(boot(memory_bytes=16 * MIB, spec=spec))
    rig.vcpu.start()
    rig.vcpu.resume(1)
    _, began = rig.first()
    eventually(lambda: rig.vcpu.write_bytes_per_s > 0)
    ended = rig.pause()
    written = rig.vcpu.pages_written * PAGE_SIZE
    # Never faster; slower only if this machine had no time for it.
    assert written <= spec.write_rate_bytes_per_s * (ended - began + 2 * rig.guest.pace.period_s)
    assert written >= spec.write_rate_bytes_per_s * (ended - began) * 0.5
    rig.vcpu.stop()


def test_after_a_stall_it_makes_up_for_little(boot: BootGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(boot())
    make_step, began_at = rig.guest.step, []

    def stalling_step() -> int:
        began_at.append(time.monotonic())
        if len(began_at) == 2:
            time.sleep(0.5)  # the stall itself
        return make_step()

    monkeypatch.setattr(rig.guest, "step", stalling_step)
    rig.vcpu.start()
    rig.vcpu.resume(1)
    eventually(lambda: len(began_at) > 100)
    rig.pause()
    after = began_at[2]
    period_s = rig.guest.pace.period_s
    in_time = sum(at < after + 0.1 for at in began_at[2:])
    assert in_time <= (0.05 + 0.1) / period_s + 2  # without the bound: 0.6 s worth of steps
    rig.vcpu.stop()


def test_the_trace_tells_when_it_ran(boot: BootGuest, tmp_path: Path) -> None:
    trace = RunTrace(tmp_path / "trace")
    rig = Rig(boot(), trace)
    rig.vcpu.start()
    rig.vcpu.resume(7)
    _, began = rig.first()
    ended = rig.pause()
    rig.vcpu.resume(8)
    rig.first()
    rig.vcpu.stop()
    trace.close()
    first, second = read_trace(tmp_path / "trace")
    assert (first.vm, first.epoch, second.epoch) == ("vm1", 7, 8)
    assert (first.begin_ns, first.end_ns) == (round(began * 1e9), round(ended * 1e9))
    assert second.begin_ns > first.end_ns
    assert (tmp_path / "trace").read_text().splitlines()[-1].startswith("halt vm1 8 ")


def test_a_guest_that_raises_is_told_of_and_runs_no_more(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(3)
    rig.first()

    def fail() -> int:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(rig.guest, "step", fail)
    epoch, error = rig.crashes.get(timeout=DEADLINE_S)
    assert (epoch, str(error)) == (3, "a defect")
    assert rig.audit() is None
    assert rig.vcpu.paused
    rig.vcpu.stop()
    assert rig.crashes.empty()


# --- throttling ---------------------------------------------------------------------------------------


def steps_in(rig: Rig, seconds: float) -> int:
    began = time.monotonic()
    steps = rig.vcpu.steps
    eventually(lambda: time.monotonic() >= began + seconds)
    return rig.vcpu.steps - steps


def test_a_throttled_guest_is_that_much_slower_and_recovers(rig: Rig) -> None:
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    before = steps_in(rig, 0.4)
    rig.vcpu.throttle(75)
    assert any(steps_in(rig, 0.4) < 0.35 * before for _ in range(TRIES))
    rig.vcpu.throttle(0)
    assert any(steps_in(rig, 0.4) > 0.7 * before for _ in range(TRIES))


def test_a_throttled_guest_answers_and_pauses_at_once(boot: BootGuest) -> None:
    rig = Rig(boot(spec=resolve("idle", 4 * MIB)))
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()
    rig.vcpu.throttle(99)  # it sleeps for 100 s between its steps
    assert rig.echo().epoch == 7
    rig.pause()
    rig.vcpu.throttle(0)
    rig.vcpu.stop()


def test_a_guest_that_wants_all_of_a_processor_gets_its_share(boot: BootGuest) -> None:
    everything = resolve("thrash", 4 * MIB, write_rate_bytes_per_s=2**36, read_rate_bytes_per_s=0)
    rig = Rig(boot(spec=everything))
    rig.vcpu.start()
    rig.vcpu.resume(7)
    rig.first()

    def share_left() -> float:
        rig.vcpu.throttle(0)
        before = steps_in(rig, 0.3)
        rig.vcpu.throttle(80)
        return steps_in(rig, 0.3) / before

    # 0.2 where it has a processor to itself; others take more from who wants all than from who often sleeps.
    assert any(share_left() < 0.75 for _ in range(TRIES))
    rig.vcpu.stop()


@pytest.mark.parametrize("percent", [-1, 100])
def test_a_guest_is_neither_sped_up_nor_stopped(rig: Rig, percent: int) -> None:
    with pytest.raises(ValueError, match="from 0 to 99"):
        rig.vcpu.throttle(percent)


def tells_its_speed(rig: Rig) -> bool:
    """Whether what the guest says it does in a second is what it did."""
    began, steps = time.monotonic(), rig.vcpu.steps
    eventually(lambda: time.monotonic() >= began + 1.3)  # a whole window
    done_per_s = (rig.vcpu.steps - steps) / (time.monotonic() - began)
    return rig.vcpu.steps_per_s == pytest.approx(done_per_s, rel=0.3)


def test_its_speed_is_measured_while_it_runs(rig: Rig) -> None:
    assert rig.vcpu.steps_per_s is None
    rig.vcpu.start()
    rig.vcpu.resume(7)
    eventually(lambda: rig.vcpu.steps_per_s is not None)
    assert any(tells_its_speed(rig) for _ in range(TRIES))
    rig.pause()
    assert rig.vcpu.steps_per_s is None
