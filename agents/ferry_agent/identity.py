"""Who this host is: a UUID kept in its data directory, and an incarnation for each life of the process.

The directory belongs to one process at a time. A lock that the kernel holds for the process's life sees to
that, so that no copy of an agent, started by mistake, can claim to be the same host (rule O3).
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ferry_types.errors import FerryError, failed
from ferry_wire.files import exclusive_directory, unusable_directory, write_durably

UUID_NAME: Final = "uuid"
OWNER: Final = "agent"


@dataclass(frozen=True, slots=True)
class ClaimedIdentity:
    """``uuid``: the host's, for ever. ``incarnation``: 32 hex digits, drawn anew in each life.

    ``is_new``: this is the host's first life.
    """

    uuid: str
    incarnation: str
    is_new: bool


@contextmanager
def claim_identity(directory: Path) -> Iterator[ClaimedIdentity]:
    """Make the data directory on first use, and hold it until the end, which the process's death is too.

    Raises FerryError: another process holds it (refused); it cannot be made, read or written, or its UUID is
    damaged (failed).
    """
    with exclusive_directory(directory, OWNER):
        is_new = not (directory / UUID_NAME).exists()
        yield ClaimedIdentity(_host_uuid(directory), uuid.uuid4().hex, is_new)


def _host_uuid(directory: Path) -> str:
    """The host's UUID, made the first time. Call it with the lock held."""
    path = directory / UUID_NAME
    try:
        if not path.exists():
            write_durably(path, f"{uuid.uuid4()}\n")
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise unusable_directory(directory, OWNER, error) from error
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
