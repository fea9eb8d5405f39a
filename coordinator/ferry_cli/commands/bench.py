"""``ferry bench``: how fast, and against whom."""

import shlex
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ferry_cli import interrupts, pages, views
from ferry_cli.options import OutputOption, rate, size
from ferry_cli.output import Output, print_document, print_table, say, tell
from ferry_types.errors import FerryError, malformed
from ferry_types.limits import PAGE_SIZE, VM_MEMORY_BYTES_MIN
from ferry_types.migrations import TransportOption
from ferry_types.networks import RATE_BYTES_PER_S_MAX, RATE_BYTES_PER_S_MIN
from ferry_types.units import format_duration
from ferry_types.workloads import PROFILES, resolve

if TYPE_CHECKING:
    from ferry_cli.bench.cells import Group
    from ferry_cli.bench.results import SuiteResult

app = typer.Typer(help="Measurements.")

_OUT = "--out"
_PEERS = "qemu, qemu-multifd, qemu-zstd, grpc, grpc-2, grpc-4, socket, socket-2"


@app.callback()
def bench() -> None:
    """Measurements."""


@app.command("migrate")
def bench_migrate(
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of the VM that moves.")] = "1GiB",
    fill: Annotated[
        str,
        typer.Option(
            metavar="zero|random|files|FILE",
            help="What the memory holds; files: this Python's standard library; FILE: a file or a folder.",
        ),
    ] = "random",
    workload: Annotated[
        str, typer.Option(metavar="|".join(PROFILES), help="What the guest does meanwhile.")
    ] = "idle",
    write_rate: Annotated[str | None, typer.Option(metavar="RATE", help="Memory that it writes.")] = None,
    link: Annotated[
        str | None, typer.Option("--rate", metavar="RATE", help="Of the hosts' NICs and the peers' link.")
    ] = None,
    option: Annotated[TransportOption, typer.Option(help="How memory is sent.")] = TransportOption.TCPIP,
    runs: Annotated[int, typer.Option(min=1, max=10_000, help="Moves that count.")] = 5,
    against: Annotated[str, typer.Option(metavar="PEER,...", help=f"Others: {_PEERS}.")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Move a VM back and forth between two hosts, in turn with others that move the same bytes.

    One stopwatch for all, and the least that a black-out can cost measured in the same run. PowerShell has no
    such cmdlet (Measure-Command around Move-VM comes close).
    """
    from ferry_cli.bench import document
    from ferry_cli.bench.migrate import measure

    question = document.Question(
        _memory_bytes(memory),
        fill,
        workload,
        option.value,
        None if write_rate is None else rate(write_rate, "--write-rate"),
        None if link is None else _link_rate(link),
    )
    _check_workload(question.workload, question.memory_bytes, question.write_rate_bytes_per_s)
    measured = interrupts.run(measure(question, runs, against, say))
    result = document.document(question, measured.own[0], measured.floor, measured.peers, measured.set_aside)
    if output is Output.JSON:
        print_document(result)
    else:
        for line in document.lines(result):
            tell(line)


@app.command("suite")
def bench_suite(
    only: Annotated[
        str,
        typer.Option(
            metavar="WORD,...",
            help="A part: tcpip, compression, smb, direct; random, files, zero; idle, dirtying; unshaped, "
            "10Gbit/s, 1Gbit/s; blackout. Words of one kind add up, kinds narrow each other.",
        ),
    ] = "",
    runs: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Moves of each cell that count; else 5.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="PEER,...", help="Only these of the peers; empty: none.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of every VM, in place of each wire's own.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="One run of little memory: shows that all works, not how fast.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(_OUT, metavar="FILE.json", help="Where the whole result goes, too.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Measure all options on all memory, idle and dirtying, over all wires, beside their peers.

    Says first how long it takes. What stands in the result was measured in turn, in one run. PowerShell has
    no such cmdlet.
    """
    from ferry_cli.bench import cells, estimate, results
    from ferry_cli.bench.catalogue import choose_peers

    peers = None if against is None else [peer.name for peer in choose_peers(against)]
    runs_of = runs or (cells.QUICK_RUNS if quick else cells.RUNS_DEFAULT)
    blackout_runs = cells.QUICK_BLACKOUT_RUNS if quick else cells.BLACKOUT_RUNS
    memory_bytes = cells.QUICK_MEMORY_BYTES if quick else None
    if memory is not None:
        memory_bytes = _memory_bytes(memory)
    words = [word.strip() for word in only.split(",") if word.strip()]
    groups = cells.chosen(cells.all_groups(runs_of, blackout_runs), words, peers, memory_bytes)
    for group in groups:
        _check_workload(group.guest.workload, group.wire.memory_bytes, group.guest.write_rate_bytes_per_s)
    say(f"{len(groups)} groups of cells, about {format_duration(estimate.estimate_s(groups))}")
    if out is None:
        result = _measured(groups)
    else:
        with pages.written_to(out, _OUT):
            result = _measured(groups)
            pages.write(out, _OUT, results.as_text(result))
        say(f"the result is in {out}")
    if output is Output.JSON:
        print_document(results.as_document(result))
    else:
        _print_suite(result)


@app.command("document")
def bench_document(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="What bench suite wrote with --out.")],
    out: Annotated[
        Path | None, typer.Option(_OUT, metavar="FILE.md", help="Where it goes; else to standard output.")
    ] = None,
) -> None:
    """Turn the result of a suite into a document: tables, targets, and what bounds each option.

    PowerShell has no such cmdlet.
    """
    from ferry_cli.bench import markdown, results

    text = markdown.render(results.read(file))
    if out is None:
        tell(text)
    else:
        with pages.written_to(out, _OUT):
            pages.write(out, _OUT, text)
        say(f"the document is in {out}")


def _measured(groups: "Sequence[Group]") -> "SuiteResult":
    """Measure the groups. Raises FerryError."""
    from ferry_cli.bench import link, results, suite
    from ferry_cli.bench.machine import machine

    made_us, began_at_s = time.time_ns() // 1000, time.monotonic()
    measured = interrupts.run(suite.measure_all(groups, say))
    rates = {group.wire.name: group.wire.rate_bytes_per_s for group in groups}
    return results.SuiteResult(
        made_at=views.rfc3339(made_us),
        duration_s=round(time.monotonic() - began_at_s, 1),
        command=shlex.join(["ferry", *sys.argv[1:]]),
        release=version("hyperferry"),
        machine=machine(),
        link_command={name: link.shaping_command(each) for name, each in rates.items() if each is not None},
        groups=tuple(measured),
    )


def _print_suite(result: "SuiteResult") -> None:
    from ferry_cli.bench import rows
    from ferry_cli.bench.targets import targets

    for group in result.groups:
        tell(f"{rows.group_title(group)} (floor {format_duration(group.floor_s)})")
        print_table(rows.group_columns(group), rows.group_rows(group))
        tell("")
    found = targets(result)
    if found:
        print_table(rows.TARGET_COLUMNS, rows.target_rows(found))


def _memory_bytes(text: str) -> int:
    memory_bytes = size(text, "--memory")
    if memory_bytes < VM_MEMORY_BYTES_MIN or memory_bytes % PAGE_SIZE:
        what = f"{text} is not a multiple of {PAGE_SIZE} bytes, or less than 4 MiB"
        raise typer.BadParameter(what, param_hint="--memory")
    return memory_bytes


def _link_rate(text: str) -> int:
    found = rate(text, "--rate")
    if not RATE_BYTES_PER_S_MIN <= found <= RATE_BYTES_PER_S_MAX:
        what = f"{text} is out of range: a NIC has at least 1KB/s and at most 400Gbit/s"
        raise typer.BadParameter(what, param_hint="--rate")
    return found


def _check_workload(workload: str, memory_bytes: int, write_rate_bytes_per_s: int | None) -> None:
    try:
        resolve(workload, memory_bytes, write_rate_bytes_per_s=write_rate_bytes_per_s)
    except ValueError as problem:
        raise FerryError(malformed(str(problem), "see ferry bench migrate --help")) from None
