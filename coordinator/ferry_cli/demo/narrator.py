"""How the tour speaks: short chapters, lines that explain, and checks that count."""

import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from ferry_cli import moving

WIDTH = 92


class Narrator:
    """Tells the tour on a console, and remembers whether all that it claimed held."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began_at = time.monotonic()
        self._chapters = 0
        self.failed: list[str] = []

    def chapter(self, title: str) -> None:
        """The next part of the tour."""
        self._chapters += 1
        elapsed_s = time.monotonic() - self._began_at
        self._console.print()
        self._console.print(f"{self._chapters}. {title}   [{elapsed_s:.1f} s]", style="bold")

    def say(self, text: str) -> None:
        """A paragraph."""
        for line in textwrap.wrap(text, WIDTH - 3):
            self._console.print(f"   {line}", soft_wrap=True)

    def show(self, line: str) -> None:
        """A line as it is: a figure, a row."""
        self._console.print(f"     {line}", style="cyan", soft_wrap=True)

    def finish(self, text: str) -> None:
        """The last words."""
        self._console.print()
        self._console.print(text, style="bold", soft_wrap=True)

    def check(self, claim: str, holds: bool) -> bool:
        """Say whether a claim holds; one that does not fails the tour."""
        if not holds:
            self.failed.append(claim)
        mark, style = ("ok  ", "green") if holds else ("FAIL", "bold red")
        self._console.print(f"   {mark} {claim}", style=style, soft_wrap=True)
        return holds

    @contextmanager
    def progress(self, title: str) -> Iterator[moving.Watcher]:
        """A bar, or lines, while a VM moves."""
        with moving.progress_bar(self._console, f"     {title}") as watcher:
            yield watcher

    @property
    def elapsed_s(self) -> float:
        """Seconds since the tour began."""
        return time.monotonic() - self._began_at
