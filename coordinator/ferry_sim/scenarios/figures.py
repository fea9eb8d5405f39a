"""Figures of moves and drains that ran live, beside what a scenario expects of them.

The arithmetic by which they are judged is that of the file: its NICs' rates, what headers leave of them, and
what the era allows.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ferry_sim.scenarios.bounds import Bound, Nearness
from ferry_sim.scenarios.expectations import Drain, EstimateFigures, Move, MoveFigures
from ferry_sim.scenarios.matching import found_moves
from ferry_sim.scenarios.model import Scenario
from ferry_sim.scenarios.seen import Seen, SeenEvent, SeenMove
from ferry_types.eras import RULES
from ferry_types.events import MIGRATION_BEGUN, MIGRATION_SUCCEEDED
from ferry_types.links import joint_rate_bytes_per_s, migration_rate_bytes_per_s, payload_share
from ferry_types.migrations import MigrationState

DRAIN: Final = "drain"
"""Cause of a move that a drain asked for."""

Measured = Mapping[str, float | None]
"""Figure -> its value, None if it is not known."""


@dataclass(frozen=True, slots=True)
class Check:
    """A figure, and whether it is as it should be. ``measured``: as it is shown; ``expected``: in words."""

    subject: str
    figure: str
    measured: str
    expected: str
    ok: bool

    @property
    def words(self) -> str:
        """What was expected, and what came instead."""
        return f"{self.subject}: {self.figure} is {self.measured}, expected {self.expected}"


def checks(scenario: Scenario, seen: Seen) -> list[Check]:
    """Every figure that the file expects something of, in its order."""
    found: list[Check] = []
    for index, (expected, move) in enumerate(
        zip(scenario.moves, found_moves(scenario.moves, seen.moves), strict=True)
    ):
        if move is not None:  # that it is not there is said elsewhere
            found += _checks_of_move(scenario, f"moves[{index}] ({move.vm})", expected, move)
    for index, drain in enumerate(scenario.drains):
        found += _checks_of_drain(scenario, f"drains[{index}] ({drain.node})", drain, seen)
    return found


# --- one move -------------------------------------------------------------------------------------------


def measured_of_move(scenario: Scenario, move: SeenMove) -> Measured:
    """What a move has taken, under the names of ``MoveFigures``."""
    figures = move.figures
    if figures is None:
        return dict.fromkeys(MoveFigures.model_fields)
    passes_bytes = sum(one.bytes_sent for one in figures.passes)
    rates = _Rates.between(scenario, move)
    return {
        "total_s": move.total_s or None,
        "brownout_s": figures.brownout_s,
        "blackout_s": figures.blackout_s,
        "passes": len(figures.passes),
        "bytes_sent": figures.bytes_sent,
        "last_dirty_pages": None if figures.final is None else figures.final.pages_sent,
        "link_share": rates.link_share(passes_bytes, figures.brownout_s),
        "times_arithmetic": rates.times_arithmetic(figures.bytes_sent, move.total_s),
    }


def _checks_of_move(scenario: Scenario, subject: str, expected: Move, move: SeenMove) -> Iterator[Check]:
    measured = measured_of_move(scenario, move)
    yield from _within(subject, expected.figures, measured)
    estimated = _estimated(move)
    for name in EstimateFigures.model_fields:
        nearness: Nearness | None = getattr(expected.estimate, name)
        if nearness is not None:
            value, outcome = estimated.get(name), measured[name]
            ok = value is not None and outcome is not None and nearness.allows(value, outcome)
            words = f"{nearness.text} of {_shown(outcome)}"
            yield Check(subject, f"estimated {name}", _shown(value), words, ok)


def _estimated(move: SeenMove) -> Measured:
    """What it was expected to take; nothing if no estimate was made."""
    made = None if move.figures is None else move.figures.estimate
    if made is None:
        return {}
    return {
        "total_s": None if made.blackout_s is None else made.brownout_s + made.blackout_s,
        "brownout_s": made.brownout_s,
        "blackout_s": made.blackout_s,
        "passes": made.passes,
        "bytes_sent": made.bytes_sent,
    }


# --- a drain --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MeasuredDrain:
    """What the moves of a drain have taken together, under the names of ``Drain``."""

    figures: Measured
    order: tuple[str, ...]


def measured_of_drain(scenario: Scenario, node: str, seen: Seen) -> MeasuredDrain:
    """The completed moves by which a node was drained."""
    moves = [
        move
        for move in seen.moves
        if (move.source, move.cause, move.state) == (node, DRAIN, MigrationState.COMPLETED)
    ]
    if not moves:
        return MeasuredDrain({"moves": 0}, ())
    begin_us = min(move.requested_at_us for move in moves)
    total_s = max((move.requested_at_us - begin_us) / 1e6 + move.total_s for move in moves)
    bytes_sent = sum(move.figures.bytes_sent for move in moves if move.figures is not None)
    rates = _Rates.between(scenario, *moves)
    vms = {move.vm for move in moves}
    begun = [event for event in seen.events if _is(event, MIGRATION_BEGUN.event_id, vms)]
    ended = [event for event in seen.events if _is(event, MIGRATION_SUCCEEDED.event_id, vms)]
    figures = {
        "total_s": total_s,
        "moves": len(moves),
        "at_once": _most_at_once([each.time_us for each in begun], [each.time_us for each in ended]),
        "link_share": rates.link_share(bytes_sent, total_s),
        "times_arithmetic": rates.times_arithmetic(bytes_sent, total_s),
    }
    return MeasuredDrain(figures, tuple(event.vm for event in begun))


def _is(event: SeenEvent, event_id: int, vms: set[str]) -> bool:
    return event.event_id == event_id and event.vm in vms


def _most_at_once(begun_us: list[int], ended_us: list[int]) -> int:
    """A slot that is freed is given away in the same instant."""
    changes = sorted([*((at, 1) for at in begun_us), *((at, -1) for at in ended_us)])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _checks_of_drain(scenario: Scenario, subject: str, expected: Drain, seen: Seen) -> Iterator[Check]:
    measured = measured_of_drain(scenario, expected.node, seen)
    yield from _within(subject, expected, measured.figures)
    if expected.order:
        ok = measured.order == expected.order
        yield Check(subject, "order", ", ".join(measured.order) or "none", ", ".join(expected.order), ok)


# --- bounds and rates -----------------------------------------------------------------------------------


def _within(subject: str, expected: MoveFigures | Drain, measured: Measured) -> Iterator[Check]:
    for name in type(expected).model_fields:
        bound = getattr(expected, name)
        if isinstance(bound, Bound):
            value = measured.get(name)
            yield Check(subject, name, _shown(value), bound.words, value is not None and bound.allows(value))


def _shown(value: float | None) -> str:
    if value is None:
        return "not known"
    return str(value) if isinstance(value, int) else f"{value:.6g}"


@dataclass(frozen=True, slots=True)
class _Rates:
    """What the NICs carry as payload, and what of that the era leaves to moves; 0: without bound."""

    whole_bytes_per_s: float
    allowed_bytes_per_s: float

    @classmethod
    def between(cls, scenario: Scenario, *moves: SeenMove) -> "_Rates":
        """All NICs of the moves' network at their sources, or those at their targets if these carry less."""
        era_share = RULES[scenario.era].migration_link_share
        ends = []
        for hosts in ({move.source for move in moves}, {move.target for move in moves}):
            nics = [
                (f"{host} team {nic.team}" if nic.team else f"{host} NIC {name}", nic)
                for host in hosts
                for name, nic in scenario.nodes[host].nics.items()
                if nic.network == moves[0].network
            ]
            payload = min((payload_share(nic.mtu) for _, nic in nics), default=0.0)
            links = [
                joint_rate_bytes_per_s(nic.rate or 0 for key, nic in nics if key == link)
                for link in dict(nics)
            ]
            allowed = (migration_rate_bytes_per_s(link, era_share) for link in links)
            ends.append((joint_rate_bytes_per_s(links) * payload, joint_rate_bytes_per_s(allowed) * payload))
        bounded = [end for end in ends if end[0]]
        return cls(*min(bounded, default=(0.0, 0.0)))

    def link_share(self, sent_bytes: float, span_s: float) -> float | None:
        """What was used of the NICs."""
        return sent_bytes / span_s / self.whole_bytes_per_s if self.whole_bytes_per_s and span_s else None

    def times_arithmetic(self, sent_bytes: float, span_s: float) -> float | None:
        """How many times as long it took as it had to."""
        return (
            span_s * self.allowed_bytes_per_s / sent_bytes
            if self.allowed_bytes_per_s and sent_bytes
            else None
        )
