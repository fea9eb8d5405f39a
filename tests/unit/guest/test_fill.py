"""What memory holds before the first step."""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.unit.guest.conftest import MIB, BootGuest

from ferry_agent.guest.audit import audit
from ferry_agent.guest.guest import Guest
from ferry_types.errors import FerryError
from ferry_types.workloads import Fill, FillSpec


def data_of(guest: Guest) -> bytes:
    return guest.memory.pages[guest.books.first_data_page :].tobytes()


@pytest.mark.parametrize("kind", [Fill.ZERO, Fill.RANDOM])
def test_every_page_is_touched_and_dirty_and_the_books_are_right(boot: BootGuest, kind: Fill) -> None:
    guest = boot(fill=FillSpec(kind))
    assert guest.memory.touched.all()
    assert guest.memory.dirty.count() == guest.memory.n_pages
    assert audit(guest.memory, guest.spec, guest.registers).ok
    assert any(data_of(guest)) == (kind is Fill.RANDOM)


def test_random_bytes_follow_from_the_seed_and_do_not_repeat(boot: BootGuest) -> None:
    first, again, other = boot(), boot(), boot(name="vm2")
    assert data_of(first) == data_of(again) != data_of(other)
    rows = first.memory.words[first.books.first_data_page :, 0]
    assert len(np.unique(rows)) == len(rows)


def test_a_file_is_repeated_to_fill_memory(boot: BootGuest, tmp_path: Path) -> None:
    content = bytes(range(1, 252)) * 3
    (tmp_path / "file").write_bytes(content)
    data = data_of(boot(fill=FillSpec(Fill.FILE, str(tmp_path / "file"))))
    assert data == (content * (len(data) // len(content) + 1))[: len(data)]


def test_a_file_larger_than_memory_is_cut(boot: BootGuest, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(5 * MIB)
    (tmp_path / "file").write_bytes(content)
    data = data_of(boot(fill=FillSpec(Fill.FILE, str(tmp_path / "file"))))
    assert data == content[: len(data)]


def test_a_directory_gives_its_files_in_the_order_of_their_paths(boot: BootGuest, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "z").write_bytes(b"two")
    (tmp_path / "c").write_bytes(b"three")
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "empty").touch()
    (tmp_path / "a-link").symlink_to(tmp_path / "c")
    guest = boot(fill=FillSpec(Fill.FILE, str(tmp_path)))
    assert data_of(guest).startswith(b"onetwothreeonetwothreeone")
    assert audit(guest.memory, guest.spec, guest.registers).ok


@pytest.mark.parametrize(
    ("path", "message"),
    [("absent", "No such file"), ("empty", "holds nothing"), ("/dev/null", "neither a file nor a directory")],
)
def test_what_cannot_be_read_is_named(boot: BootGuest, tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    target = tmp_path / path
    with pytest.raises(FerryError, match=message) as raised:
        boot(fill=FillSpec(Fill.FILE, str(target)))
    assert str(target) in raised.value.refusal.message


def test_an_unreadable_file_in_a_directory_is_named(
    boot: BootGuest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "good").write_bytes(b"x")
    (tmp_path / "secret").write_bytes(b"y")
    really_open = os.open

    def deny(path: str, flags: int) -> int:  # tests may run as root, whom no mode stops
        if path.endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return really_open(path, flags)

    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(FerryError, match=r"secret: Permission denied"):
        boot(fill=FillSpec(Fill.FILE, str(tmp_path)))


def test_no_file_of_a_directory_stays_open(boot: BootGuest, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).write_bytes(b"x")
    descriptors = Path("/proc/self/fd")
    open_before = {each.name for each in descriptors.iterdir()}

    boot(fill=FillSpec(Fill.FILE, str(tmp_path)))

    assert {each.name for each in descriptors.iterdir()} == open_before
