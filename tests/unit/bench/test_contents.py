"""The memory contents that every contestant moves."""

import os
from pathlib import Path

import pytest

from ferry_cli.bench.contents import memory_contents
from ferry_cli.bench.memory import load_pages
from ferry_types.errors import FerryError

SIZE_BYTES = 17 * 2**20


def test_random_contents_are_the_same_every_time_and_no_page_repeats() -> None:
    with memory_contents("random", SIZE_BYTES) as one, memory_contents("random", SIZE_BYTES) as other:
        first, second = one.path.read_bytes(), other.path.read_bytes()
    assert first == second
    assert len({first[offset : offset + 4096] for offset in range(0, SIZE_BYTES, 4096)}) == SIZE_BYTES // 4096


def test_zero_contents_are_zeros() -> None:
    with memory_contents("zero", SIZE_BYTES) as contents:
        assert contents.path.read_bytes() == bytes(SIZE_BYTES)


def test_a_files_bytes_are_repeated_up_to_the_size(tmp_path: Path) -> None:
    file = tmp_path / "some"
    file.write_bytes(b"abc" * 1000)
    with memory_contents(str(file), 8192) as contents:
        assert contents.path.read_bytes() == (b"abc" * 3000)[:8192]


def test_contents_are_gone_afterwards_also_after_an_error() -> None:
    paths = []

    def fail() -> None:
        with memory_contents("zero", 4096) as contents:
            paths.append(contents.path)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not paths[0].parent.exists()


def test_a_folder_is_its_files_in_the_order_of_their_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"2" * 1000)
    (tmp_path / "a").write_bytes(b"1" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with memory_contents(str(tmp_path), 4096) as contents:
        assert contents.path.read_bytes() == ((b"1" * 1000 + b"2" * 1000) * 3)[:4096]


def test_files_are_those_of_the_standard_library() -> None:
    with memory_contents("files", 2**20) as contents:
        held = contents.path.read_bytes()
    first = min(each for each in Path(os.__file__).parent.rglob("*") if each.is_file()).read_bytes()
    assert held.startswith(first[: 2**20])
    assert len(held) == 2**20


@pytest.mark.parametrize(
    ("name", "reason"), [("empty", "is empty"), ("missing", "cannot read"), (".", "is empty")]
)
def test_a_file_without_bytes_to_offer_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(FerryError, match=reason), memory_contents(str(tmp_path / name), 4096):
        pytest.fail("there are no contents")


def test_memory_holds_the_files_bytes(tmp_path: Path) -> None:
    file = tmp_path / "contents"
    file.write_bytes(bytes(range(256)) * 48)
    assert load_pages(file, 8192).tobytes() == bytes(range(256)) * 32


def test_a_file_that_is_too_short_does_not_fill_memory(tmp_path: Path) -> None:
    file = tmp_path / "contents"
    file.write_bytes(bytes(8191))
    with pytest.raises(EOFError, match="1 bytes early"):
        load_pages(file, 8192)
