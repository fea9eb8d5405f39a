"""A guest: memory, registers, books and the workload that advances them step by step."""

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.books import Books, marks_of, read_stamps, stamp
from ferry_agent.guest.fill import fill_pages
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.mixing import MASK, mix
from ferry_agent.guest.registers import Registers
from ferry_agent.guest.workload import (
    PAGES_PER_STEP_MAX,
    AccessStream,
    Pace,
    content_choice,
    content_pool,
)
from ferry_types.limits import PAGE_SIZE
from ferry_types.workloads import FillSpec, WorkloadSpec, books_pages

_TICK_MAX = 2**32 - 1


class Guest:
    """One VM's processor on its memory. Not thread-safe: its vCPU thread alone steps it."""

    def __init__(
        self,
        name: str,
        memory: GuestMemory,
        spec: WorkloadSpec,
        registers: Registers,
        pace: Pace | None = None,
    ) -> None:
        """A guest as its registers describe it; see ``boot`` and ``restore``.

        ``pace``: how its accesses are cut into steps, if not as ``Pace.of`` does.
        """
        spec.validate(memory.memory_bytes)
        self.name = name
        self.memory = memory
        self.spec = spec
        self.books = Books(memory)
        self.pace = Pace.of(spec) if pace is None else pace
        self.last_fault = ""
        self._pool = content_pool(spec.compressibility)
        self._rows = np.empty((PAGES_PER_STEP_MAX, self._pool.rows.shape[1]), dtype=np.uint64)
        self.go_on_from(registers)

    def go_on_from(self, registers: Registers) -> None:
        """Be where these registers say, over memory that they belong to; not while a vCPU runs it.

        So a guest that is made before it arrives costs its arrival nothing but this.
        """
        self.registers = registers
        self.writes = write_stream(self.spec, registers.seed, self.memory, self.pace)
        self._reads = AccessStream(
            self.spec,
            mix(registers.seed + 1),
            *_window(self.spec, registers.seed, self.memory),
            lanes=self.pace.reads_per_step_max,
            every=1,
        )

    @classmethod
    def boot(
        cls,
        name: str,
        memory: GuestMemory,
        spec: WorkloadSpec,
        fill: FillSpec,
        boot_epoch: int,
        pace: Pace | None = None,
    ) -> "Guest":
        """Fill fresh memory and open the books. Takes about a second per GiB: not for an event loop.

        Raises FerryError if a file to fill from cannot be read.
        """
        registers = Registers.at_boot(name, memory.memory_bytes, spec, boot_epoch)
        guest = cls(name, memory, spec, registers, pace)
        fill_pages(memory, guest.books.first_data_page, fill, registers.seed)
        guest.registers = registers.advanced(0, 0, guest.books.open())
        guest.books.write_header(guest.registers)
        return guest

    @classmethod
    def restore(cls, name: str, memory: GuestMemory, spec: WorkloadSpec, state: bytes) -> "Guest":
        """A guest that goes on from its device state, over memory that has arrived.

        Raises FerryError if the state is not one of this VM.
        """
        return cls(name, memory, spec, Registers.load(state, name, memory.memory_bytes, spec))

    def save(self) -> bytes:
        """Device state, for ``restore``."""
        return self.registers.save()

    def step(self) -> int:
        """Make one step: compare registers and books, read, write, keep books; return the pages written."""
        before = self.registers
        step = before.step + 1
        self.memory.tick = min(step, _TICK_MAX)
        faults = before.faults + self._count_faults() + self._read(step)
        written, ledger_sum, digest = 0, before.ledger_sum, 0
        draws = self.pace.writes_in(step)
        if draws:
            drawn = self.writes.draw(np.array([step], dtype=np.uint64), draws)
            digest = int(self.writes.digests(drawn)[0])
            pages = distinct(drawn[0])
            written = len(pages)
            ledger_sum = (ledger_sum + self._write(step, pages)) & MASK
        self.books.write_entry(step, digest, draws, before.seed)
        self.registers = before.advanced(step, faults, ledger_sum)
        self.books.write_header(self.registers)
        return written

    def _count_faults(self) -> int:
        """1 if memory is not as the registers left it: a step made twice, a gap, a lost header or journal."""
        registers = self.registers
        if self.books.header_words() != registers.words():
            self.last_fault = f"before step {registers.step + 1} the header page did not match the registers"
        elif not self.books.has_entry(registers.step, registers.seed):
            self.last_fault = f"before step {registers.step + 1} the journal did not hold the step before"
        else:
            return 0
        return 1

    def _read(self, step: int) -> int:
        """Read the pages of a step; return how many were wrong."""
        count = self.pace.reads_in(step)
        if count == 0:
            return 0
        pages = self._reads.draw(np.array([step], dtype=np.uint64), count)[0]
        self.memory.mark_read(pages)
        wrong = read_stamps(self.memory, pages, self.registers.seed).wrong(step - 1)
        if not wrong.any():
            return 0
        self.last_fault = f"in step {step} page {pages[wrong][0]} was read and its stamp was wrong"
        return int(np.count_nonzero(wrong))

    def _write(self, step: int, pages: NDArray[np.int64]) -> int:
        """Write pages and their checksums; return by how much the sum of the ledger changed."""
        choice = content_choice(pages, step)
        rows = self._rows[: len(pages)]
        np.take(self._pool.rows, choice, axis=0, out=rows, mode="clip")
        sums = stamp(rows, self._pool.sums[choice], marks_of(pages, self.registers.seed), step)
        self.memory.write(pages, rows.view(np.uint8))
        return self.books.write_sums(pages, sums)


def write_stream(spec: WorkloadSpec, seed: int, memory: GuestMemory, pace: Pace) -> AccessStream:
    """The pages that a guest writes."""
    return AccessStream(
        spec, seed, *_window(spec, seed, memory), lanes=pace.writes_per_turn, every=pace.write_every
    )


def _window(spec: WorkloadSpec, seed: int, memory: GuestMemory) -> tuple[int, int]:
    """First page and length of the working set: somewhere in the guest's own pages, by seed."""
    first_data_page = books_pages(memory.memory_bytes)
    n_pages = spec.working_set_bytes // PAGE_SIZE
    places = memory.n_pages - first_data_page - n_pages + 1
    return first_data_page + mix(seed ^ n_pages) % places, n_pages


def distinct(pages: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pages in rising order, each once. Quicker than numpy.unique for a handful."""
    ordered = np.sort(pages)
    first = np.empty(len(ordered), dtype=np.bool_)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
