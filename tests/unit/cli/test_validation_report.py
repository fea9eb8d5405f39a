"""``ferry cluster validate``: the report and the document, and what the command refuses."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from ferry_cli import pages
from ferry_cli.main import execute
from ferry_cli.validation import report
from ferry_cli.validation.report import Validation
from ferry_cli.validation.verdicts import Category, Finding, Outcome
from ferry_types.errors import FerryError

STARTED_US = 1_795_261_496_166_952
HOSTILE = "<script>alert('x')</script> & \"n1\""


def make_validation(**changes: Any) -> Validation:
    findings = (
        Finding(Category.INVENTORY, "List hosts", Outcome.PASS, ("n1 at 10.0.0.1:7001", "n2"), ""),
        Finding(Category.NETWORK, "Validate latency", Outcome.WARNING, ("n1 to n2: 210.0 ms",), "use less"),
        Finding(Category.SYSTEM, "Validate clocks", Outcome.FAILURE, (HOSTILE,), f"fix {HOSTILE}"),
    )
    values = {"cluster": "east", "era": "2012r2", "started_us": STARTED_US, "duration_s": 1.25}
    return Validation(**{**values, "findings": findings, **changes})


class Page(HTMLParser):
    """What a browser makes of a report: its elements, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_shows_every_test_with_its_outcome_and_advice() -> None:
    page = Page(report.render(make_validation()))
    for words in (
        *("Validation of east", "The cluster does not pass", "2012r2", "2026-11-21T11:44:56.166952Z"),
        *("3 tests: 1 passed, 1 warning, 1 failure", "n1 at 10.0.0.1:7001", "Advice: use less"),
        *("List hosts", "Validate latency", "Validate clocks"),
    ):
        assert words in page.text
    outcomes = [values["class"] for tag, values in page.elements if tag == "td" and "class" in values]
    assert outcomes == ["pass", "warning", "failure"]
    assert [tag for tag, _ in page.elements].count("h2") == 3


def test_values_are_shown_as_they_are_and_not_obeyed() -> None:
    page = Page(report.render(make_validation(cluster="<b>&")))
    assert HOSTILE in page.text
    assert f"Advice: fix {HOSTILE}" in page.text
    assert "Validation of <b>&" in page.text
    assert not {"script", "b"} & {tag for tag, _ in page.elements}


def test_the_report_needs_nothing_from_elsewhere() -> None:
    text = report.render(make_validation())
    assert not any(word in text for word in ("http:", "https:", "//", "url(", "@import", "src=", "<link"))
    assert "prefers-color-scheme: dark" in text


def test_a_cluster_with_warnings_alone_passes() -> None:
    validation = make_validation()
    warned = make_validation(findings=validation.findings[:2])
    assert (validation.ok, warned.ok) == (False, True)
    assert "The cluster passes" in Page(report.render(warned)).text


def test_the_document_for_programs() -> None:
    document = report.document(make_validation())
    tests = document.pop("tests")
    assert document == {
        "ok": False, "cluster": "east", "started": "2026-11-21T11:44:56.166952Z", "duration_s": 1.25
    }  # fmt: skip
    assert tests[:2] == [
        {
            "category": "inventory",
            "name": "List hosts",
            "outcome": "pass",
            "found": "n1 at 10.0.0.1:7001; n2",
            "advice": None,
        },
        {
            "category": "network",
            "name": "Validate latency",
            "outcome": "warning",
            "found": "n1 to n2: 210.0 ms",
            "advice": "use less",
        },
    ]


def test_the_report_is_named_for_the_cluster_and_the_time() -> None:
    assert pages.default_path("validation-east", STARTED_US) == Path("validation-east-20261121T114456Z.html")


def test_a_report_that_cannot_be_written_is_refused_before_the_tests(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / "report.html"):
        with (
            pytest.raises(FerryError, match="cannot be written") as raised,
            pages.written_to(path, "--report"),
        ):
            pytest.fail("the tests ran")
        assert "--report" in raised.value.refusal.hint


def test_a_validation_that_breaks_off_leaves_no_empty_report_and_keeps_an_old_one(tmp_path: Path) -> None:
    new, old = tmp_path / "new.html", tmp_path / "old.html"
    old.write_text("of yesterday")
    for path in (new, old):
        with pytest.raises(KeyboardInterrupt), pages.written_to(path, "--report"):
            raise KeyboardInterrupt
    assert not new.exists()
    assert old.read_text() == "of yesterday"


async def test_without_a_coordinator_the_command_says_so(isolated: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    ran = await isolated("cluster", "validate", "--coordinator", "127.0.0.1:1", "--report", str(path))
    assert (ran.code, ran.out, path.exists()) == (3, "", False)
    assert "127.0.0.1:1" in ran.err


async def test_a_coordinator_without_the_service_is_another_version(ferry: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    ran = await ferry("cluster", "validate", "--report", str(path), "-o", "json")
    assert (ran.code, path.exists()) == (1, False)
    assert "same version" in ran.document["error"]["hint"]


def test_help_names_the_cmdlet(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(("cluster", "validate", "--help")) == 0
    assert "Test-Cluster" in capsys.readouterr().out
