"""What the source measures of one attempt, as it goes along.

Real pages and bytes go in; figures come out in emulated units, and the move is decided by them.
"""

from dataclasses import fields

from ferry_agent.migration.copier import Copied
from ferry_host.scale import UNSCALED, Scale
from ferry_types.migrations import BlackoutParts, HandOffTimes, MigrationFigures, PassFigures

RATE_BYTES_MIN = 1 << 20
"""Passes that send less say more about round trips than about the wire: the rate before them stands."""


class MoveRecord:
    """Collects times, in seconds of this machine's monotonic clock, and passes."""

    def __init__(self, scale: Scale = UNSCALED) -> None:
        self._scale = scale
        self.began_at_s: float | None = None
        self.paused_at_s: float | None = None
        self.final_sent_at_s: float | None = None
        self.explanation = ""
        self.passes: list[PassFigures] = []
        self.rate_bytes_per_s = 0.0
        """At which memory was copied in the last pass that was long enough to tell; 0 before the first. What
        compression spared the wire counts too: it is pages that have to fit into the black-out."""
        self.compression = ""
        self._final: PassFigures | None = None

    def add_pass(
        self, copied: Copied, duration_s: float, dirty_pages_after: int, throttle_percent: int = 0
    ) -> None:
        """Another pass over memory has been acknowledged by the target; ``dirty_pages_after``: real ones."""
        copied, dirty_pages_after = self._emulated(copied), self._scale.emulated(dirty_pages_after)
        if copied.bytes_sent >= RATE_BYTES_MIN or not self.rate_bytes_per_s:
            self.rate_bytes_per_s = (copied.bytes_sent + copied.saved_bytes) / duration_s
        index = len(self.passes) + 1
        self.passes.append(_pass_figures(index, copied, duration_s, dirty_pages_after, throttle_percent))

    def set_final(self, copied: Copied, duration_s: float) -> None:
        """The copy in the pause is on its way, ``duration_s`` after the pause began."""
        self._final = _pass_figures(0, self._emulated(copied), duration_s, 0, 0)

    def figures(
        self,
        now_s: float,
        *,
        first_quantum_at_s: float | None = None,
        hand_off: HandOffTimes | None = None,
        verified: bool | None = None,
    ) -> MigrationFigures:
        """All that is known; ``first_quantum_at_s`` and ``hand_off`` are the target's times by this clock."""
        ends_at_s = now_s if self.paused_at_s is None else self.paused_at_s
        blackout_s = None
        if first_quantum_at_s is not None and self.paused_at_s is not None:
            # An estimated clock offset may be off by more than the black-out lasted.
            blackout_s = max(0.0, first_quantum_at_s - self.paused_at_s)
        last = () if self._final is None else (self._final,)
        return MigrationFigures(
            passes=tuple(self.passes),
            final=self._final,
            brownout_s=0.0 if self.began_at_s is None else ends_at_s - self.began_at_s,
            blackout_s=blackout_s,
            bytes_sent=sum(figures.bytes_sent for figures in (*self.passes, *last)),
            verified=verified,
            explanation=self.explanation,
            compression=self.compression,
            blackout=self._parts(first_quantum_at_s, hand_off),
        )

    def _emulated(self, copied: Copied) -> Copied:
        """All fields are amounts of pages or bytes."""
        return Copied(
            **{field.name: self._scale.emulated(getattr(copied, field.name)) for field in fields(copied)}
        )

    def _parts(self, first_quantum_at_s: float | None, hand_off: HandOffTimes | None) -> BlackoutParts | None:
        """Where the black-out's time went, if all its moments are known.

        Moments that an estimated clock offset has put out of order count as one, so that no part is negative
        and together they are the black-out.
        """
        if self.paused_at_s is None or self.final_sent_at_s is None:
            return None
        if first_quantum_at_s is None or hand_off is None:
            return None
        parts_s = []
        part_began_at_s = self.paused_at_s
        for ended_at_s in (self.final_sent_at_s, hand_off.ready_at_s, hand_off.run_at_s, first_quantum_at_s):
            part_ended_at_s = max(part_began_at_s, min(ended_at_s, first_quantum_at_s))
            parts_s.append(part_ended_at_s - part_began_at_s)
            part_began_at_s = part_ended_at_s
        return BlackoutParts(*parts_s)


def _pass_figures(
    index: int, copied: Copied, duration_s: float, dirty_pages_after: int, throttle_percent: int
) -> PassFigures:
    return PassFigures(
        index=index,
        pages_sent=copied.pages_sent,
        zero_pages=copied.zero_pages,
        bytes_sent=copied.bytes_sent,
        duration_s=duration_s,
        dirty_pages_after=dirty_pages_after,
        compressed_pages=copied.compressed_pages,
        compressed_bytes=copied.compressed_bytes,
        throttle_percent=throttle_percent,
    )
