"""What memory holds before the first step."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.memory import GuestMemory
from ferry_types.errors import FerryError, failed
from ferry_types.workloads import Fill, FillSpec

_BATCH_WORDS = 2**17
_READ_BYTES = 2**20
"""1 MiB at once, so that other threads get their turn."""


def fill_pages(memory: GuestMemory, first_page: int, fill: FillSpec, seed: int) -> None:
    """Write all pages from ``first_page`` on, so that they are touched whatever they hold.

    ``random`` depends on ``seed`` alone. ``file`` takes the bytes of a file, or of all files under a
    directory in the order of their paths, and repeats them to fill the memory. Raises FerryError, which names
    the path, if one cannot be read or there is nothing to read.
    """
    fill.validate()
    match fill.kind:
        case Fill.ZERO:
            memory.words[first_page:] = 0
        case Fill.RANDOM:
            _fill_random(memory.words[first_page:].reshape(-1), seed)
        case Fill.FILE:
            _fill_from(fill.path or "", memory.pages[first_page:].reshape(-1))
    memory.mark_written(slice(first_page, memory.n_pages))


def _fill_random(words: NDArray[np.uint64], seed: int) -> None:
    generator = np.random.Generator(np.random.SFC64(seed))
    for start in range(0, len(words), _BATCH_WORDS):
        batch = words[start : start + _BATCH_WORDS]
        batch[:] = generator.integers(0, 2**64, len(batch), dtype=np.uint64)


def _fill_from(path: str, target: NDArray[np.uint8]) -> None:
    filled = 0
    for file in _files_of(path):
        filled += _read_into(file, target[filled:])
        if filled == len(target):
            return
    if filled == 0:
        raise FerryError(failed(f"{path} holds nothing to fill memory with", "name a file that is not empty"))
    while filled < len(target):
        # Whole repetitions so far, so that what is copied doubles each time.
        count = min(filled, len(target) - filled)
        target[filled : filled + count] = target[:count]
        filled += count


def _files_of(path: str) -> Iterator[str]:
    """The file itself, or the regular files under a directory in the order of their paths.

    Plain strings here and descriptors in ``_read_into``: ``pathlib`` takes most of the time that a folder of
    tens of thousands of small files takes, and a failover waits for it.
    """
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISREG(mode):
            yield path
            return
        if not stat.S_ISDIR(mode):
            raise FerryError(failed(f"{path} is neither a file nor a directory", "name one that is"))
    except OSError as error:
        raise _unreadable(path, error) from error
    yield from _files_under(path)


def _files_under(path: str) -> Iterator[str]:
    try:
        with os.scandir(path) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(path, error) from error
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files_under(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry.path


def _read_into(path: str, target: NDArray[np.uint8]) -> int:
    """Read a file, as much of it as fits; return the number of bytes."""
    count = 0
    try:
        file = os.open(path, os.O_RDONLY)
        try:
            while count < len(target):
                got = os.readv(file, (target[count : count + _READ_BYTES].data,))
                if not got:
                    break
                count += got
        finally:
            os.close(file)
    except OSError as error:
        raise _unreadable(path, error) from error
    return count


def _unreadable(path: str, error: OSError) -> FerryError:
    return FerryError(
        failed(
            f"cannot fill memory from {path}: {error.strerror or error}",
            "name a file or directory on the host that its agent may read",
        )
    )
