"""Reading a guest's books back: is every page the one that the guest wrote last?

What shows what:

- a page that was lost, or is stale, does not match its entry in the ledger;
- a page stale together with its entry leaves the sum of the ledger different from the registers';
- a page whose two stamps differ is torn;
- a step made twice or left out shows in header and journal against the registers, in the count of faults of
  the steps that followed, and in the replay: of the latest steps, the last to write a page must be the one on
  its stamp.

An audit goes slice by slice, each a few milliseconds long, and the guest may run between two slices: pages
and books agree between any two steps, so each slice is checked against the books of its own moment, and no
snapshot is needed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.books import JOURNAL_ENTRIES, Books, Stamps, checksums, entry_check, read_stamps
from ferry_agent.guest.guest import write_stream
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.registers import Registers
from ferry_agent.guest.workload import Pace
from ferry_types.limits import AUDIT_ERRORS_MAX
from ferry_types.workloads import WorkloadSpec

SLICE_PAGES = 2048
"""Pages checked in one slice, 8 MiB: a few milliseconds."""

_REPLAY_DRAWS = 65_536
"""Draws replayed in the last slice: a few milliseconds."""


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found. ``errors`` has at most 100 entries; the last says how many more there were."""

    ok: bool
    pages_checked: int
    errors: tuple[str, ...]


def audit(memory: GuestMemory, spec: WorkloadSpec, registers: Registers) -> AuditReport:
    """Audit a guest that does not run."""
    run = Audit(memory, spec, lambda: registers)
    while not run.advance():
        pass
    return run.report()


class Audit:
    """One audit under way. Every call of ``advance`` must fall between two steps of the guest."""

    def __init__(
        self,
        memory: GuestMemory,
        spec: WorkloadSpec,
        registers: Callable[[], Registers],
        last_fault: Callable[[], str] = str,
        pace: Pace | None = None,
    ) -> None:
        """``registers`` returns those of the moment, ``last_fault`` words for the latest fault, if known.

        ``pace``: the guest's, if not ``Pace.of`` its workload.
        """
        self._memory = memory
        self._spec = spec
        self._registers = registers
        self._last_fault = last_fault
        self._pace = Pace.of(spec) if pace is None else pace
        self._books = Books(memory)
        self._next_page = self._books.first_data_page
        self._errors: list[str] = []
        self._n_errors = 0

    def advance(self) -> bool:
        """Check one slice: first all pages in turn, at last the books as a whole. True after that."""
        if self._next_page < self._memory.n_pages:
            end = min(self._next_page + SLICE_PAGES, self._memory.n_pages)
            self._check_pages(np.arange(self._next_page, end))
            self._next_page = end
            return False
        self._check_books()
        return True

    def report(self) -> AuditReport:
        """What the slices so far have found."""
        errors = self._errors
        more = self._n_errors - len(errors)
        if more:
            errors = [*errors[:-1], f"... and {more + 1} more errors"]
        pages_checked = self._next_page - self._books.first_data_page
        return AuditReport(not self._errors, pages_checked, tuple(errors))

    def _found(self, error: str) -> None:
        self._n_errors += 1
        if len(self._errors) < AUDIT_ERRORS_MAX:
            self._errors.append(error)

    def _check_pages(self, pages: NDArray[np.int64]) -> None:
        memory, registers = self._memory, self._registers()
        # Nobody reads an untouched page, which would only cost memory: it is zero, and so is its checksum.
        touched = memory.touched[pages[0] : pages[-1] + 1]
        sums = np.zeros(len(pages), dtype=np.uint64)
        if touched.all():
            sums[:] = checksums(memory.words[pages[0] : pages[-1] + 1])
        else:
            sums[touched] = checksums(memory.words[pages[touched]])
        stamps = read_stamps(memory, pages[touched], registers.seed)
        wrong = sums != self._books.ledger[pages]
        wrong[touched] |= stamps.wrong(registers.step)
        where = np.flatnonzero(wrong)
        if len(where):
            among_touched = np.cumsum(touched) - 1
            for at in where:
                self._found(_page_error(int(pages[at]), bool(touched[at]), stamps, int(among_touched[at])))

    def _check_books(self) -> None:
        registers, books = self._registers(), self._books
        if books.header_words() != registers.words():
            self._found(
                f"the header page says step {books.header_words()[Registers.__slots__.index('step')]} "
                f"and does not match the registers at step {registers.step}"
            )
        if books.ledger_total() != registers.ledger_sum:
            self._found(
                "the ledger does not add up to the sum in the registers: pages of it are lost or stale"
            )
        if registers.faults:
            said = self._last_fault()
            self._found(
                f"faults that the guest itself counted: {registers.faults}" + (f"; {said}" if said else "")
            )
        if registers.step:
            self._check_journal(registers)

    def _check_journal(self, registers: Registers) -> None:
        first = max(1, registers.step - JOURNAL_ENTRIES + 1)
        steps = np.arange(first, registers.step + 1, dtype=np.uint64)
        entries = self._books.journal[steps.astype(np.int64) % JOURNAL_ENTRIES]
        for entry, step in zip(entries.tolist(), range(first, registers.step + 1), strict=True):
            recorded, digest, draws, check = entry
            if recorded != step:
                self._found(f"the journal says step {recorded} where step {step} belongs")
            elif check != entry_check(step, digest, draws, registers.seed):
                self._found(f"the journal's entry of step {step} is damaged")
        pace = self._pace
        if pace.writes_per_turn:
            turns = steps % np.uint64(pace.write_every) == 0
            keep = max(1, _REPLAY_DRAWS // pace.writes_per_turn)
            self._replay(pace, registers, steps[turns][-keep:], entries[turns][-keep:])

    def _replay(
        self, pace: Pace, registers: Registers, steps: NDArray[np.uint64], entries: NDArray[np.uint64]
    ) -> None:
        """Draw the pages of these steps again and compare them with the journal and with the stamps."""
        stream = write_stream(self._spec, registers.seed, self._memory, pace)
        draws = stream.draw(steps, pace.writes_per_turn)
        for step in steps[entries[:, 1] != stream.digests(draws)].tolist():
            self._found(f"the journal of step {step} tells of other pages than the step writes")
        # Of equal indices the last assignment stands, and steps rise: what remains is the last writer.
        last_writer = np.zeros(self._memory.n_pages, dtype=np.uint64)
        last_writer[draws.reshape(-1)] = np.repeat(steps, draws.shape[1])
        pages = np.flatnonzero(last_writer)
        stamps = read_stamps(self._memory, pages, registers.seed)
        stale = ~stamps.stamped | (stamps.head_steps != last_writer[pages])
        for page in pages[stale].tolist():
            self._found(
                f"page {page} does not bear the stamp of step {last_writer[page]}, the last to write it"
            )


def _page_error(page: int, touched: bool, stamps: Stamps, at: int) -> str:
    """What is wrong with a page; ``at`` is its place among the touched pages, whose stamps these are."""
    if not touched:
        return f"page {page} is lost: it should hold data and was never touched"
    if not stamps.stamped[at]:
        return f"page {page} does not match its checksum"
    if stamps.torn[at]:
        return f"page {page} is torn: the stamps at its two ends differ"
    return f"page {page} does not match its checksum: its stamp says step {stamps.head_steps[at]}"
