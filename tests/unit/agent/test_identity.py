"""A host keeps its UUID, gets an incarnation in each life, and shares its directory with nobody."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from ferry_agent.identity import UUID_NAME, claim_identity
from ferry_types.errors import ErrorCode, FerryError, Refusal


def refusal_of(directory: Path) -> Refusal:
    with pytest.raises(FerryError) as raised, claim_identity(directory):
        pass
    assert str(directory) in raised.value.refusal.message
    assert raised.value.refusal.hint
    return raised.value.refusal


def test_the_uuid_stays_and_the_incarnation_does_not(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there" / "yet"
    with claim_identity(directory) as first:
        assert str(uuid.UUID(first.uuid)) == first.uuid
    with claim_identity(directory) as second:
        assert second.uuid == first.uuid
        assert second.incarnation != first.incarnation
    assert len(first.incarnation) == 32
    assert int(first.incarnation, 16) >= 0


def test_every_directory_is_another_host(tmp_path: Path) -> None:
    with claim_identity(tmp_path / "a") as a, claim_identity(tmp_path / "b") as b:
        assert a.uuid != b.uuid


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ferry_agent.identity import claim_identity\n"
        "with claim_identity(Path(sys.argv[1])):\n"
        "    print('claimed', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"claimed\n"
        refusal = refusal_of(tmp_path)
        holder.kill()
    assert refusal.code is ErrorCode.REFUSED
    assert refusal.rule == "one process per data directory"
    assert f"process {holder.pid}" in refusal.message
    with claim_identity(tmp_path):  # a killed process holds nothing
        pass


def test_a_second_claim_in_one_process_is_refused_too(tmp_path: Path) -> None:
    with claim_identity(tmp_path):
        assert f"process {os.getpid()}" in refusal_of(tmp_path).message


@pytest.mark.parametrize("text", ["", "x", "not-a-uuid\n", f"urn:uuid:{uuid.UUID(int=1)}", "\xff", "0" * 32])
def test_a_damaged_uuid_is_named_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / UUID_NAME
    path.write_text(text, encoding="latin-1")
    refusal = refusal_of(tmp_path)
    assert refusal.code is ErrorCode.FAILED
    assert str(path) in refusal.message
    assert path.read_text(encoding="latin-1") == text


def test_a_file_in_the_place_of_the_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert refusal_of(path).code is ErrorCode.FAILED


def test_a_uuid_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / UUID_NAME).mkdir()
    assert refusal_of(tmp_path).code is ErrorCode.FAILED


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "Permission denied" in refusal_of(tmp_path).message


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    with claim_identity(tmp_path):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.lock", "uuid"]
