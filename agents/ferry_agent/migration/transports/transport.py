"""The port between the copier, which knows what is to be sent, and how it travels."""

import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ferry.v1 import migration_pb2
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.breakage import Breakage
from ferry_agent.migration.frames import NO_PAGES
from ferry_agent.migration.ports import Wire, WireOf
from ferry_agent.migration.tally import Tally
from ferry_agent.migration.transports.lanes import LanePlan
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE
from ferry_types.messages import BeginOutgoing
from ferry_wire.channels import IdleChannels

Indices = NDArray[np.int64]


class PassKind(Enum):
    """What the guest may do to the pages of a pass while they are sent."""

    FIRST = auto()
    """It may write any of them, but most lie still."""
    CHASE = auto()
    """It has written every one of them just now, and will again."""
    LAST = auto()
    """It is paused."""


class SentPages:
    """What the copies at the target hold. Frames share no pages, so threads with different frames may use it.

    A page that is zero and was never sent needs no sending, because the target's memory is fresh; one that
    became zero after having been sent is named.
    """

    def __init__(self, page_count: int) -> None:
        self.on_target: NDArray[np.bool_] = np.zeros(page_count, np.bool_)
        """Pages whose last copy at the target may not be zero."""
        self.found_late = 0
        """Pages of this pass that turned out zero when they were sent."""
        self._counting = threading.Lock()

    def sift(self, pages: Indices, zeros: Indices, zero_rows: NDArray[np.bool_]) -> tuple[Indices, Indices]:
        """A frame's pages and zero pages, once ``zero_rows`` of ``pages`` have turned out zero."""
        found = pages[zero_rows]
        with self._counting:
            self.found_late += len(found)
        return pages[~zero_rows], np.concatenate((zeros, found[self.on_target[found]]))

    def note(self, pages: Indices | slice, zeros: Indices) -> None:
        """These are about to be sent."""
        self.on_target[pages] = True
        if len(zeros):
            self.on_target[zeros] = False


CloseLane = Callable[[int], Awaitable[int]]
"""Has the target end a lane; the number of its frames that were written. Raises FerryError."""


@dataclass(frozen=True, slots=True)
class AttemptParts:
    """What transports of one attempt are made of."""

    order: BeginOutgoing
    lanes: Sequence[LanePlan]
    memory: GuestMemory
    sent_pages: SentPages
    breakage: Breakage
    wire_of: WireOf
    close_lane: CloseLane
    channels: IdleChannels


class Transport(Protocol):
    """Carries the pages of one attempt. Used by one task, which waits for each call.

    Methods raise FerryError once the attempt is broken off.
    """

    lanes: Sequence[LanePlan]
    """What Hello offers."""
    tally: Tally

    @property
    def frame_pages(self) -> int:
        """Pages that a frame should carry at most; NICs that come up or go down change it."""

    @property
    def pages_in_flight(self) -> int:
        """About how many pages were sent and are not acknowledged yet."""

    def connect(self) -> None:
        """Begin to connect, so that this happens while the control stream is opened."""

    async def open(self, accept: migration_pb2.MigrationAccept) -> None:
        """Prove the token on every lane. Raises FerryError; ``close`` is due in any case."""

    def begin_pass(self, kind: PassKind) -> None:
        """The pages that follow are of such a pass. What was sent before is settled."""

    async def send(self, pages: Indices, zeros: Indices = NO_PAGES) -> None:
        """Send what ``pages`` (at most ``frame_pages``) hold and name ``zeros`` (at most 65,536) as zero.

        Returns as soon as the window has room for more. Contents are read until ``settle`` returns, and may
        be read again: marks are taken before.
        """

    async def settle(self) -> None:
        """Wait until the target has checked and written everything."""

    async def settle_last(self) -> None:
        """Wait, in the pause, until the tally is what the target has or is going to have."""

    def explanation(self) -> str:
        """How much was compressed and why the rest was not, in words; empty if nothing was to be."""

    async def close(self) -> None:
        """End all lanes; guest memory is read no more."""


def frame_pages(wires: Sequence[Wire], target_frame_bytes: int) -> int:
    """Pages that frames should carry, so that the slowest NIC at either end is done with one soon."""
    frame_bytes = min(target_frame_bytes, *(wire.frame_bytes for wire in wires))
    return max(1, min(FRAME_PAGES_MAX, frame_bytes // PAGE_SIZE))
