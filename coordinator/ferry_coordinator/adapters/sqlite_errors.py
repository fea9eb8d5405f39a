"""What SQLite's errors mean to people, as a store's errors."""

import sqlite3
from pathlib import Path

from ferry_coordinator.ports import StoreError, StoreErrorCode


def corrupt(path: Path, reason: str) -> StoreError:
    """The file is not what it was."""
    return StoreError(
        StoreErrorCode.CORRUPT,
        f"store {path} is damaged: {reason}",
        "bring it back from a backup, or move it away to begin with a new cluster",
    )


def read_only(path: Path, reason: str) -> StoreError:
    """The file may not be written."""
    return StoreError(
        StoreErrorCode.READ_ONLY,
        f"store {path}: {reason}",
        "let the coordinator's user read and write the file and its folder, or name another data folder",
    )


def explain(path: Path, error: Exception, busy_timeout_s: float) -> Exception:
    """What SQLite's primary result code means to people; errors that are not SQLite's stay what they are."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return error
    match code & 0xFF:
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_ERROR:
            return corrupt(path, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
            return read_only(path, str(error))
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreError(
                StoreErrorCode.LOCKED,
                f"store {path} has been locked by another process for {busy_timeout_s:g} s",
                "end the program that holds it (a backup, or a database shell)",
                retryable=True,
            )
        case sqlite3.SQLITE_FULL:
            return StoreError(
                StoreErrorCode.DISK_FULL,
                f"store {path}: its disk is full",
                "make space; the coordinator then goes on by itself",
                retryable=True,
            )
    return StoreError(
        StoreErrorCode.IO, f"store {path}: {error}", "see that its disk is sound and mounted", retryable=True
    )
