"""Where a lab is, and the notes that it keeps."""

from pathlib import Path

import pytest

from ferry_cli.lab.processes import ProcessIdentity
from ferry_cli.lab.state import (
    Kind,
    Lab,
    LabProcess,
    LabSpec,
    lab_directory,
    notes_file,
    read_lab,
    sole_use,
    write_lab,
)
from ferry_types.eras import Era
from ferry_types.errors import ErrorCode, FerryError


def process(name: str, pid: int = 1) -> LabProcess:
    return LabProcess(name, Kind.AGENT, ("python", name), "127.0.0.1:1", ProcessIdentity(pid, 2, "boot"))


def test_the_option_beats_the_environment_beats_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FERRY_LAB", str(tmp_path / "named"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert lab_directory(tmp_path / "given") == tmp_path / "given"
    assert lab_directory(None) == tmp_path / "named"
    monkeypatch.delenv("FERRY_LAB")
    assert lab_directory(None) == tmp_path / "state" / "hyperferry" / "lab"


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    lab = Lab(LabSpec(hosts=2, era=Era.WS2012, broker="127.0.0.1:1883"), (process("a"), process("b")))
    write_lab(tmp_path, lab)
    assert read_lab(tmp_path) == lab
    assert [path.name for path in tmp_path.iterdir()] == ["lab.json"]


def test_no_notes_are_no_lab(tmp_path: Path) -> None:
    assert read_lab(tmp_path) is None


@pytest.mark.parametrize("text", ["", '{"format": 1, "spec": {', '{"format": 99}', "[]", '{"format": 1}'])
def test_damaged_notes_are_told_with_the_way_out(tmp_path: Path, text: str) -> None:
    notes_file(tmp_path).write_text(text)
    with pytest.raises(FerryError) as caught:
        read_lab(tmp_path)
    assert "ferry lab down" in caught.value.refusal.hint


def test_a_process_that_is_noted_anew_keeps_its_place() -> None:
    lab = Lab(LabSpec(), (process("a"), process("b"), process("c")))
    changed = lab.with_process(process("b", pid=9))
    assert [each.name for each in changed.processes] == ["a", "b", "c"]
    assert changed.process("b").identity.pid == 9
    assert [each.name for each in lab.with_process(process("d")).processes] == ["a", "b", "c", "d"]


def test_an_unknown_process_is_not_found_and_the_known_ones_are_named() -> None:
    with pytest.raises(FerryError) as caught:
        Lab(LabSpec(), (process("a"),)).process("z")
    assert caught.value.refusal.code is ErrorCode.NOT_FOUND
    assert "a" in caught.value.refusal.hint


def test_one_command_at_a_time_changes_a_lab(tmp_path: Path) -> None:
    with sole_use(tmp_path), pytest.raises(FerryError) as caught, sole_use(tmp_path):
        pass
    assert caught.value.refusal.code is ErrorCode.REFUSED
    with sole_use(tmp_path):
        assert list(tmp_path.iterdir()) == []
