"""What the cluster core asks its driver to do, in the order of the list.

A driver carries the list out one by one and handles no further event before it is done. A ``Commit``
that goes unanswered is repeated until it is answered (rule S1); one that is refused means that another
coordinator reigns: the driver stops for good, and nothing behind it in the list happens (rule S2).
"""

from dataclasses import dataclass

from ferry_cluster.records import MigrationRecord, Record
from ferry_types.errors import Refusal
from ferry_types.events import EventRecord
from ferry_types.messages import HostOrder
from ferry_types.quorum import WitnessRecord


@dataclass(frozen=True, slots=True)
class Guard:
    """The key must hold exactly this record, or be absent."""

    key: str
    expected: Record | None


@dataclass(frozen=True, slots=True)
class Commit:
    """One durable transaction in the store, guarded by the term and by ``guards``."""

    term: int
    guards: tuple[Guard, ...]
    writes: tuple[Record, ...]
    deletes: tuple[str, ...]
    events: tuple[EventRecord, ...]


@dataclass(frozen=True, slots=True)
class CheckTerm:
    """Go on only if the store's term is still this one (rule L3)."""

    term: int


@dataclass(frozen=True, slots=True)
class Send:
    """Hand an order to a node's stream; if that is gone or full, reconciliation will repeat it."""

    stream: int
    order: HostOrder


@dataclass(frozen=True, slots=True)
class CloseStream:
    """End a node's stream with this refusal."""

    stream: int
    reason: Refusal


@dataclass(frozen=True, slots=True)
class ReadWitness:
    """Ask the witness for its record; answers WitnessAnswered or WitnessFailed."""

    address: str


@dataclass(frozen=True, slots=True)
class ReplaceWitness:
    """Replace the witness's record; answers WitnessAnswered or WitnessFailed."""

    address: str
    record: WitnessRecord


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer an admin's request: the name of the VM, the move (a plan with dry run), or a refusal."""

    request: int
    result: str | MigrationRecord | Refusal


@dataclass(frozen=True, slots=True)
class Changed:
    """Names of objects whose projections (watchers, bus) are to be refreshed, or cleared if they are gone."""

    nodes: frozenset[str]
    vms: frozenset[str]
    migrations: frozenset[str]


Command = Commit | CheckTerm | Send | CloseStream | ReadWitness | ReplaceWitness | Reply | Changed
