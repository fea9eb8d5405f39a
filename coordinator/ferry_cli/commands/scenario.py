"""``ferry scenario``: what happens to a cluster, written down in a file, and what must come of it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ferry_cli import interrupts
from ferry_cli.options import OutputOption
from ferry_cli.output import Output, print_document, say, tell
from ferry_types.errors import ErrorCode, FerryError, Refusal, failed, malformed

app = typer.Typer(help="Scenarios: what happens to a cluster, and what must come of it, as files.")


@app.command()
def run(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Scenario files (YAML).")],
    live: Annotated[
        bool, typer.Option("--live", help="On real processes, in a lab of its own that is gone afterwards.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of all chance on virtual time, in place of the file's.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run scenarios on virtual time, or live, and say whether all came out as the files expect.

    On virtual time the real rules of coordinator and hosts run in this process; the same file and seed give
    the same course. Exit code 1: an expectation or a rule of the cluster was broken; 2: a file is malformed,
    or cannot be run there: figures of moves and drains are expected of live runs alone. PowerShell has no
    such cmdlet.
    """
    from ferry_cli.scenarios import documents
    from ferry_cli.scenarios.live import run_live
    from ferry_sim.scenarios import runner

    scenarios = [(str(file), _read(file, live=live)) for file in files]
    outcomes = []
    for name, scenario in scenarios:
        if live:
            chosen = scenario.seed if seed is None else seed
            outcome = interrupts.run(run_live(scenario, chosen, say))
        else:
            outcome = runner.run(scenario, seed)
        outcomes.append((name, outcome))
        if output is Output.TABLE:
            for line in documents.outcome_lines(name, outcome):
                tell(line)
    if output is Output.JSON:
        views = [documents.outcome_view(name, outcome) for name, outcome in outcomes]
        print_document(views[0] if len(views) == 1 else views)
    if not all(outcome.ok for _, outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors and other programs.

    PowerShell has no such cmdlet.
    """
    from ferry_sim.scenarios.schema import published

    tell(published().rstrip("\n"))


def _read(file: Path, *, live: bool) -> Any:
    """The scenario of a file. Raises FerryError: malformed, failed if it cannot be read."""
    from ferry_cli.scenarios.live import virtual_only
    from ferry_sim.scenarios import model
    from ferry_sim.scenarios.document import Malformed
    from ferry_sim.scenarios.live_only import live_only

    try:
        scenario = model.read(file)
    except OSError as problem:
        raise FerryError(failed(f"{file} cannot be read: {problem.strerror}")) from None
    except Malformed as problem:
        what = "\n  ".join(f"{file}: {each}" for each in problem.problems)
        hint = "ferry scenario schema prints what a file may have"
        raise FerryError(Refusal(ErrorCode.MALFORMED, what, hint, problem.rule)) from None
    if live and (reasons := virtual_only(scenario)):
        raise FerryError(
            malformed(f"{file} runs on virtual time only: {'; '.join(reasons)}", "run it without --live")
        )
    if not live and (reasons := live_only(scenario)):
        raise FerryError(malformed(f"{file} runs live only: {'; '.join(reasons)}", "run it with --live"))
    return scenario
