"""What a witness keeps: replaced only by the next revision, told only once it lasts, refused if damaged."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ferry_types.errors import ErrorCode, FerryError, Refusal
from ferry_types.quorum import (
    NO_RECORD,
    Acknowledgement,
    Claim,
    VotingRecord,
    WitnessPromise,
    WitnessRecord,
)
from ferry_witness import records as module
from ferry_witness.records import Records

CLAIM = Claim("u1", "life1", term=3, abandoned_round=2, votes_number=4)
KEPT = WitnessRecord(
    1,
    VotingRecord(2**63, 4, (Acknowledgement("u2", "life2", 3, 5), Acknowledgement("u3", "life3", 3, 6))),
    (WitnessPromise("u1", "life1", 1),),
)


def refusal_of_loading(directory: Path) -> Refusal:
    with pytest.raises(FerryError) as raised:
        Records(directory)
    assert raised.value.refusal.hint
    return raised.value.refusal


def test_an_unknown_cluster_has_no_record(tmp_path: Path) -> None:
    assert Records(tmp_path).read("east") == NO_RECORD
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_kept_over_a_restart_in_a_file_that_people_can_read(tmp_path: Path) -> None:
    assert Records(tmp_path).replace("east", KEPT)
    assert Records(tmp_path).read("east") == KEPT
    document = json.loads((tmp_path / "east.json").read_text(encoding="utf-8"))
    assert document["revision"] == 1
    assert document["votes"]["acknowledged"][0] == {
        "node": "u2",
        "incarnation": "life2",
        "term": 3,
        "round": 5,
    }


@pytest.mark.parametrize("revision", [0, 1, 2, 4, 2**64 - 1])
def test_only_the_next_revision_replaces(tmp_path: Path, revision: int) -> None:
    records = Records(tmp_path)
    for number in (1, 2):
        assert records.replace("east", replace(KEPT, revision=number))
    before = (tmp_path / "east.json").read_bytes()
    assert not records.replace("east", WitnessRecord(revision, VotingRecord(), ()))
    assert records.read("east") == replace(KEPT, revision=2)
    assert (tmp_path / "east.json").read_bytes() == before


def test_no_record_is_made_but_the_first(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert not records.replace("east", NO_RECORD)
    assert not records.replace("east", replace(KEPT, revision=2))
    assert list(tmp_path.iterdir()) == []


def test_clusters_do_not_meet(tmp_path: Path) -> None:
    records = Records(tmp_path)
    west = NO_RECORD.promising(CLAIM)
    assert records.replace("east", KEPT)
    assert records.replace("west", west)
    assert not records.replace("east", west)
    for each in (records, Records(tmp_path)):
        assert (each.read("east"), each.read("west")) == (KEPT, west)


@pytest.mark.parametrize("cluster", ["", ".", "..", "../east", "/tmp/east", "a/b", "a\0b", ".east", "x" * 65])
def test_a_name_never_becomes_a_path(tmp_path: Path, cluster: str) -> None:
    records = Records(tmp_path)
    for ask in (lambda: records.read(cluster), lambda: records.replace(cluster, KEPT)):
        with pytest.raises(FerryError, match="cluster name") as raised:
            ask()
        assert raised.value.refusal.code is ErrorCode.MALFORMED
    assert list(tmp_path.iterdir()) == []


def test_nobody_is_told_of_a_record_before_it_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path)
    seen = []
    monkeypatch.setattr(module, "write_durably", lambda path, text: seen.append(records.read("east")))
    assert records.replace("east", KEPT)
    assert seen == [NO_RECORD]
    assert records.read("east") == KEPT


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_write_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    records = Records(tmp_path)
    assert records.replace("east", KEPT)

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(FerryError) as raised:
            records.replace("east", KEPT.promising(CLAIM))
    assert raised.value.refusal.code is ErrorCode.FAILED
    assert str(tmp_path / "east.json") in raised.value.refusal.message
    assert os.strerror(number) in raised.value.refusal.message
    assert records.read("east") == Records(tmp_path).read("east") == KEPT
    assert records.replace("east", KEPT.promising(CLAIM)), "the disk is well again"


def test_a_record_that_is_not_sure_to_last_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(tmp_path)
    assert records.replace("east", KEPT)
    flush, flushed = os.fsync, []

    def fail_on_directories(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path:
            flushed.append(descriptor)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail_on_directories)
        with pytest.raises(FerryError):
            records.replace("east", KEPT.promising(CLAIM))
        refusal = refusal_of_loading(tmp_path)  # nor by the next process, before it is sure
    assert len(flushed) == 2
    assert (refusal.code, str(tmp_path) in refusal.message) == (ErrorCode.FAILED, True)
    assert records.read("east") == KEPT
    other = KEPT.voting(VotingRecord(9, 9), ())
    assert records.replace("east", other), "whoever reads the present record may replace it"
    assert Records(tmp_path).read("east") == other


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\0" * 100,
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"revision": 1}',
        b'{"revision": 0, "votes": {}, "promises": []}',
        b'{"revision": -1, "votes": {}, "promises": []}',
        b'{"revision": 1.5, "votes": {}, "promises": []}',
        b'{"revision": 18446744073709551616, "votes": {}, "promises": []}',
        b'{"revision": 1, "votes": {}, "promises": [], "more": 1}',
        b'{"revision": 1, "votes": {"acknowledged": [{"node": "a/b"}]}, "promises": []}',
        b'{"revision": 1, "votes": {}, "promises": [{"node": "u1"}]}',
        b'{"revision": 1, "votes": {}, "promises": []',
        b'{"revision": 1, "votes": {}, "promises": []}' + b" " * module.RECORD_BYTES_MAX,
        b"[" * 5000,
    ],
    ids=lambda damage: damage[:60].decode("latin-1"),
)
def test_a_damaged_record_is_named_and_left_as_it_is(tmp_path: Path, damage: bytes) -> None:
    assert Records(tmp_path).replace("west", KEPT)
    path = tmp_path / "east.json"
    path.write_bytes(damage)
    refusal = refusal_of_loading(tmp_path)
    assert refusal.code is ErrorCode.FAILED
    assert str(path) in refusal.message
    assert path.read_bytes() == damage


def test_a_file_that_is_no_clusters_is_named(tmp_path: Path) -> None:
    (tmp_path / "my notes.json").write_text('{"revision": 1, "votes": {}, "promises": []}')
    assert "my notes.json" in refusal_of_loading(tmp_path).message


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "east.json").mkdir()
    assert "Is a directory" in refusal_of_loading(tmp_path).message


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("witness.lock", ".east.json.new", "README"):
        (tmp_path / name).write_text("{")
    assert Records(tmp_path).read("east") == NO_RECORD


def test_a_record_is_bounded(tmp_path: Path) -> None:
    records = Records(tmp_path)
    given = tuple(Acknowledgement(f"{number:064}", "i" * 64, 1, 1) for number in range(2000))
    with pytest.raises(FerryError, match="too large") as raised:
        records.replace("east", WitnessRecord(1, VotingRecord(1, 1, given), ()))
    assert raised.value.refusal.code is ErrorCode.MALFORMED
    assert records.read("east") == NO_RECORD
    largest = WitnessRecord(1, VotingRecord(1, 1, given[:500]), ())
    assert records.replace("east", largest)
    assert Records(tmp_path).read("east") == largest


def test_the_number_of_clusters_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLUSTERS_MAX", 2)
    records = Records(tmp_path)
    for cluster in ("a", "b"):
        assert records.replace(cluster, KEPT)
    with pytest.raises(FerryError) as raised:
        records.replace("c", KEPT)
    assert raised.value.refusal.code is ErrorCode.REFUSED
    assert records.replace("a", KEPT.promising(CLAIM)), "those that are there go on"
    assert records.read("c") == NO_RECORD
