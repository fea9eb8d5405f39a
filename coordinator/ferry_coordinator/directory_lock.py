"""One coordinator at a time on one data directory.

Two would depose each other for ever, or until an operator notices. The store would survive that (its term
is compared at each commit); the operator would not enjoy it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ferry_types.errors import FerryError, failed

LOCK_NAME = "coordinator.lock"


@contextmanager
def exclusive_directory(directory: Path) -> Iterator[None]:
    """Make the directory if it is not there, and hold it until the end, which the process's death is too.

    Raises FerryError if it cannot be made or written, or another coordinator holds it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FerryError(
            failed(
                f"the data directory {directory} cannot be used: {error.strerror}",
                "give the coordinator's user a directory that it can write (--dir)",
            )
        ) from error
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise FerryError(
            failed(
                f"another coordinator (process {holder}) uses the data directory {directory}",
                "stop it first, or give this one a directory of its own (--dir)",
            )
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
