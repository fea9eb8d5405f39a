"""What reports are made of: the JSON documents of other commands, told apart by their fields.

Fields that a report has no use for are let be: a later release may add some.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ferry_types.errors import FerryError, failed, malformed
from ferry_types.migrations import MigrationState

FILE_BYTES_MAX: Final = 64 * 2**20
"""Ten thousand events, the most that ``ferry events`` prints, have a tenth of that."""

ENTRIES_MAX: Final = 100_000
"""Entries of any list in a document."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def _unix_us(text: str) -> str:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} names no time zone: times are like 2026-01-31T12:00:00.000001Z")
    return text


def unix_us(text: str) -> int:
    """RFC 3339 -> Unix microseconds. Raises ValueError."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MICROSECOND


Moment = Annotated[str, AfterValidator(_unix_us)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e9)]
Entries = Field(max_length=ENTRIES_MAX)


class _Document(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="ignore", allow_inf_nan=False, str_max_length=10_000
    )


class Pass(_Document):
    """One pass over memory; index 0 is the last copy in the pause. Pages are of 4096 bytes."""

    index: Count
    pages_sent: Count
    zero_pages: Count = 0
    bytes_sent: Count
    duration_s: Seconds
    dirty_pages_after: Count

    @property
    def rate_bytes_per_s(self) -> float | None:
        """What was handed to the transport, by the time; None if nothing was, or it took no time."""
        return self.bytes_sent / self.duration_s if self.bytes_sent and self.duration_s else None


class Move(_Document):
    """A move as ``migration show`` prints it; scenarios know less of theirs. Unknown is None."""

    id: str | None
    vm: str
    source: str
    target: str
    state: MigrationState
    reason: str | None = None
    option: str | None = None
    passes: Annotated[tuple[Pass, ...], Entries] = ()
    final: Pass | None = None
    brownout_s: Seconds | None = None
    blackout_s: Seconds | None = None
    total_s: Seconds | None = None
    memory_bytes: Count | None = None
    bytes_sent: Count | None = None
    verified: bool | None = None
    requested_at: Moment | None = None
    cause: str | None = None


class Event(_Document):
    """A row of the event log as ``events`` prints it; ``id`` is Windows'."""

    time: Moment
    id: int | None
    log: str
    node: str | None = None
    vm: str | None = None
    message: str


class BenchRun(_Document):
    """One move of the bench."""

    total_s: Seconds
    blackout_s: Seconds
    throughput_bytes_per_s: Annotated[float, Field(ge=0)]


class Peer(_Document):
    """Who else moved the same bytes; ``ratio`` is our throughput over the peer's."""

    ratio: float | None = None
    problem: str | None = None


class Machine(_Document):
    """Where a bench ran."""

    cpu: str
    cores: Count
    kernel: str


class Bench(_Document):
    """What ``bench migrate`` prints."""

    memory_bytes: Count
    fill: str
    workload: str
    option: str
    machine: Machine | None = None
    runs: Annotated[tuple[BenchRun, ...], Field(min_length=1, max_length=ENTRIES_MAX)]
    floor_s: Annotated[float, Field(gt=0, le=1e9)]
    peers: dict[str, Peer] = Field(default_factory=dict)


class Scenario(_Document):
    """What ``scenario run`` prints of one file."""

    file: str
    title: str
    ok: bool
    seed: int
    events: Annotated[tuple[Event, ...], Entries]
    moves: Annotated[tuple[Move, ...], Entries] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What one document holds, under a name. ``as_of_us``: when a cluster was asked, Unix microseconds."""

    name: str
    moves: tuple[Move, ...] = ()
    events: tuple[Event, ...] = ()
    bench: Bench | None = None
    as_of_us: int | None = None


_MARKS: Final[dict[type[_Document], frozenset[str]]] = {
    Bench: frozenset({"runs", "floor_s"}),
    Scenario: frozenset({"seed", "events", "moves"}),
    Move: frozenset({"vm", "source", "target", "passes"}),
    Event: frozenset({"time", "log", "message"}),
}
"""Fields that a kind of document has and the others lack."""

WANTED: Final = (
    "a report is made of what migration list, migration show, events, bench migrate and scenario run print "
    "with -o json"
)


def read(path: Path) -> tuple[Run, ...]:
    """The runs in a file; several if it holds several scenarios. An empty list is a run without anything.

    Raises FerryError: failed if it cannot be read, malformed if it is none of the known documents.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as problem:
        raise FerryError(failed(f"{path} cannot be read: {problem.strerror or problem}")) from None
    if len(raw) > FILE_BYTES_MAX:
        raise FerryError(malformed(f"{path} has more than {FILE_BYTES_MAX >> 20} MiB", WANTED))
    try:
        return parse(path.name, raw)
    except ValueError as problem:
        raise FerryError(malformed(f"{path}: {problem}", WANTED)) from None


def parse(name: str, raw: bytes) -> tuple[Run, ...]:
    """The runs in the text of a document. Raises ValueError, which says what is wrong."""
    try:
        document = json.loads(raw)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as problem:
        raise ValueError(f"it is not JSON: {problem}") from None
    entries = document if isinstance(document, list) else [document]
    if not entries:
        return (Run(name),)
    if len(entries) > ENTRIES_MAX:
        raise ValueError(f"its list has {len(entries)} entries: at most {ENTRIES_MAX}")
    kind = _kind_of(entries)
    values = [
        _validated(kind, entry, f"{index}" if entries is document else "")
        for index, entry in enumerate(entries)
    ]
    runs = [_run(name, value) for value in values if isinstance(value, Bench | Scenario)]
    if runs:
        return tuple(runs)
    moves = tuple(value for value in values if isinstance(value, Move))
    events = tuple(value for value in values if isinstance(value, Event))
    return (Run(name, moves, events),)


def _kind_of(entries: list[Any]) -> type[_Document]:
    kinds = {_kind(entry) for entry in entries}
    if len(kinds) > 1:
        raise ValueError("its list mixes things of several kinds")
    kind = kinds.pop()
    if kind is None:
        raise ValueError("it is none of the documents that a report is made of")
    return kind


def _kind(entry: Any) -> type[_Document] | None:
    if not isinstance(entry, dict):
        return None
    return next((kind for kind, marks in _MARKS.items() if marks <= entry.keys()), None)


def _validated(kind: type[_Document], entry: Any, where: str) -> _Document:
    try:
        # From JSON text, in which a list may stand for a tuple and a word for a state.
        return kind.model_validate_json(json.dumps(entry))
    except ValidationError as error:
        first, count = error.errors(include_url=False)[0], error.error_count()
        place = ".".join((*where.split(), *map(str, first["loc"]))) or "the whole"
        more = f" (and {count - 1} more)" if count > 1 else ""
        raise ValueError(f"{place}: {first['msg']}{more}") from None


def _run(name: str, value: Bench | Scenario) -> Run:
    if isinstance(value, Bench):
        return Run(name, bench=value)
    return Run(f"{name}: {value.title}", value.moves, value.events)
