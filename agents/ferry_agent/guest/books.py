"""The books that a guest keeps at the start of its own memory.

::

    page 0        header: a copy of the registers
    pages 1-8     journal: a ring with one entry for each of the last 1,024 steps
    pages 9-      ledger: one checksum for every page of the memory
    then          the guest's own pages

The checksum of a page is linear: the sum of its 512 words, each times an odd weight of its own, modulo
2**64. So a guest derives the checksum of a page that it stamps from the known sum of the contents and the
few words of the stamp, and need not read the page again. A page of zeros sums up to 0, and a single changed
word always shows. The sum of the whole ledger stands in the registers, outside memory: a page
that is stale together with its ledger entry shows there.

A page that the guest has written bears its stamp twice: ``[step, mark, ..., mark, step]``, where the mark
depends on page number and seed. A page whose two ends disagree is torn. Pages of the first fill bear none.

Everything here is written like any other guest page: write, then mark. Between two steps books and pages
agree.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.mixing import GOLDEN, MASK, mix, mix_in_place
from ferry_agent.guest.registers import Registers
from ferry_types.limits import PAGE_SIZE
from ferry_types.workloads import HEADER_PAGES, JOURNAL_PAGES, LEDGER_ENTRY_BYTES, books_pages

WORDS_PER_PAGE = PAGE_SIZE // 8
LEDGER_ENTRIES_PER_PAGE = PAGE_SIZE // LEDGER_ENTRY_BYTES

JOURNAL_ENTRY_WORDS = 4
"""Step, digest of the pages drawn, number of draws, check word."""
JOURNAL_ENTRIES_PER_PAGE = WORDS_PER_PAGE // JOURNAL_ENTRY_WORDS
JOURNAL_ENTRIES = JOURNAL_PAGES * JOURNAL_ENTRIES_PER_PAGE

STAMP_WORDS = (0, 1, WORDS_PER_PAGE - 2, WORDS_PER_PAGE - 1)
"""Step and mark at the head of a page, mark and step at its tail."""

_SUM_PAGES = 256
"""Pages summed at once: they stay in a processor's cache."""


def _make_weights() -> NDArray[np.uint64]:
    counters = np.arange(1, WORDS_PER_PAGE + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    return mix_in_place(counters) | np.uint64(1)


WEIGHTS = _make_weights()
_STEP_WEIGHT = np.uint64((int(WEIGHTS[0]) + int(WEIGHTS[-1])) & MASK)
_MARK_WEIGHT = np.uint64((int(WEIGHTS[1]) + int(WEIGHTS[-2])) & MASK)


def checksums(rows: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Checksums of pages given as (n, 512) words."""
    sums = np.empty(len(rows), dtype=np.uint64)
    for start in range(0, len(rows), _SUM_PAGES):
        batch = slice(start, start + _SUM_PAGES)
        np.einsum("ij,j->i", rows[batch], WEIGHTS, out=sums[batch])
    return sums


def marks_of(index: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """The marks that the stamps of these pages bear."""
    marks = index.astype(np.uint64)
    marks *= np.uint64(GOLDEN)
    marks += np.uint64(seed)
    return marks


def stamp(
    rows: NDArray[np.uint64], sums: NDArray[np.uint64], marks: NDArray[np.uint64], step: int
) -> NDArray[np.uint64]:
    """Stamp n pages of contents, 0 where stamps go and with these sums; return their new checksums."""
    head_step, head_mark, tail_mark, tail_step = STAMP_WORDS
    rows[:, head_step] = step
    rows[:, head_mark] = marks
    rows[:, tail_mark] = marks
    rows[:, tail_step] = step
    new_sums = marks * _MARK_WEIGHT
    new_sums += sums
    new_sums += np.uint64(step * int(_STEP_WEIGHT) & MASK)
    return new_sums


@dataclass(frozen=True, slots=True)
class Stamps:
    """Stamps read from n pages: where one is present at all, what it says, and whether it is whole.

    ``stamped``: a mark at either end. ``head_steps``, ``tail_steps``: meaningful where stamped. ``torn``:
    stamped, but the two ends differ.
    """

    stamped: NDArray[np.bool_]
    torn: NDArray[np.bool_]
    head_steps: NDArray[np.uint64]
    tail_steps: NDArray[np.uint64]

    def wrong(self, step: int) -> NDArray[np.bool_]:
        """Pages that are torn, or stamped later than ``step``."""
        return self.torn | (self.stamped & (self.head_steps > np.uint64(step)))


def read_stamps(memory: GuestMemory, index: NDArray[np.int64], seed: int) -> Stamps:
    """Read the stamps of pages."""
    words = memory.words
    marks = marks_of(index, seed)
    head_step, head_mark, tail_mark, tail_step = (words[index, word] for word in STAMP_WORDS)
    head = head_mark == marks
    tail = tail_mark == marks
    stamped = head | tail
    torn = (head != tail) | (stamped & (head_step != tail_step))
    return Stamps(stamped, torn, head_step, tail_step)


def entry_check(step: int, digest: int, draws: int, seed: int) -> int:
    """Check word of a journal entry."""
    return mix(seed ^ mix(step * GOLDEN + digest) ^ draws)


class Books:
    """Reads and writes the books of one memory."""

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.ledger_page = HEADER_PAGES + JOURNAL_PAGES
        self.first_data_page = books_pages(memory.memory_bytes)
        self._header = memory.words[0]
        self.journal: NDArray[np.uint64] = memory.words[HEADER_PAGES : self.ledger_page].reshape(
            JOURNAL_ENTRIES, JOURNAL_ENTRY_WORDS
        )
        self.ledger: NDArray[np.uint64] = memory.words[self.ledger_page : self.first_data_page].reshape(-1)[
            : memory.n_pages
        ]

    def write_header(self, registers: Registers) -> None:
        """Copy the registers to the header."""
        words = registers.words()
        self._header[: len(words)] = words
        self._memory.mark_written(0)

    def header_words(self) -> list[int]:
        """What the header says, to be compared with ``Registers.words()``."""
        words: list[int] = self._header[: len(Registers.__slots__)].tolist()
        return words

    def write_entry(self, step: int, digest: int, draws: int, seed: int) -> None:
        """Put a step on record."""
        slot = step % JOURNAL_ENTRIES
        self.journal[slot] = (step, digest, draws, entry_check(step, digest, draws, seed))
        self._memory.mark_written(HEADER_PAGES + slot // JOURNAL_ENTRIES_PER_PAGE)

    def has_entry(self, step: int, seed: int) -> bool:
        """Whether the journal holds a whole entry of this step; of step 0 there is none to hold."""
        if step == 0:
            return True
        recorded, digest, draws, check = self.journal[step % JOURNAL_ENTRIES].tolist()
        return bool(recorded == step and check == entry_check(step, digest, draws, seed))

    def write_sums(self, index: NDArray[np.int64], sums: NDArray[np.uint64]) -> int:
        """Enter new checksums (no page twice); return by how much the sum of the ledger changed."""
        change = int(sums.sum()) - int(self.ledger[index].sum())
        self.ledger[index] = sums
        self._memory.mark_written(self.ledger_page + index // LEDGER_ENTRIES_PER_PAGE)
        return change

    def open(self) -> int:
        """Open the books of memory that was just filled: enter all checksums; return their sum."""
        memory = self._memory
        memory.words[: self.first_data_page] = 0
        self.ledger[self.first_data_page :] = checksums(memory.words[self.first_data_page :])
        memory.mark_written(slice(0, self.first_data_page))
        return self.ledger_total()

    def ledger_total(self) -> int:
        """Sum of all entries of the ledger modulo 2**64."""
        return int(self.ledger.sum())
