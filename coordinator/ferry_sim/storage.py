"""The guests' disks, as an array will keep them: a write carries its VM's epoch, and a fence drains (D1, D2).

The product keeps the raised epochs in the array's stead, and takes no writes yet. Here guests write now
and then, so that what a fence is for can be seen: writes that come late are refused, and those that are in
progress have landed before a raise is answered.
"""

from collections.abc import Callable
from typing import Final

from ferry_sim.clockwork import Clockwork
from ferry_sim.processes import Agent

PAUSE_LEASES: Final = (0.3, 2.0)
"""Between two writes of a guest."""


class Storage:
    """All disks. ``raised(vm)``: the epoch below which nothing is accepted any more."""

    def __init__(self, clockwork: Clockwork, raised: Callable[[str], int]) -> None:
        self._clockwork = clockwork
        self._raised = raised
        self._writing: set[tuple[str, str, int]] = set()
        self._in_progress: dict[str, list[int]] = {}
        self._landed: dict[str, int] = {}
        self._answers: dict[str, list[tuple[int, Callable[[], None]]]] = {}

    def begin(self, agent: Agent, vm: str, epoch: int) -> None:
        """A guest runs under this epoch, and writes as long as it does."""
        guest = (agent.incarnation, vm, epoch)
        if guest not in self._writing:
            self._writing.add(guest)
            self._clockwork.later(self._clockwork.delay(), lambda: self._write(agent, vm, epoch))

    def _write(self, agent: Agent, vm: str, epoch: int) -> None:
        """What a host publishes, it publishes inside its lease (rule L1); it may arrive long after."""
        clockwork = self._clockwork
        if not agent.alive or agent.vcpus.get(vm) != epoch:
            self._writing.discard((agent.incarnation, vm, epoch))
            return
        if agent.has_lease(clockwork.now):
            clockwork.later(clockwork.delay(), lambda: self._arrive(vm, epoch))
        pause_s = clockwork.rng.uniform(*PAUSE_LEASES) * clockwork.lease_s
        clockwork.later(pause_s, lambda: self._write(agent, vm, epoch))

    def _arrive(self, vm: str, epoch: int) -> None:
        if epoch >= self._raised(vm):
            self._in_progress.setdefault(vm, []).append(epoch)
            self._clockwork.later(self._clockwork.delay(), lambda: self._land(vm, epoch))

    def _land(self, vm: str, epoch: int) -> None:
        self._in_progress[vm].remove(epoch)
        newest = self._landed.get(vm, 0)
        assert epoch >= newest, f"a write of {vm} under epoch {epoch} lands on one under {newest}"
        self._landed[vm] = epoch
        waiting = self._answers.pop(vm, [])
        for raised, answer in waiting:
            self.answer_when_drained(vm, raised, answer)

    def answer_when_drained(self, vm: str, epoch: int, answer: Callable[[], None]) -> None:
        """Answer a raise once no write of an earlier epoch is in progress."""
        if any(earlier < epoch for earlier in self._in_progress.get(vm, ())):
            self._answers.setdefault(vm, []).append((epoch, answer))
        else:
            answer()
