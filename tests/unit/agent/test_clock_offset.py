"""``--clock-offset``: a wall clock that plays to be off, either way."""

from pathlib import Path

import pytest

from ferry_agent.settings import load_settings


def read(directory: Path, *options: str) -> float:
    return load_settings(
        ("--name", "n1", "--dir", str(directory), "--coordinator", "127.0.0.1:7000", *options)
    ).clock_offset


@pytest.mark.parametrize(
    ("text", "offset_s"),
    [("5m", 300.0), ("-5m", -300.0), ("-1.5", -1.5), ("250ms", 0.25), ("0", 0.0)],
)
def test_it_is_a_duration_with_a_sign(tmp_path: Path, text: str, offset_s: float) -> None:
    assert read(tmp_path, f"--clock-offset={text}") == offset_s


def test_it_is_right_by_default_and_may_come_from_a_file(tmp_path: Path) -> None:
    assert read(tmp_path) == 0
    file = tmp_path / "agent.toml"
    file.write_text("clock-offset = -90\n")
    assert read(tmp_path, "--config", str(file)) == -90


@pytest.mark.parametrize("text", ["soon", "--5m", "5 parsecs", "999999999h"])
def test_what_is_no_offset_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        read(tmp_path, f"--clock-offset={text}")
    assert exit_.value.code == 2
    assert "--clock-offset" in capsys.readouterr().err
