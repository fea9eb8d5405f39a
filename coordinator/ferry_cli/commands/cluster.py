"""``ferry cluster``: the cluster as a whole."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ferry_cli import admin, interrupts, pages
from ferry_cli.commands import policy, quorum
from ferry_cli.options import CoordinatorOption, DirectoryOption, OutputOption
from ferry_cli.output import Output, print_document, print_table, say, tell

if TYPE_CHECKING:
    from ferry_cli.validation.report import Validation

app = typer.Typer(help="The cluster as a whole.")
app.command("show")(policy.show_cluster)
app.command("set")(policy.set_cluster)
app.add_typer(quorum.app, name="quorum")


@app.command()
def validate(
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="Where the report goes; else validation-CLUSTER-TIME.html in the current directory.",
        ),
    ] = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Test inventory, network, storage, system and cluster of what runs, and write a report in HTML.

    PowerShell: Test-Cluster.

    Changes nothing, and disturbs no VM. Exit code 1 if a test fails; a warning is no failure.
    """
    from ferry_cli.validation import report as reports

    address = admin.coordinator_address(coordinator, directory)
    validation = interrupts.run(_validate(address, report))
    if output is Output.JSON:
        print_document(reports.document(validation))
    else:
        print_table(reports.COLUMNS, reports.rows(validation))
        for line in reports.advice_lines(validation):
            tell(f"advice: {line}")
        tell(f"{validation.summary}, in {validation.duration_s:.1f} s")
    if not validation.ok:
        raise typer.Exit(1)


async def _validate(address: str, report: Path | None) -> "Validation":
    from ferry_cli.validation import report as reports
    from ferry_cli.validation.checks import run_tests
    from ferry_cli.validation.gather import find_cluster, gather

    started_us, began = time.time_ns() // 1000, time.monotonic()
    cluster = await find_cluster(address)
    path = report or pages.default_path(f"validation-{cluster.report.cluster}", started_us)
    with pages.written_to(path, "--report"):
        findings = run_tests(await gather(cluster))
        validation = reports.Validation(
            cluster=cluster.report.cluster,
            era=cluster.report.era,
            started_us=started_us,
            duration_s=time.monotonic() - began,
            findings=findings,
        )
        pages.write(path, "--report", reports.render(validation))
    say(f"the report is in {path}")
    return validation
