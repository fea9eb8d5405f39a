"""Who this host is: a UUID kept in its data directory, and an incarnation for each life of the process.

The directory belongs to one process at a time. A lock that the kernel holds for the process's life sees to
that, so that no copy of an agent, started by mistake, can claim to be the same host (rule O3).
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ferry_types.errors import FerryError, failed, refused

UUID_NAME: Final = "uuid"
LOCK_NAME: Final = "agent.lock"


@dataclass(frozen=True, slots=True)
class ClaimedIdentity:
    """``uuid``: the host's, for ever. ``incarnation``: 32 hex digits, drawn anew in each life."""

    uuid: str
    incarnation: str


@contextmanager
def claim_identity(directory: Path) -> Iterator[ClaimedIdentity]:
    """Make the data directory on first use, and hold it until the end, which the process's death is too.

    Raises FerryError: another process holds it (refused); it cannot be made, read or written, or its UUID is
    damaged (failed).
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        _take(lock, directory)
        yield ClaimedIdentity(_host_uuid(directory), uuid.uuid4().hex)
    finally:
        os.close(lock)


def _take(lock: int, directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        raise FerryError(
            refused(
                "one process per data directory",
                f"another agent (process {holder}) uses the data directory {directory}",
                "stop it first, or give this one a directory of its own (--dir)",
            )
        ) from None
    except OSError as error:
        raise _unusable(directory, error) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)


def _host_uuid(directory: Path) -> str:
    """The host's UUID, made the first time. Call it with the lock held."""
    path = directory / UUID_NAME
    try:
        if not path.exists():
            _write_once(path, f"{uuid.uuid4()}\n")
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise _unusable(directory, error) from error
    if not _is_canonical(text):
        raise FerryError(
            failed(
                f"{path} does not hold a UUID",
                "restore the file; or remove it, and the host joins as a new one",
            )
        )
    return text


def _is_canonical(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _write_once(path: Path, text: str) -> None:
    """Make a file that is there as a whole or not at all, whenever the power fails."""
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    entry = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(entry)
    finally:
        os.close(entry)


def _unusable(directory: Path, error: OSError) -> FerryError:
    return FerryError(
        failed(
            f"the data directory {directory} cannot be used: {error.strerror}",
            "give the agent's user a directory that it can read and write (--dir)",
        )
    )
