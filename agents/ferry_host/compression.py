"""Whether a batch of pages is compressed: live, from what the processors and the wire have left.

Compression may use only what nobody else wants of the processors (Hyper-V 2012 R2: it yields to guests and is
skipped when there is none to spare). So its processor time comes out of a budget that is filled by what was
idle lately. What compression itself used counts as idle too, but for what it had while somebody else wanted
to run: a thread of low priority gets a small share even then, and how much shows in how long it waited.

It never holds the wire up either. While batches are being compressed and the wire has nothing to do, further
ones are sent as they are. That compares the two rates without knowing them: a wire that takes pages more
slowly than they are compressed gets compressed ones only, a faster one gets as many as there are and plain
ones in between, which is faster than either alone.
"""

from collections import Counter
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

SHRUNK_ENOUGH = 0.9
"""A batch that keeps more of its size is sent as it is: decoding costs the target more than that saves."""

FAILURES_MAX, PROBE_EVERY_BATCHES = 4, 8
"""After so many batches in a row that did not shrink, only each eighth is tried. LZ4 runs over random memory
five times as fast as over other memory, so that a probe costs little; a find ends the probing."""

WINDOW_S = 0.1
"""Time between two looks at the processors. The kernel counts idle time in ticks of 10 ms."""

RESERVE_PROCESSORS = 0.1
"""Never counted as spare: a guest needs room to wake up in, and a window is a tick more or less."""

RISE_WEIGHT = 0.3
"""What a window that shows more to spare counts; one that shows less is believed at once."""

TAKEN_PER_WAITED = 110 / 1024
"""What a compressing thread takes of a processor that somebody else wants, for each second for which it waits
there: weights of priorities 10 and 0 in Linux (``sched_prio_to_weight``). Waiting itself proves no more: a
burst of others, as when a move begins, leaves something as well."""

BURST_S = 0.05
"""Processor time that may be saved up, in seconds for each thread."""

DRY_MEMORY_S = 1.0
"""For so long a wire that was seen idle is taken for one that is faster than the compressor."""

WIRE_LOW_FRAMES = 4
"""Unacknowledged frames up to which a wire may be about to run dry: the target may hold three, and one more
whose acknowledgement waits for the next."""


class Plain(StrEnum):
    """Why a batch was sent as it is; the value is for a person to read."""

    INCOMPRESSIBLE = "did not shrink"
    NO_PROCESSOR = "found no processor to spare"
    FAST_WIRE = "went out while the wire was faster than the compressor"


class Pending(Enum):
    """What to do with a batch that is not sent as it is."""

    COMPRESS = auto()
    WAIT = auto()
    """Until a batch is ready: the wire is busy and all threads are."""


@dataclass(frozen=True, slots=True)
class Window:
    """What became of the processors between two looks, in seconds of processor time but ``duration_s``."""

    duration_s: float
    idle_s: float
    """Of the processors, and within the limits, that this process has."""
    own_s: float
    """Used for compressing."""
    waited_s: float
    """Time for which compressing threads were pushed off their processors."""


class ProcessorBudget:
    """Processor time that compression may use. Times are in seconds of one monotonic clock."""

    def __init__(self, threads: int, now_s: float) -> None:
        self._threads = threads
        self._spare = float(threads)  # until the first look: a short move would be over before it
        self._filled_at_s = now_s
        self._credit_s = BURST_S

    @property
    def spare_processors(self) -> float:
        """What compression may use at present, in processors."""
        return self._spare

    def observe(self, window: Window) -> None:
        """Learn what was to spare lately."""
        left_s = window.idle_s + window.own_s - window.waited_s * TAKEN_PER_WAITED
        seen = min(max(left_s / window.duration_s - RESERVE_PROCESSORS, 0.0), float(self._threads))
        if seen > self._spare:
            seen = self._spare + RISE_WEIGHT * (seen - self._spare)
        self._spare = seen

    def spend(self, processor_s: float) -> None:
        """A batch has taken so much."""
        self._credit_s -= processor_s

    def allows(self, now_s: float) -> bool:
        """Whether another batch may be begun."""
        earned_s = self._spare * (now_s - self._filled_at_s)
        self._filled_at_s = now_s
        # Without anything to spare, what was saved up before is not to be used either.
        most_s = BURST_S * self._threads if self._spare > 0 else 0.0
        self._credit_s = min(self._credit_s + earned_s, most_s)
        return self._credit_s > 0


class Governor:
    """Decides batch by batch, and keeps count. One batch more than there are threads is under way at most."""

    def __init__(self, threads: int, now_s: float) -> None:
        self.budget = ProcessorBudget(threads, now_s)
        self._jobs_max = threads + 1
        self._failures = 0
        self._skipped = 0
        self._dry_at_s: float | None = None
        self._shrunk_pages = 0
        self._payload_bytes = 0
        self._raw_bytes = 0
        self._plain: Counter[Plain] = Counter()

    def decide(self, jobs: int, unacked_frames: int, now_s: float, *, in_pause: bool) -> Pending | Plain:
        """What to do with the next batch: ``jobs`` are being compressed, so many frames are on their way.

        In the pause the last batches end the black-out: a wire that is faster gets them as they are.
        """
        if self._failures >= FAILURES_MAX and self._skipped < PROBE_EVERY_BATCHES - 1:
            return Plain.INCOMPRESSIBLE
        if not self.budget.allows(now_s):
            return Plain.NO_PROCESSOR
        was_dry = self._dry_at_s is not None and now_s - self._dry_at_s < DRY_MEMORY_S
        if jobs < self._jobs_max:
            return Plain.FAST_WIRE if was_dry and in_pause else Pending.COMPRESS
        return Plain.FAST_WIRE if was_dry and unacked_frames <= WIRE_LOW_FRAMES else Pending.WAIT

    def wire_ran_dry(self, now_s: float) -> None:
        """The compressor was waited for and the wire was not."""
        self._dry_at_s = now_s

    def begun(self) -> None:
        """A batch is being compressed."""
        self._skipped = 0

    def sent_plain(self, pages: int, reason: Plain) -> None:
        """A batch was not tried."""
        self._plain[reason] += pages
        self._skipped += reason is Plain.INCOMPRESSIBLE

    def finished(self, pages: int, raw_bytes: int, payload_bytes: int, processor_s: float) -> bool:
        """A batch has been compressed, at this cost. Returns whether it is to be sent so."""
        self.budget.spend(processor_s)
        if payload_bytes > raw_bytes * SHRUNK_ENOUGH:
            self._failures += 1
            self._plain[Plain.INCOMPRESSIBLE] += pages
            return False
        self._failures = 0
        self._shrunk_pages += pages
        self._raw_bytes += raw_bytes
        self._payload_bytes += payload_bytes
        return True

    def explanation(self) -> str:
        """What was compressed and what was not, and why, in words; empty before the first batch."""
        total = self._shrunk_pages + self._plain.total()
        if total == 0:
            return ""
        words = [f"{self._shrunk_pages / total:.0%} of the pages were compressed"]
        if self._shrunk_pages:
            words[0] += f", to {self._payload_bytes / self._raw_bytes:.0%} of their size"
        words += [f"{pages / total:.0%} {reason}" for reason, pages in self._plain.most_common()]
        return "; ".join(words)
