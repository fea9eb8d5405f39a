"""When a move was in which phase, as far as its figures and the event log tell.

A record has the time of the request, and durations. The log tells when a move got its slots (20413), when the
guest ran on the target and when the move ended. From these the rest follows: the pause began one black-out
before the guest ran on, and copying one brown-out before the pause. What does not follow stays unknown.
"""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from operator import itemgetter
from typing import Final

from ferry_cli.report.documents import Event, Move, unix_us
from ferry_types.events import (
    MIGRATION_BEGUN,
    MIGRATION_BLACKOUT,
    MIGRATION_BROWNOUT,
    MIGRATION_FAILED,
    MIGRATION_SUCCEEDED,
)
from ferry_types.migrations import ENDED, MigrationState

# The words that ``ferry_cluster.requests`` and ``ferry_cluster.moves`` write into the log.
_REQUESTED: Final = re.compile(
    r"move (?P<id>m\d+) of (?P<vm>\S+) from (?P<source>\S+) to (?P<target>\S+) was requested"
    r"(?: \((?P<cause>[^)]*)\))?"
)
_ENDED: Final = re.compile(
    r"move (?P<id>m\d+) of \S+(?: to \S+)? (?P<state>failed|cancelled): (?P<reason>.*)"
)
_ID: Final = re.compile(r"\bm\d+\b")
_SECONDS: Final = re.compile(r"(?:brown|black)-out of (\d+(?:\.\d+)?) s")


_Row = tuple[int, Event]
_time_us = itemgetter(0)


class Phase(StrEnum):
    """What a move was doing; ``BLACKOUT`` is the part of switching in which the guest stood still."""

    QUEUED = "queued"
    PREPARING = "preparing"
    COPYING = "copying"
    BLACKOUT = "black-out"
    SWITCHING = "switching"
    UNKNOWN = "phases unknown"


@dataclass(frozen=True, slots=True)
class Segment:
    """A phase and its time, Unix microseconds."""

    phase: Phase
    begin_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """A move and its phases, none if not even the request's time is known. ``is_open``: it had not ended."""

    move: Move
    segments: tuple[Segment, ...]
    is_open: bool

    @property
    def begin_us(self) -> int:
        """When it was requested; there are segments."""
        return self.segments[0].begin_us

    @property
    def end_us(self) -> int:
        """When it ended, or the last time that is known of it; there are segments."""
        return self.segments[-1].end_us

    @property
    def is_whole(self) -> bool:
        """Whether all its phases are known."""
        return bool(self.segments) and all(part.phase is not Phase.UNKNOWN for part in self.segments)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the log tells of one move, Unix microseconds; ``pause_s`` and ``copying_s`` as it rounds them."""

    asked_us: int | None = None
    begun_us: int | None = None
    ran_us: int | None = None
    ended_us: int | None = None
    copying_s: float | None = None
    pause_s: float | None = None


class _Log:
    """The events of each VM, oldest first, and the place of every request among them."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.of_vm: dict[str, list[_Row]] = defaultdict(list)
        for event in events:
            if event.vm:
                self.of_vm[event.vm].append((unix_us(event.time), event))
        self.requests: list[tuple[Move, int]] = []
        for vm, rows in self.of_vm.items():
            rows.sort(key=_time_us)
            for place, (_, event) in enumerate(rows):
                asked = _REQUESTED.fullmatch(event.message)
                if asked is not None and asked["vm"] == vm:
                    move = Move(
                        id=asked["id"],
                        vm=vm,
                        source=asked["source"],
                        target=asked["target"],
                        cause=asked["cause"],
                        state=MigrationState.QUEUED,
                        requested_at=event.time,
                    )
                    self.requests.append((move, place))
        self._places = {(move.vm, move.id): place for move, place in self.requests}

    def after_request(self, move: Move) -> Iterator[_Row]:
        """What the VM's log says from the move's request on, until the next move's."""
        rows = self.of_vm.get(move.vm, [])
        if move.requested_at is not None:
            place = bisect_left(rows, unix_us(move.requested_at), key=_time_us)
        else:
            place = self._places.get((move.vm, move.id), len(rows))
        for row in islice(rows, place, None):
            asked = _REQUESTED.fullmatch(row[1].message)
            if asked is not None and asked["id"] != move.id:
                return
            yield row


def timelines(moves: Iterable[Move], events: Iterable[Event], as_of_us: int | None = None) -> list[Timeline]:
    """The timeline of each move, in this order. ``as_of_us``: when the moves were looked up, if known."""
    log = _Log(events)
    return [_timeline(move, _told(move, log.after_request(move)), as_of_us) for move in moves]


def moves_of(events: Iterable[Event]) -> tuple[Move, ...]:
    """The moves that a log tells of, for want of their records: oldest first, with what figures it names."""
    log = _Log(events)
    found = [_as_told(move, list(log.after_request(move))) for move, _ in log.requests]
    return tuple(sorted(found, key=lambda move: move.requested_at or ""))


def _as_told(move: Move, rows: Sequence[_Row]) -> Move:
    told = _told(move, rows)
    changes: dict[str, object] = {"brownout_s": told.copying_s, "blackout_s": told.pause_s}
    if told.ended_us is None:
        changes["state"] = MigrationState.QUEUED if told.begun_us is None else MigrationState.PREPARING
        return move.model_copy(update=changes)
    changes["state"] = MigrationState.COMPLETED
    for time_us, event in rows:
        if time_us != told.ended_us:
            continue
        if (end := _ENDED.fullmatch(event.message)) is not None and end["id"] == move.id:
            changes |= {"state": MigrationState(end["state"]), "reason": end["reason"]}
        elif event.id == MIGRATION_FAILED.event_id and not _ID.search(event.message):
            changes |= {"state": MigrationState.FAILED, "reason": event.message}
    return move.model_copy(update=changes)


def _told(move: Move, rows: Iterable[_Row]) -> _Told:
    """What the VM's events tell of this move; a VM has one move at a time."""
    asked_us = begun_us = ran_us = ended_us = None
    copying_s = pause_s = None
    for time_us, event in rows:
        named = move.id in _ID.findall(event.message)
        if begun_us is None:
            if named and _REQUESTED.fullmatch(event.message):
                asked_us = time_us
            elif named and event.id == MIGRATION_BEGUN.event_id:
                begun_us = time_us
            elif named and _ENDED.fullmatch(event.message):
                ended_us = time_us
        elif event.message.startswith(f"{move.vm} runs on {move.target} under epoch "):
            ran_us = time_us
        elif event.id == MIGRATION_BROWNOUT.event_id:
            copying_s = _seconds(event)
        elif event.id == MIGRATION_BLACKOUT.event_id:
            pause_s = _seconds(event)
        elif _is_end(event, named=named):
            ended_us = time_us
        if ended_us is not None:
            break
    return _Told(asked_us, begun_us, ran_us, ended_us, copying_s, pause_s)


def _is_end(event: Event, *, named: bool) -> bool:
    if _ENDED.fullmatch(event.message) or event.id == MIGRATION_SUCCEEDED.event_id:
        return named
    # A source that takes its VM back says so without the move's id.
    return event.id == MIGRATION_FAILED.event_id and (named or not _ID.search(event.message))


def _seconds(event: Event) -> float | None:
    found = _SECONDS.search(event.message)
    return float(found[1]) if found else None


def _timeline(move: Move, told: _Told, as_of_us: int | None) -> Timeline:
    is_open = move.state not in ENDED
    # The log's times are of one clock; the record's request was noted a commit earlier.
    asked_us = told.asked_us
    if asked_us is None and move.requested_at is not None:
        asked_us = unix_us(move.requested_at)
    if asked_us is None:
        return Timeline(move, (), is_open)
    until_us = as_of_us if is_open else told.ended_us
    if until_us is None and not is_open and move.total_s is not None:
        until_us = asked_us + round(move.total_s * 1e6)
    until_us = max(filter(None, (asked_us, until_us, told.begun_us, told.ran_us)))
    if told.begun_us is None:
        # A log that has the request and the end would have the beginning, too.
        waited = move.state is MigrationState.QUEUED or None not in (told.asked_us, told.ended_us)
        phase = Phase.QUEUED if waited else Phase.UNKNOWN
        return Timeline(move, (Segment(phase, asked_us, until_us),), is_open)
    begun_us = max(told.begun_us, asked_us)
    queued = Segment(Phase.QUEUED, asked_us, begun_us)
    return Timeline(move, (queued, *_after_queue(move, told, begun_us, until_us)), is_open)


def _after_queue(move: Move, told: _Told, begun_us: int, until_us: int) -> list[Segment]:
    if told.ran_us is None:
        phase = Phase.PREPARING if move.state is MigrationState.PREPARING else Phase.UNKNOWN
        return [Segment(phase, begun_us, until_us)]
    switching = Segment(Phase.SWITCHING, told.ran_us, until_us)
    copying_s = move.brownout_s if move.brownout_s is not None else told.copying_s
    pause_s = move.blackout_s if move.blackout_s is not None else told.pause_s
    if copying_s is None or pause_s is None:
        return [Segment(Phase.UNKNOWN, begun_us, told.ran_us), switching]
    paused_us = max(told.ran_us - round(pause_s * 1e6), begun_us)
    copied_us = max(paused_us - round(copying_s * 1e6), begun_us)
    return [
        Segment(Phase.PREPARING, begun_us, copied_us),
        Segment(Phase.COPYING, copied_us, paused_us),
        Segment(Phase.BLACKOUT, paused_us, told.ran_us),
        switching,
    ]
