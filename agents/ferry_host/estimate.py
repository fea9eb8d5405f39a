"""What a live migration would take: the passes, worked out beforehand by the rules that will decide them.

A pass takes what it has to send over the rate of the wire; meanwhile the guest dirties pages, which the next
pass has to send. How many different pages that are follows from how fast the guest writes, which is measured,
and from how it chooses pages among its working set: the more of them are dirty already, the fewer are new.
"""

import math
from dataclasses import dataclass

from ferry_host.convergence import Action, Policy, copy_time_s, decide
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import MoveEstimate, PassFigures, WireFigures
from ferry_types.workloads import HOT_SHARE_OF_ACCESSES, AccessPattern, hot_pages


@dataclass(frozen=True, slots=True)
class GuestFigures:
    """What a host knows of a guest before it moves.

    ``pages``: touched and not zero, which a first pass sends. ``writes_per_s``: pages that it chooses to
    write, each time that it does, as measured. ``working_set_pages``: among which it chooses, by ``access``.
    ``books_pages``: which it writes besides, whichever pages it chooses.
    """

    pages: int
    writes_per_s: float
    working_set_pages: int
    access: AccessPattern
    books_pages: int = 0


def dirty_pages_after(guest: GuestFigures, span_s: float, throttle_percent: int = 0) -> float:
    """Different pages that the guest has dirtied after so many seconds: what is to be expected of chance.

    ``n`` writes to ``w`` pages, each as likely as any other, leave ``w * exp(-n / w)`` of them clean.
    """
    writes = guest.writes_per_s * (1 - throttle_percent / 100) * span_s
    return _chosen(guest, writes) + min(writes, guest.books_pages)


def _chosen(guest: GuestFigures, writes: float) -> float:
    pages = guest.working_set_pages
    match guest.access:
        case AccessPattern.SEQUENTIAL:
            return min(writes, pages)
        case AccessPattern.UNIFORM:
            return _hit(writes, pages)
        case AccessPattern.HOTSET:
            hot = hot_pages(pages)
            if hot == pages:
                return _hit(writes, pages)
            hot_writes = writes * HOT_SHARE_OF_ACCESSES
            return _hit(hot_writes, hot) + _hit(writes - hot_writes, pages - hot)


def estimate(guest: GuestFigures, wire: WireFigures, policy: Policy) -> MoveEstimate:
    """Go through the passes of a move; ends, because ``decide`` bounds them."""
    history: list[PassFigures] = []
    to_send, percent, decision = guest.pages, 0, None
    while decision is None or decision.action is Action.CONTINUE:
        duration_s = to_send * PAGE_SIZE / wire.rate_bytes_per_s
        left = round(dirty_pages_after(guest, duration_s, percent))
        index = len(history) + 1
        sent_bytes = to_send * PAGE_SIZE
        history.append(PassFigures(index, to_send, 0, sent_bytes, duration_s, left, throttle_percent=percent))
        decision = decide(history, left, wire.rate_bytes_per_s, policy)
        to_send, percent = left, decision.throttle_percent
    last_s = None if decision.action is Action.GIVE_UP else copy_time_s(to_send, wire.rate_bytes_per_s)
    sent_pages = sum(figures.pages_sent for figures in history) + (0 if last_s is None else to_send)
    return MoveEstimate(
        passes=len(history),
        brownout_s=sum(figures.duration_s for figures in history),
        blackout_s=None if last_s is None else last_s + wire.blackout_floor_s,
        bytes_sent=sent_pages * PAGE_SIZE,
        rate_bytes_per_s=wire.rate_bytes_per_s,
        write_bytes_per_s=guest.writes_per_s * PAGE_SIZE,
        explanation=decision.explanation,
    )


def _hit(writes: float, pages: int) -> float:
    return pages * -math.expm1(-writes / pages)
