"""What people and programs get of a validation: a document, a table, one HTML file that needs no other."""

from dataclasses import dataclass
from typing import Any, Final

from ferry_cli import pages
from ferry_cli.pages import escaped
from ferry_cli.validation.verdicts import Category, Finding, Outcome, counted
from ferry_cli.views import rfc3339

COLUMNS: Final = ("CATEGORY", "TEST", "OUTCOME", "FOUND")

_STYLE: Final = """
h2 { text-transform: capitalize; }
td:first-child { width: 17rem; }
td:nth-child(2) { width: 6rem; }
td div { overflow-wrap: anywhere; }
.advice { font-style: italic; margin-top: .3rem; }
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


def render(validation: Validation) -> str:
    """One HTML file: no script, and nothing from elsewhere."""
    verdict = Outcome.PASS if validation.ok else Outcome.FAILURE
    word = "The cluster passes" if validation.ok else "The cluster does not pass"
    parts = [
        f'<p><span class="{verdict}">{word}</span>: {escaped(validation.summary)}.</p>',
        '<div class="sum">',
        f"<span>Functional level: {escaped(validation.era)}</span>",
        f"<span>Started: {rfc3339(validation.started_us)}</span>",
        f"<span>Took: {validation.duration_s:.1f} s</span>\n</div>",
    ]
    for category in Category:
        findings = [finding for finding in validation.findings if finding.category is category]
        if findings:
            parts.append(f"<h2>{category}</h2>")
            parts.append(pages.table(("Test", "Outcome", "Found"), map(_row, findings)))
    return pages.page(f"Validation of {validation.cluster}", parts, _STYLE)


def _row(finding: Finding) -> str:
    found = "".join(f"<div>{escaped(line)}</div>" for line in finding.found)
    advice = f'<div class="advice">Advice: {escaped(finding.advice)}</div>' if finding.advice else ""
    return (
        f'<tr><td>{escaped(finding.test)}</td><td class="{finding.outcome}">{finding.outcome}</td>'
        f"<td>{found}{advice}</td></tr>"
    )
