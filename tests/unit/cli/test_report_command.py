"""``ferry report``: what the page says, and what the command refuses."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.unit.cli.report_samples import HOSTILE, a_bench, a_log, a_move, a_scenario, clock, run_of
from tests.unit.cli.test_validation_report import Page

from ferry.v1 import admin_pb2, common_pb2, events_pb2
from ferry_cli.main import execute
from ferry_cli.report import figures, gather
from ferry_cli.report.documents import Run, unix_us
from ferry_cli.report.gather import Question
from ferry_cli.report.render import render
from ferry_cli.report.timelines import timelines
from ferry_types.errors import ErrorCode, FerryError

MADE_US = unix_us(clock(30))


def report_of(*runs: Run, cluster: str | None = None, command: str = "ferry report") -> figures.Report:
    parts, notes = figures.put_together(runs)
    return figures.Report(cluster, MADE_US, "1.2.3", command, parts, notes)


def test_the_page_has_the_charts_and_the_same_numbers_in_tables() -> None:
    runs = (
        run_of([a_move()], "lab"),
        run_of(a_log(), "events.json"),
        run_of(a_bench(0.003, 0.005), "b.json"),
    )
    text = render(report_of(*runs, cluster="lab", command="ferry report b.json"))
    page = Page(text)
    for words in (
        *("Live migrations of lab and 1 run", "Hyperferry 1.2.3", "2026-11-22T02:00:30.000000Z"),
        *("ferry report b.json", "lab: one move, black-out 250.0 ms", "median 4.0 ms, the longest 5.0 ms"),
        *("2.0 times the floor of 2.0 ms", "2 passes brought 1024 pages down to 5 dirty ones"),
        *("1 move in 2.000 s: 1 completed; at most 1 at a time", "qemu: 0.50 of it", "verified equal"),
        *("switched after pass 2", "brown-out 1.000 s", "black-out (ms, logarithmic)"),
    ):
        assert words in page.text, words
    charts = [part.split("</svg>")[0] for part in text.split("<svg ")[1:]]
    for chart in charts:
        ElementTree.fromstring(f"<svg {chart}</svg>")
    assert text.count('role="img"') == 4


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = render(report_of(run_of([a_move()]), run_of(a_bench(0.1))))
    assert not any(
        word in text for word in ("http:", "https:", "//", "url(", "@import", "src=", "<link", "<script")
    )
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_names_from_a_file_are_shown_as_they_are_and_not_obeyed() -> None:
    shown = HOSTILE.replace("\x00", "\ufffd")
    move = a_move(vm=HOSTILE, source=HOSTILE, target=HOSTILE, reason=HOSTILE, option=HOSTILE, cause=HOSTILE)
    bench = a_bench(0.1, fill=HOSTILE, workload=HOSTILE, peers={HOSTILE: {"ratio": None}})
    runs = (run_of(move, HOSTILE), run_of(bench, HOSTILE), run_of(a_scenario(title=HOSTILE), HOSTILE))
    page = Page(render(report_of(*runs, cluster=HOSTILE, command=HOSTILE)))
    assert f"Cluster: {shown}" in page.text
    assert page.text.count(shown) > 15
    assert "script" not in {tag for tag, _ in page.elements}


def test_a_log_completes_the_runs_that_it_tells_of_and_else_is_one_of_its_own() -> None:
    record, log = run_of([a_move()], "list.json"), run_of(a_log(), "events.json")
    (part,) = report_of(record, log).parts
    assert (part.run.name, part.timelines[0].is_whole) == ("list.json", True)
    elsewhere = run_of([a_move(requested_at=clock(40))], "other.json")
    other, own = report_of(elsewhere, log).parts
    assert [other.timelines[0].is_whole, own.timelines[0].is_whole] == [False, True]
    assert (own.run.name, own.timelines[0].move.id) == ("events.json", "m1")


def test_runs_of_one_name_are_told_apart_and_empty_ones_named() -> None:
    report = report_of(run_of(a_bench(0.1), "b.json"), run_of(a_bench(0.2), "b.json"), run_of([], "no.json"))
    assert [part.run.name for part in report.parts] == ["b.json", "b.json (2)"]
    assert report.notes == ("no.json: there is no move in it",)


def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    moves = [a_move(f"m{number}", requested_at=clock(number)) for number in range(50)]
    monkeypatch.setattr(figures, "MOVES_MAX", 45)
    text = Page(render(report_of(run_of(moves, "list.json")))).text
    assert "list.json: the newest 45 of 50 moves are shown" in text
    assert "The newest 40 moves are drawn, 5 are not" in text
    assert "m4 " not in text


def test_readings() -> None:
    hundred = figures.series("b", (number / 1000 for number in range(1, 101)), 0.01)
    assert hundred is not None
    assert figures.blackout_reading(hundred) == (
        "median 50.5 ms, 95 of 100 at most 95.0 ms, the longest 100.0 ms (100 moves); "
        "the median is 5.0 times the floor of 10.0 ms"
    )
    run = run_of([a_move("m1", cause="drain"), a_move("m2", vm="b", cause="drain")])
    log = run_of([*a_log("m1"), *a_log("m2", vm="b")]).events
    whole = timelines(run.moves, log)
    assert figures.burst_reading(whole).endswith("2 completed; at most 2 at a time; asked for: 2 by a drain")
    assert "at a time" not in figures.burst_reading(
        [whole[0], replace(whole[1], segments=whole[1].segments[1:])]
    )
    assert figures.pass_reading(run_of(a_move(passes=[])).moves[0]) == ""


def test_the_document_has_the_figures_of_the_page() -> None:
    document = figures.document(report_of(run_of([a_move()], "lab"), run_of(a_log()), run_of(a_bench(0.1))))
    json.dumps(document, allow_nan=False)
    lab, bench = document["runs"]
    assert lab["moves"][0]["phases"][0] == {"phase": "queued", "begin": clock(10), "end": clock(10.5)}
    assert (lab["moves"][0]["blackout_s"], lab["bench"], bench["moves"]) == (0.25, None, [])
    assert [each["median_s"] for each in document["blackouts"]] == [0.25, 0.1]
    assert [each["ratio_to_floor"] for each in document["blackouts"]] == [None, {"median": 50, "p95": 50}]


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory to be in, where there is no lab and no setting."""
    for name in [name for name in os.environ if name.startswith("FERRY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_become_a_page(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (alone / "bench.json").write_text(json.dumps(a_bench(0.003, 0.005)))
    (alone / "page.html").write_text("of yesterday")
    assert execute(("report", "bench.json", "--out", "page.html")) == 0
    said = capsys.readouterr()
    assert said.err == "the report is in page.html\n"
    assert "bench.json: black-out: median 4.0 ms" in said.out
    assert "Live migrations: 1 run" in (alone / "page.html").read_text()
    assert execute(("report", "bench.json", "-o", "json")) == 0
    path = Path(json.loads(capsys.readouterr().out)["path"])
    assert re.fullmatch(r"report-\d{8}T\d{6}Z\.html", path.name)
    assert path.is_file()


async def test_a_live_cluster_becomes_a_page(ferry: Any, cluster: Any, move: Any, tmp_path: Path) -> None:
    final = common_pb2.PassFigures(pages_sent=7, bytes_sent=28672, duration_s=0.1)
    measured = common_pb2.MigrationFigures(final=final, brownout_s=1.0, blackout_s=0.25, bytes_sent=28672)
    cluster.moves = [move("completed", requested_at_us=MADE_US, total_s=2.0, figures=measured)]
    cluster.summary = admin_pb2.Cluster(name="east")
    cluster.events = [
        events_pb2.Event(
            time_us=MADE_US + round(unix_us(row["time"]) - unix_us(clock(10))),
            event_id=row["id"] or 0,
            log=row["log"],
            vm="a",
            message=row["message"],
        )
        for row in a_log()
    ]
    page = tmp_path / "page.html"
    ran = await ferry("report", "m1", "--vm", "a", "--node", "n2", "--out", str(page), "-o", "json")
    assert ran.code == 0, ran.out
    (run,) = ran.document["runs"]
    assert (ran.document["path"], ran.document["cluster"], run["name"]) == (str(page), "east", "east")
    assert [each["phase"] for each in run["moves"][0]["phases"]] == [
        "queued", "preparing", "copying", "black-out", "switching"
    ]  # fmt: skip
    assert "ferry report m1 --vm a --node n2" in page.read_text()


async def test_moves_of_a_cluster_are_narrowed(cluster: Any, move: Any) -> None:
    cluster.moves = [move("completed", requested_at_us=MADE_US)]
    cluster.summary = admin_pb2.Cluster(name="east")
    for wider in (Question(), Question(("m1",)), Question(since_us=MADE_US, vm="a", node="n2")):
        run = await gather.from_cluster(cluster.address, wider)
        assert [found.id for found in run.moves] == ["m1"]
        assert (cluster.requests[-1].since_us, cluster.requests[-1].vm) == (MADE_US, wider.vm)
    unknown = Question(("m1", "m2"))
    others = Question(vm="b"), Question(node="n3"), Question(since_us=MADE_US + 1)
    for narrower, words in ((unknown, "no migration m2"), *((each, "no such move") for each in others)):
        with pytest.raises(FerryError, match=words) as raised:
            await gather.from_cluster(cluster.address, narrower)
        assert raised.value.refusal.code is ErrorCode.NOT_FOUND
    cluster.moves = []
    with pytest.raises(FerryError, match="the cluster east has had no move"):
        await gather.from_cluster(cluster.address, Question())


async def test_a_coordinator_of_another_version_is_said_to_be_one(cluster: Any, move: Any) -> None:
    cluster.moves = [move("levitating", requested_at_us=MADE_US)]
    with pytest.raises(FerryError, match=r"cannot be read: 0\.state") as raised:
        await gather.from_cluster(cluster.address, Question())
    assert "version" in raised.value.refusal.hint


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("vms.json",), 2, "vms.json: it is none of the documents"),
        (("bench.json", "vms.json"), 2, "vms.json: it is none of the documents"),
        (("absent.json",), 1, "absent.json cannot be read"),
        (("none.json",), 4, "there is no move in none.json"),
        (("bench.json", "--vm", "a"), 2, "a FILE is shown as it is"),
        (("bench.json", "--out", "."), 1, "cannot be written"),
        (("bench.json", "--out", "x" * 300), 1, "cannot be written"),
        (("m" + "1" * 300,), 1, "cannot be read"),
        (("bench.json", "--out", "./bench.json"), 2, "would be written over"),
        (tuple(f"{number}.json" for number in range(17)), 2, "at most 16"),
        (("many.json",), 2, "hold 17 runs"),
        (("--since", "soon"), 2, "not a duration"),
        (("m1", "bench.json"), 3, "no coordinator to ask"),
        ((), 3, "no coordinator to ask"),
    ],
)
def test_what_is_refused_leaves_no_page(
    alone: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, words: str
) -> None:
    contents = {
        "vms.json": [{"name": "vm1"}],
        "none.json": [],
        "bench.json": a_bench(0.1),
        "many.json": [a_scenario()] * 17,
    }
    for name, document in contents.items():
        (alone / name).write_text(json.dumps(document))
    assert execute(("report", *arguments)) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert {path.name for path in alone.iterdir()} == set(contents)
    assert json.loads((alone / "bench.json").read_text())["floor_s"] == 0.002


def test_what_looks_like_an_id_is_one_unless_there_is_such_a_file(alone: Path) -> None:
    (alone / "m2").touch()
    assert gather.sorted_out(("m1", "m2", "a.json", "m1")) == (("m1",), (Path("m2"), Path("a.json")))
