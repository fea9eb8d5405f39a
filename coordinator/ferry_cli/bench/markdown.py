"""A whole bench as a page in Markdown: a pure function of its result."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from ferry_cli.bench import rows
from ferry_cli.bench.document import set_aside_line
from ferry_cli.bench.machine import Machine
from ferry_cli.bench.results import GroupResult, SuiteResult
from ferry_cli.bench.targets import targets
from ferry_types.units import format_duration, format_size

_MICROSOFT_S = 0.002
"""Microsoft's claim for the black-out on a well set up cluster."""

_HERE = Path(__file__)
_METHOD = _HERE.with_name("method.md")
"""How it is measured, in words that hold for every result."""

_BOUNDS = _HERE.with_name("bounds.md")
"""What bounds each option, in words: known of how they are built, shown by the columns of the tables."""


def render(result: SuiteResult) -> str:
    """The page."""
    return "\n".join(_lines(result)) + "\n"


def _lines(result: SuiteResult) -> Iterator[str]:
    yield "# Benchmarks"
    yield ""
    yield "Made by `make bench` from [benchmarks.json](benchmarks.json), which has the time of every run and"
    yield f"the command of every cell and peer. Last run: {result.made_at[:10]}, Hyperferry {result.release},"
    yield f"`{result.command}`, {format_duration(result.duration_s)}."
    yield ""
    yield "## The machine"
    yield ""
    yield from _table(("", ""), _machine(result.machine))
    yield from _targets(result)
    yield "## How it is measured"
    yield ""
    yield _METHOD.read_text()
    for wire, groups in groupby(result.groups, key=lambda group: group.wire):
        yield f"## {wire[0].upper()}{wire[1:]}"
        yield ""
        for group in groups:
            yield from _group(group)
    yield "## What bounds each"
    yield ""
    yield _BOUNDS.read_text().rstrip()


def _machine(machine: Machine) -> list[list[str]]:
    reporting = (
        "hands free memory back to its hypervisor" if machine.reports_free_pages else "keeps free memory"
    )
    return [
        ["processor", f"{machine.cpu}, {machine.cores} cores"],
        ["memory", f"{format_size(machine.memory_bytes)}; {reporting}"],
        ["kernel", f"Linux {machine.kernel}, transparent huge pages: {machine.huge_pages}"],
        ["Python, gRPC", f"{machine.python}, grpcio {machine.grpc}"],
        ["QEMU", machine.qemu or "not installed"],
    ]


def _targets(result: SuiteResult) -> Iterator[str]:
    found = targets(result)
    if found:
        yield "## Asked and measured"
        yield ""
        yield from _table(rows.TARGET_COLUMNS, rows.target_rows(found))


def _group(group: GroupResult) -> Iterator[str]:
    yield f"### {rows.group_title(group)}"
    yield ""
    if group.is_distribution:
        yield from _distribution(group)
        return
    set_aside = f" {set_aside_line(group.set_aside)}" if group.set_aside else ""
    yield f"Floor of a black-out: {format_duration(group.floor_s)}.{set_aside}"
    yield ""
    yield from _table(rows.group_columns(group), rows.group_rows(group))


def _distribution(group: GroupResult) -> Iterator[str]:
    columns = ("", "floor", "least", "median", "95th percentile", "most", "Microsoft's claim")
    lines = []
    for own in group.own:
        figures_s = (group.floor_s, min(own.runs_blackout_s), own.blackout_s, own.blackout_p95_s)
        shown = [*map(format_duration, (*figures_s, max(own.runs_blackout_s))), "about 2 ms"]
        lines.append([own.option, *shown])
        over = [
            f"{each / group.floor_s:.1f}" for each in (*figures_s, max(own.runs_blackout_s), _MICROSOFT_S)
        ]
        lines.append(["over floor", *over])
    yield from _table(columns, lines)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _row(columns)
    yield _row(["---"] * len(columns))
    for line in lines:
        yield _row(line)
    yield ""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
