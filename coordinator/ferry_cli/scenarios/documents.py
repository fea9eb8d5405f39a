"""Outcomes of scenarios for programs and for people."""

from collections.abc import Iterator
from typing import Final

from ferry.v1 import admin_pb2, common_pb2
from ferry_cli.tables import blackout_line
from ferry_cli.views import View, migration_view, rfc3339
from ferry_sim.scenarios.outcome import Outcome
from ferry_sim.scenarios.seen import SeenEvent, SeenMove
from ferry_types.units import format_duration
from ferry_wire.conversion import to_proto

_MEASURED: Final = (
    "option",
    "network",
    "cause",
    "requested_at",
    "total_s",
    "brownout_s",
    "blackout_s",
    "bytes_sent",
    "passes",
    "final",
    "estimate",
)


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
        "moves": [_move_view(move) for move in outcome.seen.moves],
        "figures": [
            {
                "of": check.subject,
                "figure": check.figure,
                "measured": check.measured,
                "expected": check.expected,
                "ok": check.ok,
            }
            for check in outcome.checks
        ],
        "failures": list(outcome.failures),
        "violations": list(outcome.violations),
        "trace": f"{outcome.trace:08x}" if outcome.trace else None,
        "lasted_s": outcome.lasted_s,
    }


def _move_view(move: SeenMove) -> View:
    """A move; one that was measured has the figures of ``migration show`` too."""
    view: View = {
        "id": move.migration_id,
        "vm": move.vm,
        "source": move.source,
        "target": move.target,
        "state": str(move.state),
        "reason": move.reason or None,
    }
    if move.figures is None:
        return view
    figures = to_proto(move.figures, common_pb2.MigrationFigures)
    record = admin_pb2.MigrationRecord(
        options=common_pb2.MigrationOptions(option=move.option),
        figures=figures,
        estimate=figures.estimate if figures.HasField("estimate") else None,
        total_s=move.total_s,
        requested_at_us=move.requested_at_us,
        cause=move.cause,
        network=move.network,
    )
    shown = migration_view(record)
    return {**{name: shown[name] for name in _MEASURED}, **view}


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
    for check in outcome.checks:
        verdict = "ok  " if check.ok else "OFF "
        yield f"    {verdict} {check.words}"
    if outcome.ok:
        return
    for what in outcome.failures:
        yield f"    {what}"
    for what in outcome.violations:
        yield f"    VIOLATION {what}"
    yield "    what has happened:" if outcome.seen.events else "    the log is empty"
    for event in outcome.seen.events:
        yield f"        {rfc3339(event.time_us)} {event.event_id or '-':>5} {event.message}"
    for move in outcome.seen.moves:
        figures = move.figures
        if figures is not None and figures.blackout_s is not None and figures.blackout is not None:
            yield f"    {move.migration_id} of {move.vm}: black-out {format_duration(figures.blackout_s)}"
            yield f"    {blackout_line(figures.blackout)}"
    ends = (f"{name} {vm.state} on {vm.node or 'no host'}" for name, vm in sorted(outcome.seen.vms.items()))
    yield f"    at the end: {', '.join([*ends, *_node_ends(outcome)]) or 'nobody could be asked'}"


def _node_ends(outcome: Outcome) -> list[str]:
    return [f"{name} {state}" for name, state in sorted(outcome.seen.nodes.items())]
