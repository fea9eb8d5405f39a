"""What a host can say of a move beforehand: it looks at the guest, and asks the rules."""

import math

import numpy as np

from ferry_agent.guest.books import LEDGER_ENTRIES_PER_PAGE
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.frames import zero_pages
from ferry_agent.migration.page_order import parts
from ferry_agent.rack import Image
from ferry_host.convergence import Policy
from ferry_host.estimate import GuestFigures, estimate
from ferry_types.migrations import MigrationOptions, MoveEstimate, WireFigures

SAMPLED_PAGES_MAX = 4096
"""Touched pages that are looked at to tell how many are zero: their share comes out within 1.6 %, in 19 cases
of 20, and it takes a few milliseconds whatever the size of the memory. Where a hypervisor makes first touches
of idle huge pages slow, it takes 50 more, and a first pass, which touches them later, about 30 less."""

READ_AT_ONCE_PAGES = 128
"""So few of them that they are copied into memory that the process has used before."""


def estimate_move(image: Image, options: MigrationOptions, wire: WireFigures) -> MoveEstimate | None:
    """What a move of this VM would take; None if its guest is paused, or ran for too short a time to tell.

    ``wire`` and what is returned are in emulated units. Reads up to 16 MiB of guest memory: not for an event
    loop.
    """
    writes_per_s = image.writes_per_s
    if writes_per_s is None:
        return None
    emulated = image.scale.emulated
    # The header, the page of the journal that is being written, and the ledger of the working set.
    books_pages = 2 + math.ceil(image.working_set_pages / LEDGER_ENTRIES_PER_PAGE)
    guest = GuestFigures(
        pages=emulated(pages_to_send(image.memory)),
        writes_per_s=writes_per_s,
        working_set_pages=emulated(image.working_set_pages),
        access=image.spec.workload.access,
        books_pages=emulated(books_pages),
    )
    return estimate(guest, wire, Policy.of(options))


def pages_to_send(memory: GuestMemory) -> int:
    """About how many pages a first pass sends: those that were touched and are not zero."""
    touched = int(np.count_nonzero(memory.touched))
    if not touched:
        return 0
    step = max(1, touched // SAMPLED_PAGES_MAX)
    # From a different place in each run of pages: contents may recur in step with an even stride.
    starts = np.arange(0, touched - step + 1, step)
    sample = starts + np.random.default_rng(touched).integers(0, step, len(starts))
    if touched < memory.n_pages:
        sample = np.flatnonzero(memory.touched)[sample]
    zeros = sum(
        np.count_nonzero(zero_pages(memory.words, part)) for part in parts(sample, READ_AT_ONCE_PAGES)
    )
    return round(touched * (1 - zeros / len(sample)))
