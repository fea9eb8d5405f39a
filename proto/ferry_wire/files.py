"""Files that processes keep: in a directory that is theirs alone, and safe from power cuts."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ferry_types.errors import FerryError, failed, refused


def write_durably(path: Path, text: str) -> None:
    """Make or replace a file: once this returns, it holds the text, whenever the power fails.

    Until then it is as it was, or holds the text already, but never a part of it. One writer of a path at a
    time. Raises OSError: the text is not kept, or (if only the directory could not be flushed) is not sure to
    be.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)  # a full disk is not to be kept full
        raise
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make what has been renamed in a directory last. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive_directory(directory: Path, owner: str) -> Iterator[None]:
    """Make the directory if it is not there, and hold it until the end, which the process's death is too.

    ``owner`` is the kind of process (``agent``), for messages and for the name of the lock, which the kernel
    holds. Raises FerryError: another process holds the directory (refused); it cannot be made, read or
    written (failed).
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / f"{owner}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable_directory(directory, owner, error) from error
    try:
        _take(lock, directory, owner)
        yield
    finally:
        os.close(lock)


def unusable_directory(directory: Path, owner: str, error: OSError) -> FerryError:
    """What to tell about a process's directory that it cannot read or write."""
    return FerryError(
        failed(
            f"the data directory {directory} cannot be used: {error.strerror}",
            f"give the {owner}'s user a directory that it can read and write (--dir)",
        )
    )


def _take(lock: int, directory: Path, owner: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        raise FerryError(
            refused(
                "one process per data directory",
                f"another {owner} (process {holder}) uses the data directory {directory}",
                "stop it first, or give this one a directory of its own (--dir)",
            )
        ) from None
    except OSError as error:
        raise unusable_directory(directory, owner, error) from error
