"""What came of a scenario: what was seen, and where that is not what the file expects, in words.

The same for runs on virtual time and on real processes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ferry_sim.scenarios.expectations import Event, Move
from ferry_sim.scenarios.fields import GONE
from ferry_sim.scenarios.figures import Check
from ferry_sim.scenarios.known import NOBODY
from ferry_sim.scenarios.matching import found_moves
from ferry_sim.scenarios.model import Scenario
from ferry_sim.scenarios.seen import Seen, SeenEvent, SeenMove, SeenVm
from ferry_types.errors import Refusal


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's result.

    ``failures``: steps that went otherwise, and expectations that did not come true. ``violations``: what
    must never be. ``trace``: checksum over every commit and command on virtual time; 0 in a live run.
    ``lasted_s``: the timeline, in the scenario's own time. ``checks``: every figure of which something is
    expected.
    """

    title: str
    seed: int
    seen: Seen
    failures: tuple[str, ...]
    violations: tuple[str, ...]
    trace: int
    lasted_s: float
    checks: tuple[Check, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether all was as it should be."""
        return not self.failures and not self.violations and all(check.ok for check in self.checks)


class StepFailed(Exception):
    """A step went otherwise than the file says; the text says how."""


def check_answer(where: str, refusal: Refusal | None, refused: str | None) -> None:
    """Whether a request was answered as it should be: with the refusal that is expected, or with none.

    Raises StepFailed if not. ``refused``: name of the rule, or the refusal's code.
    """
    if refusal is None:
        if refused is not None:
            raise StepFailed(f"{where}: it was accepted, not refused by {refused!r}")
        return
    by = f" by rule {refusal.rule!r}" if refusal.rule else ""
    if refused is None:
        raise StepFailed(f"{where}: refused{by}: {refusal.message}")
    if refused not in (refusal.rule, refusal.code):
        raise StepFailed(f"{where}: not refused by {refused!r}, but{by or ' otherwise'}: {refusal.message}")


def missed(scenario: Scenario, seen: Seen) -> list[str]:
    """Expectations that do not hold, in words."""
    found = list(_missed_end(scenario, seen))
    found += _missed_events(scenario.events, seen.events)
    for expected in scenario.no_events:
        found += [
            f"no_events: there is {_words(expected)}: {event.message}"
            for event in seen.events
            if matches(expected, event)
        ]
    found += [
        f"uninterrupted: the guest of {vm} was paused or booted anew"
        for vm in scenario.uninterrupted
        if vm in seen.interrupted
    ]
    return found + _missed_moves(scenario.moves, seen.moves)


def _missed_end(scenario: Scenario, seen: Seen) -> Iterable[str]:
    for name, expected in scenario.end.vms.items():
        vm = seen.vms.get(name, SeenVm(GONE, ""))
        if expected.state and vm.state not in expected.state:
            yield f"end: VM {name} is {vm.state}, not {' or '.join(expected.state)}"
        if expected.node and (vm.node or NOBODY) not in expected.node:
            yield f"end: VM {name} has the host {vm.node or NOBODY}, not {' or '.join(expected.node)}"
    for name, states in scenario.end.nodes.items():
        state = seen.nodes.get(name, GONE)
        if state not in states:
            yield f"end: node {name} is {state}, not {' or '.join(states)}"


def _missed_events(expected: Sequence[Event], seen: Sequence[SeenEvent]) -> list[str]:
    position = 0
    for index, event in enumerate(expected):
        following = (at for at in range(position, len(seen)) if matches(event, seen[at]))
        found = next(following, None)
        if found is None:
            after = f" after: {seen[position - 1].message}" if position else ""
            return [f"events[{index}]: there is no {_words(event)}{after}"]
        position = found + 1
    return []


def matches(expected: Event, event: SeenEvent) -> bool:
    """Whether an event is what is expected."""
    return (
        expected.id in (None, event.event_id)
        and expected.log in (None, event.log)
        and expected.level in (None, event.level)
        and expected.node in (None, event.node)
        and expected.vm in (None, event.vm)
        and (expected.message is None or re.search(expected.message, event.message) is not None)
    )


def _words(event: Event) -> str:
    said = (
        f"{name} {getattr(event, name)}" for name in Event.model_fields if getattr(event, name) is not None
    )
    return f"event of {', '.join(said)}"


def _missed_moves(expected: Sequence[Move], seen: Sequence[SeenMove]) -> list[str]:
    for index, (move, found) in enumerate(zip(expected, found_moves(expected, seen), strict=True)):
        if found is None:
            had = ", ".join(f"{m.vm} from {m.source} to {m.target} {m.state}" for m in seen) or "none"
            wanted = (
                ("from", move.source),
                ("to", move.target),
                ("by", move.option),
                ("because", move.reason),
            )
            way = "".join(f" {word} {value}" for word, value in wanted if value)
            return [f"moves[{index}]: no move of {move.vm}{way} is {move.state}; there were: {had}"]
    return []
