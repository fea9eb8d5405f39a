"""What goes to standard output and what to standard error, and in which form."""

import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table

Document = dict[str, Any] | list[dict[str, Any]]
"""A JSON document, made by ``ferry_cli.views``."""

PLAIN_WIDTH = 10_000
"""Columns of a line that nobody's terminal cuts or folds: programs get every cell whole."""


class Output(StrEnum):
    """Forms of output."""

    TABLE = "table"
    JSON = "json"


def results() -> Console:
    """Where results go. Complete and plain unless it is a terminal."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH)
    return console


def messages() -> Console:
    """Where progress and messages go."""
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console = Console(stderr=True, markup=False, highlight=False, emoji=False, width=PLAIN_WIDTH)
    return console


def say(message: str) -> None:
    """A message beside the result."""
    messages().print(message, soft_wrap=True)


def tell(text: str) -> None:
    """A result in words."""
    results().print(text, soft_wrap=True)


def print_document(document: Document) -> None:
    """One JSON document, indented for those who look at it all the same."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_line(document: dict[str, Any]) -> None:
    """One object of a stream, on a line of its own and at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Columns without frames, so that they can be read and be cut by other tools."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    results().print(table)


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """One object, a field a line."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, value)
    results().print(table)
