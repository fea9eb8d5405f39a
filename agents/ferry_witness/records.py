"""The records that a witness keeps: a file for each cluster, read at the start and replaced at every change.

::

    DIR/witness.lock     held by the process that uses the directory
    DIR/CLUSTER.json     that cluster's record

What is told is only ever what will last: a record is in memory, from where it is told, once its file is safe.
"""

import logging
from pathlib import Path
from typing import Final

from ferry.v1 import quorum_pb2
from ferry_types.errors import FerryError, failed, malformed, refused
from ferry_types.names import validate_name
from ferry_types.quorum import NO_RECORD, WitnessRecord
from ferry_wire.conversion import from_json, to_json
from ferry_wire.files import flush_directory, unusable_directory, write_durably

OWNER: Final = "witness"

CLUSTERS_MAX: Final = 256
"""Clusters that one witness keeps a record of."""

RECORD_BYTES_MAX: Final = 256 * 2**10
"""Largest file of a record: about a thousand acknowledgements and promises; a cluster has 64 nodes."""

_SUFFIX: Final = ".json"

_LOG = logging.getLogger(__name__)


class Records:
    """The records in one directory, which nobody else may write to meanwhile. Use it from one thread."""

    def __init__(self, directory: Path) -> None:
        """Read all that is there. Raises FerryError if something cannot be read or is damaged."""
        self._directory = directory
        try:
            # A predecessor may have died between giving a file its name and making that last.
            flush_directory(directory)
            paths = sorted(path for path in directory.iterdir() if path.suffix == _SUFFIX)
        except OSError as error:
            raise unusable_directory(directory, OWNER, error) from error
        self._records = {path.stem: _read(path) for path in paths}

    def read(self, cluster: str) -> WitnessRecord:
        """A cluster's record; ``NO_RECORD`` if there is none. Raises FerryError: malformed name."""
        try:
            return self._records.get(validate_name(cluster, "cluster name"), NO_RECORD)
        except ValueError as error:
            raise FerryError(malformed(str(error))) from None

    def replace(self, cluster: str, record: WitnessRecord) -> bool:
        """Replace the record of the revision before this one's. False, and nothing changes, if it is not.

        Once it returns, the record lasts. Raises FerryError, and goes on with the present record: the new one
        is too large or the name no name (malformed), there are too many clusters (refused), or the file
        cannot be written (failed).
        """
        if record.revision != self.read(cluster).revision + 1:
            return False
        if cluster not in self._records and len(self._records) >= CLUSTERS_MAX:
            raise FerryError(
                refused(
                    "clusters of a witness",
                    f"this witness keeps a record of {CLUSTERS_MAX} clusters already",
                    "use another one",
                )
            )
        text = to_json(record)
        if len(text) > RECORD_BYTES_MAX:
            raise FerryError(
                malformed(f"a record of {len(text)} bytes is too large: allowed are {RECORD_BYTES_MAX}")
            )
        try:
            write_durably(self._path(cluster), text)
        except OSError as error:
            what = f"the witness cannot write {self._path(cluster)}: {error.strerror}"
            _LOG.error(what)
            raise FerryError(failed(what, "see to the witness's disk, then try again")) from error
        self._records[cluster] = record
        return True

    def _path(self, cluster: str) -> Path:
        return self._directory / f"{cluster}{_SUFFIX}"


def _read(path: Path) -> WitnessRecord:
    try:
        validate_name(path.stem, "cluster name")
        with path.open(encoding="utf-8") as file:
            text = file.read(RECORD_BYTES_MAX + 1)
        if len(text) > RECORD_BYTES_MAX:
            raise ValueError(f"it is larger than {RECORD_BYTES_MAX} bytes")
        record = from_json(text, quorum_pb2.WitnessRecord, WitnessRecord)
        if record.revision == 0:
            raise ValueError("it has no revision")
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise _unreadable(path, str(error)) from error
    return record


def _unreadable(path: Path, what: str) -> FerryError:
    return FerryError(
        failed(
            f"the record {path} cannot be read: {what}",
            "restore the file; or take the witness out of that cluster (ferry quorum set --witness none), "
            "move the file away and start the witness again",
        )
    )
