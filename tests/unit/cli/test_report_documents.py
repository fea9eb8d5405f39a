"""Documents are told apart by their fields, and what is none of them is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli.report_samples import a_bench, a_log, a_move, a_pass, a_scenario, an_event, run_of

from ferry_cli.report import documents
from ferry_types.errors import ErrorCode, FerryError


def test_documents_are_told_apart_by_their_fields() -> None:
    assert [move.id for move in run_of([a_move("m1"), a_move("m2")]).moves] == ["m1", "m2"]
    assert [move.id for move in run_of(a_move("m3")).moves] == ["m3"]
    assert len(run_of(a_log()).events) == 7
    bench = run_of(a_bench(0.003, 0.004)).bench
    assert bench is not None
    assert [each.blackout_s for each in bench.runs] == [0.003, 0.004]
    scenario = run_of(a_scenario())
    assert (scenario.name, len(scenario.moves), len(scenario.events)) == ("run: A drain", 1, 7)


def test_several_scenarios_are_several_runs_and_an_empty_list_is_one_without_moves() -> None:
    raw = json.dumps([a_scenario(title="one"), a_scenario(title="two")]).encode()
    assert [run.name for run in documents.parse("s.json", raw)] == ["s.json: one", "s.json: two"]
    assert run_of([], "e.json") == documents.Run("e.json")


def test_fields_of_later_releases_are_let_be() -> None:
    move = run_of(a_move(estimate={"blackout_s": 1}, passes=[a_pass(compressed_bytes=1)])).moves[0]
    assert len(move.passes) == 1


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"name": "vm1", "state": "running"}, "none of the documents"),
        ([{"name": "vm1"}], "none of the documents"),
        ({"error": {"code": "not_found"}}, "none of the documents"),
        (17, "none of the documents"),
        ([17], "none of the documents"),
        ([a_move(), an_event(1, "x")], "several kinds"),
        ([a_move(), a_move(total_s=-1.0)], r"1\.total_s"),
        (a_move(blackout_s=float("nan")), "blackout_s"),
        (a_move(blackout_s=float("inf")), "blackout_s"),
        (a_move(blackout_s="0.1"), "blackout_s"),
        (a_move(state="levitating"), "state"),
        (a_move(requested_at="yesterday"), "requested_at"),
        (a_move(requested_at="2026-11-22T02:00:00"), "names no time zone"),
        (a_move(passes=[a_pass(pages_sent=-1)]), r"passes\.0\.pages_sent"),
        (a_move(vm="x" * 10_001), "vm"),
        (a_move(vm="\ud800"), "the whole"),
        (a_bench(), "runs"),
        (a_bench(0.1, floor_s=0.0), "floor_s"),
        (a_bench(0.1, peers={"qemu": {"ratio": float("nan")}}), r"peers\.qemu\.ratio"),
        (a_scenario(events=[{"time": 1}]), r"events\.0\.time"),
    ],
)
def test_what_is_wrong_in_a_document_is_named(document: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        run_of(document)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"<html>"])
def test_what_is_no_json_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(raw)
    with pytest.raises(FerryError, match=r"odd\.json") as raised:
        documents.read(path)
    assert raised.value.refusal.code is ErrorCode.MALFORMED
    assert "bench migrate" in raised.value.refusal.hint


def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "big.json"
    path.write_text(json.dumps([an_event(1, "x")] * 20))
    monkeypatch.setattr(documents, "ENTRIES_MAX", 19)
    with pytest.raises(FerryError, match="20 entries: at most 19"):
        documents.read(path)
    monkeypatch.setattr(documents, "FILE_BYTES_MAX", 100)
    with pytest.raises(FerryError, match="has more than"):
        documents.read(path)


def test_a_file_that_cannot_be_read_is_a_failure_not_a_malformed_value(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(FerryError, match="cannot be read") as raised:
            documents.read(path)
        assert raised.value.refusal.code is ErrorCode.FAILED
