"""How far something is that takes its time: a bar on a terminal, lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console

Seen = TypeVar("Seen")


@dataclass(frozen=True, slots=True)
class Reached:
    """``done`` of ``total`` (0: not known), in words; a new ``phase`` is worth a line, None is not."""

    done: int
    total: int
    words: str
    phase: object


@contextmanager
def progress_bar(
    console: Console, title: str, reached: Callable[[Seen], Reached]
) -> Iterator[Callable[[Seen], None]]:
    """Yields what is to be told of each look; ``reached`` says how far that is."""
    if not console.is_terminal:
        yield _line_watcher(console, title, reached)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None, words="")

        def show(seen: Seen) -> None:
            now = reached(seen)
            progress.update(task, total=now.total or None, completed=now.done, words=now.words)

        yield show


def _line_watcher(console: Console, title: str, reached: Callable[[Seen], Reached]) -> Callable[[Seen], None]:
    shown: object = None

    def show(seen: Seen) -> None:
        nonlocal shown
        now = reached(seen)
        if now.phase is not None and now.phase != shown:
            shown = now.phase
            console.print(f"{title}: {now.words}", soft_wrap=True)

    return show
