"""Options that several commands share, and the reading of values with units."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from ferry_cli.output import Output
from ferry_types.limits import SPAN_S_MAX
from ferry_types.units import parse_duration, parse_rate, parse_size

T = TypeVar("T")

CoordinatorOption = Annotated[
    str | None,
    typer.Option(
        "--coordinator",
        metavar="HOST:PORT",
        help="The coordinator's address; else FERRY_COORDINATOR, else that of the running lab.",
    ),
]
DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        "--dir",
        metavar="DIR",
        help="The lab's directory; else FERRY_LAB, else hyperferry/lab in the user's state directory.",
    ),
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="The form of the result.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")]


def _parsed(parse: Callable[[str], T], text: str, option: str) -> T:
    try:
        return parse(text)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint=option) from None


def size(text: str, option: str) -> int:
    """Bytes of a size with a unit. Raises typer.BadParameter naming the option."""
    return _parsed(parse_size, text, option)


def rate(text: str, option: str) -> int:
    """Bytes per second of a rate with a unit. Raises typer.BadParameter naming the option."""
    return _parsed(parse_rate, text, option)


def duration(text: str, option: str) -> float:
    """Seconds of a duration with a unit. Raises typer.BadParameter naming the option."""
    return _parsed(parse_duration, text, option)


def span(text: str, option: str) -> float:
    """Seconds of a duration in which there is time, and no more than a week. Raises as ``duration`` does."""
    span_s = duration(text, option)
    if not 0 < span_s <= SPAN_S_MAX:
        raise typer.BadParameter(
            f"{text} is out of range: more than 0s, at most {SPAN_S_MAX / 3600:g}h", param_hint=option
        )
    return span_s
