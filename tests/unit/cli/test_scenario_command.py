"""``ferry scenario``: results on standard output, exit codes, and what cannot be run live."""

import json
from pathlib import Path
from typing import Any

import pytest

from ferry_cli.main import execute
from ferry_cli.report.documents import parse
from ferry_cli.scenarios.live import virtual_only
from ferry_cli.scenarios.traces import Run, interrupted, overlaps, read_runs
from ferry_sim.scenarios import model, schema
from ferry_sim.scenarios.figures import checks
from ferry_sim.scenarios.outcome import Outcome
from ferry_sim.scenarios.seen import Seen, SeenMove
from ferry_types.migrations import BlackoutParts, MigrationFigures, PassFigures

HEAD = "title: t\nshows: s\nrule: r\nnodes: {n1: , n2: , n3: }\nvms: {a: {node: n1}}\n"
S = 10**9


def write(path: Path, text: str) -> str:
    path.write_text(HEAD + text)
    return str(path)


@pytest.fixture
def good(tmp_path: Path) -> str:
    return write(tmp_path / "good.yaml", "steps: [kill n1]\nend: {nodes: {n1: down}}\n")


@pytest.fixture
def bad(tmp_path: Path) -> str:
    return write(tmp_path / "bad.yaml", "steps: [kill n1]\nwithin: 1s\nend: {nodes: {n1: up}}\n")


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_one_file_is_one_object(good: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["scenario", "run", good, "-o", "json", "--seed", "7"]) == 0
    outcome = printed(capsys)
    assert (outcome["ok"], outcome["seed"], outcome["failures"], outcome["violations"]) == (True, 7, [], [])
    assert outcome["end"]["vms"]["a"]["state"] == "running"
    assert outcome["end"]["nodes"] == {"n1": {"state": "down"}, "n2": {"state": "up"}, "n3": {"state": "up"}}
    lost = next(event for event in outcome["events"] if event["id"] == 1135)
    assert (lost["level"], lost["node"], lost["vm"]) == ("critical", "n1", None)
    assert lost["time"].startswith("2026-01-01T12:00:0")


def test_several_files_are_a_list_and_one_that_fails_is_exit_1(
    good: str, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["scenario", "run", good, bad, "-o", "json"]) == 1
    assert [outcome["ok"] for outcome in printed(capsys)] == [True, False]


def test_people_read_what_has_happened_when_one_fails(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["scenario", "run", bad]) == 1
    said = capsys.readouterr().out
    assert f"FAILED {bad}: t (seed 1" in said
    assert "end: node n1 is down, not up" in said
    assert "1135 node n1 is lost" in said


def test_a_malformed_file_is_exit_2_and_nothing_runs(
    good: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "odd.yaml", "steps: [kill n9]\nend: {nodes: {n1: down}}\n")
    assert execute(["scenario", "run", good, file, "-o", "json"]) == 2
    error = printed(capsys)["error"]
    assert (error["code"], error["rule"]) == ("malformed", "known names")
    assert error["message"] == f"{file}: line 6: steps[0]: there is no node n9: the file has n1, n2, n3"


def test_a_file_that_is_not_there_is_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["scenario", "run", "/nowhere.yaml"]) == 1
    assert "/nowhere.yaml cannot be read" in capsys.readouterr().err


def test_what_cannot_be_live_is_said_before_a_lab_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "cut.yaml", "steps: [network n1 off]\nend: {nodes: {n1: down}}\n")
    assert execute(["scenario", "run", "--live", file]) == 2
    said = capsys.readouterr().err
    assert "runs on virtual time only: the step 'network n1 off' cuts the network, which needs root" in said


def test_what_cannot_be_on_virtual_time_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(
        tmp_path / "figures.yaml", "steps: [vm migrate a to n2]\nmoves: [{vm: a, figures: {passes: 1}}]\n"
    )
    assert execute(["scenario", "run", file]) == 2
    said = capsys.readouterr().err
    assert "runs live only: it expects figures of moves, and on virtual time no page is copied" in said
    assert "run it with --live" in said


def test_figures_are_shown_beside_what_is_expected_and_one_that_is_off_is_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = MigrationFigures(
        (PassFigures(1, 10, 0, 40960, 2.0, 0),),
        PassFigures(0, 0, 0, 0, 0.0, 0),
        2.0,
        0.1,
        40960,
        blackout=BlackoutParts(0.04, 0.03, 0.02, 0.01),
    )
    move = SeenMove("m1", "a", "n1", "n2", "completed", "", "tcpip", "live", "", 1, 2.5, figures)

    async def measured(scenario: model.Scenario, seed: int, _progress: object) -> Outcome:
        seen = Seen({}, {}, (), (move,))
        return Outcome(scenario.title, seed, seen, (), (), 0, 1.0, tuple(checks(scenario, seen)))

    monkeypatch.setattr("ferry_cli.scenarios.live.run_live", measured)
    file = tmp_path / "figures.yaml"
    expected = (
        "steps: [vm migrate a to n2]\nmoves: [{vm: a, figures: {passes: 1, total_s: about 3 within 5 %}}]\n"
    )
    assert execute(["scenario", "run", "--live", write(file, expected), "-o", "json"]) == 1
    shown = printed(capsys)
    (run,) = parse("report", json.dumps(shown).encode())
    assert run.moves[0].passes, "ferry report draws them"
    assert [(each["figure"], each["measured"], each["ok"]) for each in shown["figures"]] == [
        ("total_s", "2.5", False),
        ("passes", "1", True),
    ]
    (seen,) = shown["moves"]
    assert (seen["total_s"], seen["brownout_s"], seen["option"]) == (2.5, 2.0, "tcpip")
    assert [one["bytes_sent"] for one in seen["passes"]] == [40960]
    assert execute(["scenario", "run", "--live", str(file)]) == 1
    said = capsys.readouterr().out
    assert "OFF  moves[0] (a): total_s is 2.5, expected about 3 within 5 % (2.85 to 3.15)" in said
    assert "ok   moves[0] (a): passes is 1, expected 1" in said
    assert "m1 of a: black-out 100.0 ms\n      of it last pages 40.0 ms, ready 30.0 ms" in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("steps: [vm crash a]", "crashes a guest"),
        ("steps: [delay 20m]", "delays of 1200 s"),
        ("steps: [kill n1]\nmigration_rate: 1MiB/s", "how fast memory is copied"),
        ("steps: [kill n1]\nwall_clock: 2026-01-01T22:00:00Z", "chooses the hour"),
    ],
)
def test_why_a_scenario_is_virtual_only(text: str, why: str) -> None:
    (reason,) = virtual_only(model.load(f"{HEAD}{text}\nend: {{nodes: {{n1: down}}}}\n"))
    assert why in reason


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["scenario", "schema"]) == 0
    assert capsys.readouterr().out == schema.published()


def test_two_hosts_that_ran_a_vm_at_once_are_found(tmp_path: Path) -> None:
    (tmp_path / "n1.trace").write_text("run a 1 100\nran a 1 200\nhalt a 1 300\nrun b 1 100\nran b 1 9")
    (tmp_path / "n2.trace").write_text("run a 2 250\nran a 2 400\n")
    runs = read_runs(tmp_path)
    assert runs == [Run("a", 100, 300, "n1"), Run("a", 250, 400, "n2"), Run("b", 100, 100, "n1")]
    assert overlaps(runs) == ["a ran on n1 and n2 at once, for 0.000 ms"]


def test_a_guest_that_stood_still_is_found() -> None:
    moved = [Run("a", 0, 5 * S, "n1"), Run("a", 5 * S + 1000, 9 * S, "n2")]
    booted = [Run("b", 0, 3 * S, "n1"), Run("b", 5 * S, 9 * S, "n2")]
    stopped = [Run("c", 0, 6 * S, "n1")]
    before = [Run("d", 0, 1 * S, "n1"), Run("d", 3 * S, 9 * S, "n1")]
    assert interrupted([*moved, *booted, *stopped, *before], 3 * S, 9 * S) == {"b", "c"}
