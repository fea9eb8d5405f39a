"""The thread that runs a guest.

::

    start ──► PAUSED ──resume──► RUNNING ──pause──► PAUSED   (orders, obeyed between two quanta)
                        │  ▲
         gate closed    ▼  │  poke, and the gate is open
                       waiting, still RUNNING

A quantum is one step of the guest, at most about 2 ms of work. An idle guest sleeps between its steps and
wakes at once for an order. So does a guest that is throttled by p %: it sleeps p % of the time, so that its
steps come at (100 - p) % of their pace, and work as large a share of a processor at most (as QEMU's
``cpu-throttle``). Other threads put orders into the thread's inbox and never wait; the thread alone
touches the guest.

Before each quantum, and before anything becomes visible outside, the thread looks at the gate: the host's
lease (rule L1). A host that was frozen inside a quantum finds the gate closed behind it: what that quantum
did stays inside the memory, is told to nobody, and time counts as not run. Sleeping until the next step
counts as running: a guest that sleeps answers.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from ferry_agent.guest.audit import Audit, AuditReport
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.trace import EVIDENCE_S, RunTrace
from ferry_host.convergence import THROTTLE_MAX_PERCENT
from ferry_types.limits import PAGE_SIZE

CATCH_UP_S = 0.05
"""After a stall the guest makes up at most this much of its work."""

INBOX_ECHOES_MAX = 64
"""Orders waiting, from which on echo requests are dropped: a guest that busy is not reachable."""

ORDERS_PER_QUANTUM = 32
"""Orders obeyed in a row while a quantum is due."""

YIELD_S = 0.0001
"""Rest between quanta of a guest that is behind, so that other threads get the interpreter."""

RATE_WINDOW_S = 1.0
"""Time over which rates are measured."""

RATE_STEPS_MIN = 10
"""So many steps tell a guest's speed even before the first window is whole."""

AUDITS_MAX = 4
"""Audits of one guest that may wait for their turn."""


class RunGate(Protocol):
    """Whether guests may run at this moment."""

    def is_open(self) -> bool:
        """Compare the monotonic clock with the lease's deadline, without a lock; any thread may call it."""


@dataclass(frozen=True, slots=True)
class EchoReply:
    """What a guest answers: under which ownership epoch it runs, which boot this is, how far it has come."""

    sequence: int
    epoch: int
    boot_epoch: int
    step: int


PauseDone = Callable[[float], None]
AuditDone = Callable[[AuditReport | None], None]


@dataclass(frozen=True, slots=True)
class _Resume:
    epoch: int


@dataclass(frozen=True, slots=True)
class _Pause:
    done: PauseDone
    asked_at_s: float | None
    """When it was asked for; None if the gate was closed by then."""


@dataclass(frozen=True, slots=True)
class _Echo:
    sequence: int
    reply: Callable[[EchoReply], None]


@dataclass(frozen=True, slots=True)
class _Audit:
    done: AuditDone


@dataclass(frozen=True, slots=True)
class _Throttle:
    percent: int


@dataclass(frozen=True, slots=True)
class _Poke:
    pass


@dataclass(frozen=True, slots=True)
class _Stop:
    pass


_Order = _Resume | _Pause | _Echo | _Audit | _Throttle | _Poke | _Stop


@dataclass(frozen=True, slots=True)
class _Rates:
    """Where a window of measurement began, and what the window before it has shown.

    ``steps_per_s``: None before the first.
    """

    began_at_s: float
    pages: int
    steps: int
    pages_per_s: float = 0.0
    steps_per_s: float | None = None


class Vcpu:
    """Runs one guest in a daemon thread of its own. Any thread may call its methods; but for ``stop``, none
    blocks.

    Callbacks are called from the vCPU thread, that of a pause perhaps by ``request_pause``, and must neither
    block nor raise; ``OSError`` of an echo reply counts as a lost datagram. ``steps``, ``pages_written``,
    ``write_bytes_per_s``, ``paused`` and ``first_quantum_at`` may be read at any time.
    """

    def __init__(
        self,
        guest: Guest,
        gate: RunGate,
        *,
        on_first_quantum: Callable[[int, float], None],
        on_crash: Callable[[int, Exception], None],
        trace: RunTrace | None = None,
    ) -> None:
        """A vCPU that does not run yet.

        ``on_first_quantum(epoch, at_s)`` is called after the first quantum of each start and resume; ``at_s``
        is the monotonic time at which it began. ``on_crash(epoch, error)`` is called if the guest raises,
        which ends the thread.
        """
        self._guest = guest
        self._gate = gate
        self._on_first_quantum = on_first_quantum
        self._on_crash = on_crash
        self._trace = trace
        self._inbox: deque[_Order] = deque()
        self._turn = threading.Lock()
        """Held by the thread, but while it waits. An order leaves the inbox and is obeyed in one turn, so
        whoever has the turn and finds the inbox empty is where the thread would be at the next order."""
        self._wake = threading.Lock()
        """Free once there is an order to wake up for."""
        self._wake.acquire()
        self._thread = threading.Thread(target=self._main, name=f"vcpu-{guest.name}", daemon=True)
        self._ended = False
        self.paused = True
        self.pages_written = 0
        self.first_quantum_at: float | None = None
        self._epoch = 0
        self._awaits_poke = False
        self._audits: list[tuple[Audit, AuditDone]] = []
        self._due_at = 0.0
        self._runs = False
        self._lapsed = False
        self._first_is_due = False
        self._ran_until = self._traced_at = time.monotonic()
        self._throttle_percent = 0
        self._rates = _Rates(self._ran_until, 0, guest.registers.step)

    # -- what others call ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, paused: a guest that has arrived then only needs ``resume``. Once only."""
        self._thread.start()

    def resume(self, epoch: int) -> None:
        """Run, or run on after a pause, under this ownership epoch."""
        self._put(_Resume(epoch))

    def request_pause(self, done: PauseDone) -> None:
        """Pause between two quanta, then call ``done`` with the monotonic time until which the guest ran.

        A guest that sleeps is paused, and ``done`` is called, before this returns: to wake up a thread costs
        part of a black-out.
        """
        pause = _Pause(done, time.monotonic())
        if not self._gate.is_open():
            # The gate may open again before the thread comes to this order. Nothing counts until then.
            self._lapsed = True
            pause = _Pause(done, None)
        if self._turn.acquire(blocking=False):
            try:
                if not self._inbox:
                    self._obey(pause)
                    return
            finally:
                self._turn.release()
        self._put(pause)
        self._answer_if_ended()

    def submit_echo(self, sequence: int, reply: Callable[[EchoReply], None]) -> bool:
        """Ask the guest for an answer. False if the request is dropped: the guest is paused or overrun."""
        if self.paused or len(self._inbox) >= INBOX_ECHOES_MAX:
            return False
        self._put(_Echo(sequence, reply))
        return True

    def request_audit(self, done: AuditDone) -> None:
        """Audit the guest, which runs on or stays paused, then call ``done``.

        ``done`` gets None if the vCPU was never started or is stopped first, or if too many audits wait.
        """
        if self._thread.ident is None:
            done(None)
            return
        self._put(_Audit(done))
        self._answer_if_ended()

    def throttle(self, percent: int) -> None:
        """Slow the guest by so much from its next quantum on; 0: not at all. Raises ValueError over 99."""
        if not 0 <= percent <= THROTTLE_MAX_PERCENT:
            raise ValueError(f"a guest cannot be slowed by {percent} %: from 0 to {THROTTLE_MAX_PERCENT}")
        self._put(_Throttle(percent))

    def poke(self) -> None:
        """The gate may have opened: look again. Costs nothing while the guest runs."""
        if self._awaits_poke:
            self._put(_Poke())

    def stop(self) -> None:
        """End the thread and wait for it: one quantum or one slice of an audit. May be repeated."""
        if self._thread.ident is None:
            self._ended = True
            return
        self._put(_Stop())
        self._thread.join()

    def device_state(self) -> bytes:
        """The registers of the paused guest. Raises RuntimeError if it runs."""
        if not self.paused:
            raise RuntimeError(f"{self._guest.name} is not paused")
        return self._guest.save()

    @property
    def steps(self) -> int:
        """Steps since the boot."""
        return self._guest.registers.step

    @property
    def write_bytes_per_s(self) -> float:
        """Bytes of its own pages that the guest wrote per second lately; 0 while it is paused."""
        return 0.0 if self.paused else self._rates.pages_per_s * PAGE_SIZE

    @property
    def steps_per_s(self) -> float | None:
        """Steps per second lately; None while the guest is paused, or runs for too short a time to tell."""
        rates, now = self._rates, time.monotonic()
        if self.paused:
            return None
        if rates.steps_per_s is None and self.steps - rates.steps >= RATE_STEPS_MIN:
            return (self.steps - rates.steps) / (now - rates.began_at_s)
        return rates.steps_per_s

    # -- the thread ------------------------------------------------------------------------------------

    def _put(self, order: _Order) -> None:
        self._inbox.append(order)
        with contextlib.suppress(RuntimeError):  # the thread has been woken already
            self._wake.release()

    def _main(self) -> None:
        with self._turn:
            self._run()

    def _run(self) -> None:
        try:
            while self._take_orders(self._rest_s()):
                if not self.paused and time.monotonic() >= self._due_at:
                    self._quantum()
                if self._audits and self._gate.is_open():
                    self._advance_audit()
        except Exception as error:  # noqa: BLE001 - whatever it is, the host must know that the VM is gone
            self._on_crash(self._epoch, error)
        finally:
            self._halt()
            self.paused = True
            self._ended = True
            self._answer_if_ended()

    def _rest_s(self) -> float | None:
        """How long there is nothing to do but to wait for orders; None: for ever."""
        self._awaits_poke = True  # before the look at the gate: a poke right after the look is not lost
        if not self._gate.is_open():
            self._halt()
            return None
        self._awaits_poke = False
        if self._audits:
            return YIELD_S
        if self.paused:
            return None
        return max(self._due_at - time.monotonic(), YIELD_S)

    def _take_orders(self, rest_s: float | None) -> bool:
        """Wait for the first order, take what else is there, and obey; False if told to stop."""
        if not self._inbox:
            self._turn.release()
            self._wake.acquire(timeout=-1 if rest_s is None else rest_s)
            self._turn.acquire()
        for _ in range(ORDERS_PER_QUANTUM):
            if not self._inbox:
                break
            order = self._inbox.popleft()
            if isinstance(order, _Stop):
                return False
            self._obey(order)
        return True

    def _obey(self, order: _Resume | _Pause | _Echo | _Audit | _Throttle | _Poke) -> None:
        match order:
            case _Resume(epoch):
                self._halt()
                self._lapsed = False
                self._epoch = epoch
                self._first_is_due = True
                self._due_at = time.monotonic()
                self._rates = replace(
                    self._rates,
                    began_at_s=self._due_at,
                    pages=self.pages_written,
                    steps=self.steps,
                    steps_per_s=None,
                )
                self.paused = False
            case _Pause(done, asked_at_s):
                if self._runs and asked_at_s is not None:
                    self._ran_until = max(self._ran_until, asked_at_s)
                self._halt()
                self.paused = True
                done(self._ran_until)
            case _Echo(sequence, reply):
                if self._confirm():
                    registers = self._guest.registers
                    with contextlib.suppress(OSError):
                        reply(EchoReply(sequence, self._epoch, registers.boot_epoch, registers.step))
            case _Audit(done):
                self._begin_audit(done)
            case _Throttle(percent):
                self._throttle_percent = percent
                # Not to sleep on as long as the former throttle had it.
                self._due_at = min(self._due_at, time.monotonic() + self._guest.pace.period_s)
            case _Poke():
                pass

    def _quantum(self) -> None:
        began = time.monotonic()
        if self._lapsed or not self._gate.is_open():
            return
        if not self._runs:
            self._runs = True
            self._ran_until = self._traced_at = began
            if self._trace is not None:
                self._trace.run(self._guest.name, self._epoch, began)
        pages = self._guest.step()
        self._due_at = self._next_due_at(began)
        if not self._confirm():
            return
        self.pages_written += pages
        self._measure()
        if self._first_is_due:
            self._first_is_due = False
            self.first_quantum_at = began
            self._on_first_quantum(self._epoch, began)

    def _next_due_at(self, began: float) -> float:
        """When the next quantum is due, after one that began then."""
        now = time.monotonic()
        if not self._throttle_percent:
            return max(self._due_at + self._guest.pace.period_s, now - CATCH_UP_S)
        share = 1 - self._throttle_percent / 100
        rest_s = (now - began) * (1 / share - 1)
        return max(self._due_at + self._guest.pace.period_s / share, now + rest_s)

    def _confirm(self) -> bool:
        """Whether the guest has really run until now, so that what it did may be published."""
        now = time.monotonic()
        if not self._runs or self._lapsed or not self._gate.is_open():
            return False
        self._ran_until = now
        if self._trace is not None and now - self._traced_at >= EVIDENCE_S:
            self._traced_at = now
            self._trace.ran(self._guest.name, self._epoch, now)
        return True

    def _halt(self) -> None:
        if self._runs and self._trace is not None:
            self._trace.halt(self._guest.name, self._epoch, self._ran_until)
        self._runs = False

    def _measure(self) -> None:
        last, steps = self._rates, self.steps
        passed_s = self._ran_until - last.began_at_s
        if passed_s >= RATE_WINDOW_S:
            pages_per_s = (self.pages_written - last.pages) / passed_s
            steps_per_s = (steps - last.steps) / passed_s
            self._rates = _Rates(self._ran_until, self.pages_written, steps, pages_per_s, steps_per_s)

    def _begin_audit(self, done: AuditDone) -> None:
        if len(self._audits) >= AUDITS_MAX:
            done(None)
            return
        guest = self._guest
        run = Audit(guest.memory, guest.spec, lambda: guest.registers, lambda: guest.last_fault, guest.pace)
        self._audits.append((run, done))

    def _advance_audit(self) -> None:
        run, done = self._audits[0]
        if run.advance():
            del self._audits[0]
            done(run.report())

    def _answer_if_ended(self) -> None:
        """Nobody may wait for a thread that has ended."""
        if not self._ended:
            return
        while self._audits:
            self._audits.pop()[1](None)
        with contextlib.suppress(IndexError):
            while True:
                order = self._inbox.popleft()
                if isinstance(order, _Pause):
                    order.done(self._ran_until)
                elif isinstance(order, _Audit):
                    order.done(None)
