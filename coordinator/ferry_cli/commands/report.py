"""``ferry report``: runs as one HTML page with charts."""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ferry_cli import admin, interrupts, pages
from ferry_cli.options import CoordinatorOption, DirectoryOption, OutputOption, duration
from ferry_cli.output import Output, print_document, say, tell
from ferry_types.errors import FerryError, malformed, not_found

if TYPE_CHECKING:
    from ferry_cli.report.figures import Report

_OUT = "--out"


def report(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|ID",
            help="What migration list, migration show, events, bench migrate and scenario run printed with "
            "-o json; or ids of moves. Nothing: all moves of the cluster.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            _OUT,
            metavar="FILE.html",
            help="Where the page goes; else report-CLUSTER-TIME.html in the current directory.",
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Only moves requested in the last 10m, 1h ...")
    ] = None,
    vm: Annotated[str, typer.Option(metavar="VM", help="Only moves of a VM.")] = "",
    node: Annotated[str, typer.Option(metavar="NODE", help="Only moves from or to a node.")] = "",
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Turn runs into one HTML page with charts, which needs no network and no other file.

    Dirty pages and rate pass by pass, a timeline of the moves, the distribution of black-outs. Without FILE
    the moves of the cluster; several FILEs are shown side by side. An event log gives the moves that another
    FILE lists the times of their phases. PowerShell has no such cmdlet (Test-Cluster's report comes close).
    """
    from importlib.metadata import version

    from ferry_cli.report import figures, gather
    from ferry_cli.report.render import render

    ids, paths = gather.sorted_out(arguments or [])
    _refuse_contradictions(ids, paths, out, is_narrowed=bool(since is not None or vm or node))
    made_us = time.time_ns() // 1000
    since_us = 0 if since is None else max(0, made_us - round(duration(since, "--since") * 1e6))
    runs = gather.from_files(paths)
    cluster = None
    if ids or not paths:
        address = admin.coordinator_address(coordinator, directory)
        question = gather.Question(ids, since_us, vm, node)
        runs.insert(0, interrupts.run(gather.from_cluster(address, question)))
        cluster = runs[0].name
    parts, notes = figures.put_together(runs)
    if not parts:
        files = ", ".join(map(str, paths))
        raise FerryError(not_found(f"there is no move in {files}: there is nothing to report"))
    made = figures.Report(cluster, made_us, version("hyperferry"), _command(), parts, notes)
    path = out or pages.default_path(f"report-{cluster}" if cluster else "report", made_us)
    with pages.written_to(path, _OUT):
        pages.write(path, _OUT, render(made))
    _print(made, path, output)


def _refuse_contradictions(
    ids: Sequence[str], paths: Sequence[Path], out: Path | None, *, is_narrowed: bool
) -> None:
    """Raise FerryError if what was asked for cannot be meant."""
    if paths and not ids and is_narrowed:
        raise FerryError(
            malformed(
                "--since, --vm and --node choose among the cluster's moves: a FILE is shown as it is",
                "leave them out, or the FILE",
            )
        )
    if out is not None and any(_is_same(out, path) for path in paths):
        raise FerryError(malformed(f"{out} would be written over", f"name another file with {_OUT}"))


def _print(made: "Report", path: Path, output: Output) -> None:
    """Where the page is, and what its charts show: as a document, or in a line each."""
    from ferry_cli.report import figures

    if output is Output.JSON:
        print_document({"path": str(path), **figures.document(made)})
    else:
        for found in made.series:
            tell(f"{found.name}: black-out: {figures.blackout_reading(found)}")
        for part in made.parts:
            for burst in part.bursts:
                tell(f"{part.run.name}: {figures.burst_reading(burst)}")
    say(f"the report is in {path}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False  # one of them is not there, which is said where it is opened


def _command() -> str:
    return shlex.join(["ferry", *sys.argv[1:]])
