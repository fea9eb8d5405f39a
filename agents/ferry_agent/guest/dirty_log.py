"""Which pages a guest has written since somebody last asked.

The contract: **guests write, then mark; a migrator clears, then copies.** Look at one page that is written
once more while it is being taken. Its mark is stored after the write. Either the mark comes after the
clearing: then it stays set and the page is taken again. Or the clearing swallows it: then the write came
before the clearing, and the copy, which is made later still, contains it. Nothing is lost; at worst a page
is sent twice.

A mark is a byte, not a bit: setting one is a plain store that disturbs no neighbour, so the guest's path
needs no lock. The argument also needs that a processor's stores become visible in their order (on x86
they do) and that the copy does not overtake the clearing: ``take`` puts a full barrier between them.
"""

import threading
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

PageIndex: TypeAlias = int | slice | NDArray[np.int64]
"""Pages by number: one, a run of them, or an array of any order, in which a number may come twice."""


def as_run(rising: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Numbers that rise, none twice: as a slice if none is left out, which is several times as fast."""
    if len(rising) and rising[-1] - rising[0] == len(rising) - 1:
        return slice(int(rising[0]), int(rising[-1]) + 1)
    return rising


class DirtyLog:
    """One mark per page of a guest's memory. Any thread may mark; one thread at a time may take."""

    __slots__ = ("_barrier", "_marks")

    def __init__(self, n_pages: int) -> None:
        self._marks: NDArray[np.bool_] = np.zeros(n_pages, dtype=np.bool_)
        self._barrier = threading.Lock()

    def mark(self, index: PageIndex) -> None:
        """Say that these pages were written. To be called after the write."""
        self._marks[index] = True

    def take(self) -> NDArray[np.int64]:
        """Find the marked pages, clear exactly these marks, and return their numbers in rising order.

        The caller copies the pages only afterwards, and gives the marks back if the copies are lost.
        """
        found = self._find()
        self._clear(as_run(found))
        return found

    def take_all(self) -> NDArray[np.bool_]:
        """``take`` where most pages are marked: as a mask (n_pages,), several times as fast then."""
        found = self._marks.copy()
        self._clear(found)
        return found

    def give_back(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> None:
        """Undo ``take`` or ``take_all`` for pages whose copies did not arrive; by numbers, or as a mask."""
        self._marks[index] = True

    def any_marked(self, index: NDArray[np.int64]) -> bool:
        """Whether one of these pages is marked."""
        return bool(self._marks[index].any())

    def count(self) -> int:
        """Number of marked pages."""
        return int(np.count_nonzero(self._marks))

    def _find(self) -> NDArray[np.int64]:
        # From a snapshot: nonzero() counts first, and fails if marks are set before it has collected them.
        return np.flatnonzero(self._marks.copy()).astype(np.int64, copy=False)

    def _clear(self, index: slice | NDArray[np.int64] | NDArray[np.bool_]) -> None:
        self._marks[index] = False
        # A processor may load from a page before its own store to a mark is visible to the others. Taking
        # a lock is an atomic exchange, which lets no later load pass.
        with self._barrier:
            pass
