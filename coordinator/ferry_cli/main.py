"""The ``ferry`` command: its nouns, and the one place where failures become messages and exit codes."""

import os
import sys
from collections.abc import Sequence

import typer

from ferry_cli.commands import (
    bench,
    cluster,
    demo,
    events,
    lab,
    migration,
    network,
    node,
    quorum,
    report,
    run,
    scenario,
    vm,
)
from ferry_cli.interrupts import EXIT_CODE_INTERRUPTED
from ferry_cli.output import print_document, say
from ferry_cli.views import error_view
from ferry_types.errors import EXIT_CODES, ErrorCode, FerryError, Refusal

app = typer.Typer(
    name="ferry",
    help="Hyperferry: a Hyper-V failover cluster with live migration, emulated by ordinary processes.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.add_typer(lab.app, name="lab")
app.add_typer(run.coordinator_app, name="coordinator")
app.add_typer(run.agent_app, name="agent")
app.add_typer(run.witness_app, name="witness")
app.add_typer(cluster.app, name="cluster")
app.add_typer(quorum.app, name="quorum")
app.add_typer(node.app, name="node")
app.add_typer(network.app, name="network")
app.add_typer(network.nic_app, name="nic")
app.add_typer(vm.app, name="vm")
app.add_typer(migration.app, name="migration")
app.command("events")(events.events)
app.command("report")(report.report)
app.add_typer(bench.app, name="bench")
app.add_typer(scenario.app, name="scenario")


def main() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    try:
        code = execute(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has gone. Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_CODES[ErrorCode.FAILED]
    sys.exit(code)


def execute(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns its exit code."""
    try:
        return app(args=list(arguments), prog_name="ferry", standalone_mode=False) or 0
    except KeyboardInterrupt:
        return EXIT_CODE_INTERRUPTED
    except FerryError as error:
        return _fail(error.refusal, arguments)
    except typer.TyperException as error:
        return _fail(_usage(error), arguments)
    except typer.Abort:
        return EXIT_CODE_INTERRUPTED


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for JSON; looked up by hand, since it may be one that does not parse."""
    for index, argument in enumerate(arguments):
        if argument == "--":
            return False
        if argument in ("-ojson", "-o=json", "--output=json"):
            return True
        if argument in ("-o", "--output") and list(arguments[index + 1 : index + 2]) == ["json"]:
            return True
    return False


def _usage(error: typer.TyperException) -> Refusal:
    context = getattr(error, "ctx", None)
    hint = f"see {context.command_path} --help" if context is not None else ""
    message = error.format_message().replace("Value error, ", "").rstrip(".")
    return Refusal(ErrorCode.MALFORMED, message, hint)


def _fail(refusal: Refusal, arguments: Sequence[str]) -> int:
    if wants_json(arguments):
        print_document({"error": error_view(refusal)})
    else:
        say(f"ferry: {refusal.message}" + (f"; {refusal.hint}" if refusal.hint else ""))
    return EXIT_CODES[refusal.code]
