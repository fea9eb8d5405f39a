"""What people and programs get of a validation: a document, a table, one HTML file that needs no other."""

import html
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ferry_cli.validation.verdicts import Category, Finding, Outcome, counted
from ferry_cli.views import rfc3339
from ferry_types.errors import FerryError, failed

COLUMNS: Final = ("CATEGORY", "TEST", "OUTCOME", "FOUND")

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --pass: #1a7f37; --warning: #9a6700; --failure: #cf222e; }
@media (prefers-color-scheme: dark) {
  :root { --pass: #3fb950; --warning: #d29922; --failure: #ff7b72; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.2rem; margin-top: 2rem; text-transform: capitalize; }
.sum { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; }
td { border-top: 1px solid var(--line); }
td:first-child { width: 17rem; }
td:nth-child(2) { width: 6rem; }
td div { overflow-wrap: anywhere; }
.advice { font-style: italic; margin-top: .3rem; }
.pass { color: var(--pass); }
.warning { color: var(--warning); font-weight: 600; }
.failure { color: var(--failure); font-weight: 700; }
"""


@dataclass(frozen=True, slots=True)
class Validation:
    """A run of all tests. ``started_us``: Unix microseconds of this machine's clock."""

    cluster: str
    era: str
    started_us: int
    duration_s: float
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no test failed; there may be warnings."""
        return not self.count(Outcome.FAILURE)

    def count(self, outcome: Outcome) -> int:
        """Tests that ended so."""
        return sum(finding.outcome is outcome for finding in self.findings)

    @property
    def summary(self) -> str:
        """In words."""
        passed, warned, failing = map(self.count, Outcome)
        return (
            f"{counted(len(self.findings), 'test')}: {passed} passed, "
            f"{counted(warned, 'warning')}, {counted(failing, 'failure')}"
        )


def document(validation: Validation) -> dict[str, Any]:
    """For programs."""
    return {
        "ok": validation.ok,
        "cluster": validation.cluster,
        "started": rfc3339(validation.started_us),
        "duration_s": round(validation.duration_s, 6),
        "tests": [
            {
                "category": finding.category.value,
                "name": finding.test,
                "outcome": finding.outcome.value,
                "found": "; ".join(finding.found),
                "advice": finding.advice or None,
            }
            for finding in validation.findings
        ],
    }


def rows(validation: Validation) -> list[tuple[str, ...]]:
    """For people, under ``COLUMNS``."""
    return [
        (finding.category, finding.test, finding.outcome, "; ".join(finding.found))
        for finding in validation.findings
    ]


def advice_lines(validation: Validation) -> list[str]:
    """What to do about what did not pass, a test a line."""
    return [f"{finding.test}: {finding.advice}" for finding in validation.findings if finding.advice]


def default_path(cluster: str, started_us: int) -> Path:
    """In the current directory: ``validation-east-20261121T114456Z.html``."""
    second = rfc3339(started_us)[:19].replace("-", "").replace(":", "")
    return Path(f"validation-{cluster}-{second}Z.html")


@contextmanager
def written_to(path: Path) -> Iterator[None]:
    """Make sure that a report can be written there, before the tests take their time.

    A file that was not there before goes again if the block raises. Raises FerryError.
    """
    is_new = not path.exists()
    try:
        with path.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield
    except BaseException:
        if is_new:
            path.unlink(missing_ok=True)
        raise


def write(path: Path, validation: Validation) -> None:
    """Write the report. Raises FerryError."""
    try:
        path.write_text(render(validation), encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error


def render(validation: Validation) -> str:
    """One HTML file: no script, and nothing from elsewhere."""
    title = html.escape(f"Validation of {validation.cluster}")
    verdict = Outcome.PASS if validation.ok else Outcome.FAILURE
    word = "The cluster passes" if validation.ok else "The cluster does not pass"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{title}</h1>",
        f'<p><span class="{verdict}">{word}</span>: {html.escape(validation.summary)}.</p>',
        '<div class="sum">',
        f"<span>Functional level: {html.escape(validation.era)}</span>",
        f"<span>Started: {rfc3339(validation.started_us)}</span>",
        f"<span>Took: {validation.duration_s:.1f} s</span>\n</div>",
    ]
    for category in Category:
        findings = [finding for finding in validation.findings if finding.category is category]
        if findings:
            parts += _table(category, findings)
    return "\n".join([*parts, "</body>\n</html>\n"])


def _table(category: Category, findings: list[Finding]) -> list[str]:
    return [
        f"<h2>{category}</h2>",
        '<div class="wide"><table>',
        "<thead><tr><th>Test</th><th>Outcome</th><th>Found</th></tr></thead>\n<tbody>",
        *map(_row, findings),
        "</tbody></table></div>",
    ]


def _row(finding: Finding) -> str:
    found = "".join(f"<div>{html.escape(line)}</div>" for line in finding.found)
    advice = f'<div class="advice">Advice: {html.escape(finding.advice)}</div>' if finding.advice else ""
    return (
        f'<tr><td>{html.escape(finding.test)}</td><td class="{finding.outcome}">{finding.outcome}</td>'
        f"<td>{found}{advice}</td></tr>"
    )


def _unwritable(path: Path, error: OSError) -> FerryError:
    what = f"the report {path} cannot be written: {error.strerror or error}"
    return FerryError(failed(what, "name another file with --report"))
