"""``ferry cluster``: the cluster as a whole."""

import typer

from ferry_cli.commands import quorum

app = typer.Typer(help="The cluster as a whole.")
app.add_typer(quorum.app, name="quorum")
