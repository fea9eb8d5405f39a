"""The memory that everybody moves: one file, made once, read by our own VM and by every peer."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ferry_types.errors import FerryError, failed

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - only its room is used, in a private directory
_CHUNK_BYTES = 16 * 2**20
FILES = "files"
"""The fill that takes real files: those of this interpreter's own installation, its standard library."""

_SEED = 20130618
"""Any number will do, as long as every bench moves the same random bytes."""


@dataclass(frozen=True, slots=True)
class Contents:
    """A file of exactly `memory_bytes`."""

    path: Path
    memory_bytes: int
    in_memory: bool
    """It lies in /dev/shm, so that a source that maps it (QEMU's) reads no disk."""


@contextmanager
def memory_contents(fill: str, memory_bytes: int) -> Iterator[Contents]:
    """Make the contents and remove them afterwards.

    `fill` is `random`, `zero`, `files` or a path. The bytes of a file, or of all files under a directory in
    the order of their paths, are repeated up to the size. The contents lie in /dev/shm if that has room for
    them and for as much again, else in the temporary directory. Raises FerryError.
    """
    parent, in_memory = _roomy_directory(memory_bytes)
    with tempfile.TemporaryDirectory(prefix="ferry-bench-", dir=parent) as directory:
        path = Path(directory) / "contents"
        _write(path, _chunks(fill, memory_bytes))
        yield Contents(path, memory_bytes, in_memory)


def _roomy_directory(memory_bytes: int) -> tuple[Path, bool]:
    if _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free >= 2 * memory_bytes:
        return _SHARED_MEMORY, True
    return Path(tempfile.gettempdir()), False


def _write(path: Path, chunks: Iterator[bytes]) -> None:
    try:
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
    except OSError as error:
        hint = "free some space, or choose another TMPDIR"
        raise FerryError(failed(f"cannot write {path}: {error.strerror}", hint)) from error


def _chunks(fill: str, memory_bytes: int) -> Iterator[bytes]:
    """Pieces that add up to `memory_bytes`."""
    match fill:
        case "random":
            generator = np.random.default_rng(_SEED)
            for size_bytes in _chunk_sizes(memory_bytes):
                yield generator.bytes(size_bytes)
        case "zero":
            for size_bytes in _chunk_sizes(memory_bytes):
                yield bytes(size_bytes)
        case _:
            yield from _repeated(Path(os.__file__).parent if fill == FILES else Path(fill), memory_bytes)


def _chunk_sizes(memory_bytes: int) -> Iterator[int]:
    for offset in range(0, memory_bytes, _CHUNK_BYTES):
        yield min(_CHUNK_BYTES, memory_bytes - offset)


def _repeated(path: Path, memory_bytes: int) -> Iterator[bytes]:
    """The bytes of the file, or of the files under the directory, over and over, `memory_bytes` of them."""
    missing_bytes = memory_bytes
    files = _files_of(path)
    while missing_bytes:
        before_bytes = missing_bytes
        for file in files:
            for chunk in _read(file, missing_bytes):
                missing_bytes -= len(chunk)
                yield chunk
        if missing_bytes == before_bytes:
            raise FerryError(failed(f"{path} is empty", "name a file that has some bytes"))


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.rglob("*") if each.is_file() and not each.is_symlink())


def _read(path: Path, size_bytes_max: int) -> Iterator[bytes]:
    """The file's bytes, so many at most."""
    try:
        with path.open("rb") as file:
            while size_bytes_max and (chunk := file.read(min(_CHUNK_BYTES, size_bytes_max))):
                size_bytes_max -= len(chunk)
                yield chunk
    except OSError as error:
        hint = "name a file or a directory that you may read"
        raise FerryError(failed(f"cannot read {path}: {error.strerror}", hint)) from error
