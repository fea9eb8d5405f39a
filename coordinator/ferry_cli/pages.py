"""HTML pages that need no other file: house style, escaping, tables, and how one gets to its place."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ferry_cli.views import rfc3339
from ferry_types.errors import FerryError, failed

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --pass: #1a7f37; --warning: #9a6700; --failure: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --pass: #3fb950; --warning: #d29922; --failure: #ff7b72; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin-top: 2rem; }
.sum { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; }
td { border-top: 1px solid var(--line); }
.pass { color: var(--pass); }
.warning { color: var(--warning); font-weight: 600; }
.failure { color: var(--failure); font-weight: 700; }
"""

_NOT_TEXT = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What neither HTML nor XML can hold: control characters, and halves of surrogate pairs."""


def escaped(value: object) -> str:
    """Text for between tags or within an attribute's quotes; what no page can hold becomes U+FFFD."""
    return html.escape(_NOT_TEXT.sub("\ufffd", str(value)))


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole page. ``title`` is text, ``body`` is HTML, ``style`` comes after the house's own."""
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escaped(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>",
        f"<h1>{escaped(title)}</h1>",
    ]
    return "\n".join([*parts, *body, "</body>\n</html>\n"])


def table(columns: Sequence[str], rows: Iterable[str]) -> str:
    """A table that scrolls by itself where it is too wide; ``columns`` are text, ``rows`` HTML (``<tr>``)."""
    heads = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    return "\n".join(
        (
            f'<div class="wide"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>',
            *rows,
            "</tbody></table></div>",
        )
    )


def default_path(subject: str, made_us: int) -> Path:
    """In the current directory: ``validation-east-20261121T114456Z.html``. ``made_us``: Unix microseconds."""
    second = rfc3339(made_us)[:19].replace("-", "").replace(":", "")
    return Path(f"{subject}-{second}Z.html")


@contextmanager
def written_to(path: Path, option: str) -> Iterator[None]:
    """Make sure that a page can be written there, before the work of what is to stand in it.

    A file that was not there before goes again if the block raises. ``option`` names another file. Raises
    FerryError.
    """
    try:
        is_new = not path.exists()
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise _unwritable(path, option, error) from error
    try:
        yield
    except BaseException:
        if is_new:
            path.unlink(missing_ok=True)
        raise


def write(path: Path, option: str, text: str) -> None:
    """Write a page, in place of what was there. Raises FerryError."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, option, error) from error


def _unwritable(path: Path, option: str, error: OSError) -> FerryError:
    what = f"the report {path} cannot be written: {error.strerror or error}"
    return FerryError(failed(what, f"name another file with {option}"))
