"""Files survive power cuts whole, and a failed write harms nothing."""

import errno
import os
from pathlib import Path

import pytest

from ferry_types.errors import ErrorCode, FerryError
from ferry_wire.files import exclusive_directory, write_durably


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is done to the disk, in order."""
    taken = []
    fsync, rename = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        fsync(descriptor)
        taken.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))

    def renamed(path: Path, target: Path) -> Path:
        taken.append(("rename", path.name))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    return taken


def test_a_file_is_flushed_then_named_then_its_name_is_flushed(
    tmp_path: Path, steps: list[tuple[str, str]]
) -> None:
    write_durably(tmp_path / "file", "text")
    assert steps == [("fsync", ".file.new"), ("rename", ".file.new"), ("fsync", tmp_path.name)]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "text"


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, "a long text")
    write_durably(path, "über")
    assert path.read_text(encoding="utf-8") == "über"
    assert list(tmp_path.iterdir()) == [path]


def test_a_draft_that_a_killed_process_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_text("half of a")
    write_durably(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "text"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_leaves_the_old_text_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_durably(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_held_by_one_of_a_kind(tmp_path: Path) -> None:
    directory = tmp_path / "made" / "on the way"
    with (
        exclusive_directory(directory, "witness"),
        pytest.raises(FerryError) as raised,
        exclusive_directory(directory, "witness"),
    ):
        pass
    assert raised.value.refusal.code is ErrorCode.REFUSED
    assert f"another witness (process {os.getpid()}) uses" in raised.value.refusal.message
    with exclusive_directory(directory, "witness"):
        pass


@pytest.mark.parametrize("locked_before", [False, True])
def test_a_directory_that_nothing_can_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locked_before: bool
) -> None:
    if locked_before:
        with exclusive_directory(tmp_path, "witness"):
            pass
    # Root may write everywhere, so the answer is made up.
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)
    with pytest.raises(FerryError) as raised, exclusive_directory(tmp_path, "witness"):
        pass
    assert raised.value.refusal.code is ErrorCode.FAILED
    assert f"{tmp_path} cannot be used: Permission denied" in raised.value.refusal.message
    assert "the witness's user" in raised.value.refusal.hint
