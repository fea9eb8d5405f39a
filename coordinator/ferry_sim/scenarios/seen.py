"""A cluster as its admins see it while a scenario runs, on virtual time or live."""

from collections.abc import Mapping
from dataclasses import dataclass

from ferry_types.migrations import MigrationFigures


@dataclass(frozen=True, slots=True)
class SeenVm:
    """A VM: its state as ``vm show`` has it, and its owner or nothing."""

    state: str
    node: str


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event of the log. ``event_id`` 0: Windows has none; ``node`` and ``vm`` may be empty."""

    time_us: int
    event_id: int
    log: str
    level: str
    node: str
    vm: str
    message: str


@dataclass(frozen=True, slots=True)
class SeenMove:
    """A live migration that was asked for since the timeline began.

    ``figures`` None: nothing was measured, as on virtual time. ``total_s`` 0: it has not ended, or it is not
    known. ``network``, ``cause``: as in the move's record, or empty.
    """

    migration_id: str
    vm: str
    source: str
    target: str
    state: str
    reason: str
    option: str = ""
    network: str = ""
    cause: str = ""
    requested_at_us: int = 0
    total_s: float = 0.0
    figures: MigrationFigures | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """A cluster as its admins see it, and what has happened since the timeline began.

    ``interrupted``: VMs whose guests have stood still or were booted anew, other than in a move.
    """

    vms: Mapping[str, SeenVm]
    nodes: Mapping[str, str]
    events: tuple[SeenEvent, ...]
    moves: tuple[SeenMove, ...]
    interrupted: frozenset[str] = frozenset()


NOTHING = Seen({}, {}, (), ())
"""Of a cluster that nobody can ask."""
