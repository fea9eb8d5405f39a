"""``ferry coordinator|agent|witness run``: one process, for several machines or containers."""

import os
import sys

import typer

coordinator_app = typer.Typer(help="The coordinator, as a process of its own.")
agent_app = typer.Typer(help="An agent, as a process of its own.")
witness_app = typer.Typer(help="A witness, as a process of its own.")

# All options belong to the program that is executed, --help too.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@coordinator_app.command("run", context_settings=_PASS_ON, add_help_option=False)
def run_coordinator(context: typer.Context) -> None:
    """Run the coordinator in the foreground (its options: ferry coordinator run --help)."""
    _execute("ferry_coordinator", context)


@agent_app.command("run", context_settings=_PASS_ON, add_help_option=False)
def run_agent(context: typer.Context) -> None:
    """Run an agent and its watchdog in the foreground (its options: ferry agent run --help)."""
    _execute("ferry_agent.watchdog", context)


@witness_app.command("run", context_settings=_PASS_ON, add_help_option=False)
def run_witness(context: typer.Context) -> None:
    """Run a file-share witness in the foreground (its options: ferry witness run --help)."""
    _execute("ferry_witness", context)


def _execute(module: str, context: typer.Context) -> None:
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *context.args])  # noqa: S606 - no shell is wanted
