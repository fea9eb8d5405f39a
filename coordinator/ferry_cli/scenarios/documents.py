"""Outcomes of scenarios for programs and for people."""

from collections.abc import Iterator

from ferry_cli.views import View, rfc3339
from ferry_sim.scenarios.outcome import Outcome, SeenEvent


def outcome_view(file: str, outcome: Outcome) -> View:
    """An outcome as JSON. ``trace``: null in a live run."""
    return {
        "file": file,
        "title": outcome.title,
        "ok": outcome.ok,
        "seed": outcome.seed,
        "end": {
            "vms": {
                name: {"state": str(vm.state), "node": vm.node or None}
                for name, vm in sorted(outcome.seen.vms.items())
            },
            "nodes": {name: {"state": str(state)} for name, state in sorted(outcome.seen.nodes.items())},
        },
        "events": [_event_view(event) for event in outcome.seen.events],
        "moves": [
            {
                "id": move.migration_id,
                "vm": move.vm,
                "source": move.source,
                "target": move.target,
                "state": str(move.state),
                "reason": move.reason or None,
            }
            for move in outcome.seen.moves
        ],
        "failures": list(outcome.failures),
        "violations": list(outcome.violations),
        "trace": f"{outcome.trace:08x}" if outcome.trace else None,
        "lasted_s": outcome.lasted_s,
    }


def _event_view(event: SeenEvent) -> View:
    return {
        "time": rfc3339(event.time_us),
        "id": event.event_id or None,
        "log": event.log,
        "level": str(event.level),
        "node": event.node or None,
        "vm": event.vm or None,
        "message": event.message,
    }


def outcome_lines(file: str, outcome: Outcome) -> Iterator[str]:
    """An outcome in words: one line if all is well, else what has happened too."""
    word = "ok    " if outcome.ok else "FAILED"
    trace = f", trace {outcome.trace:08x}" if outcome.trace else ""
    yield f"{word} {file}: {outcome.title} (seed {outcome.seed}, {outcome.lasted_s:.1f} s{trace})"
    if outcome.ok:
        return
    for what in outcome.failures:
        yield f"    {what}"
    for what in outcome.violations:
        yield f"    VIOLATION {what}"
    yield "    what has happened:" if outcome.seen.events else "    the log is empty"
    for event in outcome.seen.events:
        yield f"        {rfc3339(event.time_us)} {event.event_id or '-':>5} {event.message}"
    ends = (f"{name} {vm.state} on {vm.node or 'no host'}" for name, vm in sorted(outcome.seen.vms.items()))
    yield f"    at the end: {', '.join([*ends, *_node_ends(outcome)]) or 'nobody could be asked'}"


def _node_ends(outcome: Outcome) -> list[str]:
    return [f"{name} {state}" for name, state in sorted(outcome.seen.nodes.items())]
