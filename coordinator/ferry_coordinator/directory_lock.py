"""One coordinator at a time on one data directory.

Two would depose each other for ever, or until an operator notices. The store would survive that (its term
is compared at each commit); the operator would not enjoy it.
"""

from contextlib import AbstractContextManager
from pathlib import Path

from ferry_wire import files


def exclusive_directory(directory: Path) -> AbstractContextManager[None]:
    """Make the directory if it is not there, and hold it until the end, which the process's death is too.

    Raises FerryError as ``ferry_wire.files.exclusive_directory`` does.
    """
    return files.exclusive_directory(directory, "coordinator")
