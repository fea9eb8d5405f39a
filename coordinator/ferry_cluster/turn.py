"""One event's turn: rules read and write the state through it, and it yields the commands.

All that one event changes in the store goes into a single guarded ``Commit``; whatever is told to
anybody comes behind it in the list (rule S2).
"""

from dataclasses import dataclass, field, replace

from ferry_cluster.commands import (
    Changed,
    CheckTerm,
    CloseStream,
    Command,
    Commit,
    Guard,
    ReadWitness,
    ReplaceWitness,
    Reply,
    Send,
)
from ferry_cluster.records import (
    DrainRecord,
    MigrationRecord,
    NodeRecord,
    Ownership,
    RaisedEpoch,
    Record,
    VmRecord,
)
from ferry_cluster.state import Attendance, ClusterSettings, ClusterState
from ferry_types.errors import Refusal
from ferry_types.events import EventKind, EventRecord
from ferry_types.messages import AcknowledgeLoss, HostOrder, RecordVotes, ToHost
from ferry_types.migrations import MigrationState

MIGRATION_TRANSITIONS: frozenset[tuple[MigrationState, MigrationState]] = frozenset(
    {
        (MigrationState.QUEUED, MigrationState.PREPARING),
        (MigrationState.QUEUED, MigrationState.FAILED),
        (MigrationState.QUEUED, MigrationState.CANCELLED),
        (MigrationState.PREPARING, MigrationState.COPYING),
        (MigrationState.PREPARING, MigrationState.FAILED),
        (MigrationState.PREPARING, MigrationState.CANCELLED),
        (MigrationState.COPYING, MigrationState.SWITCHING),
        (MigrationState.COPYING, MigrationState.FAILED),
        (MigrationState.COPYING, MigrationState.CANCELLED),
        (MigrationState.SWITCHING, MigrationState.COMPLETED),
        (MigrationState.SWITCHING, MigrationState.FAILED),
        (MigrationState.SWITCHING, MigrationState.CANCELLED),
    }
)
"""Every legal step of a move's life."""


class InvalidTransition(Exception):
    """A rule tried a step that the table does not have; the text holds the move's story."""


@dataclass(slots=True)
class Turn:
    """The handling of one event at one time."""

    settings: ClusterSettings
    state: ClusterState
    term: int
    now: float
    _before: dict[str, Record | None] = field(default_factory=dict)
    _writes: dict[str, Record | None] = field(default_factory=dict)
    _events: list[EventRecord] = field(default_factory=list)
    asks_witness: bool = False
    """Whether a rule wants to know the witness's record."""
    has_new_votes: bool = False
    """Whether a voter has answered in a failover round."""
    ended_moves: list[MigrationRecord] = field(default_factory=list)
    """Moves that have ended in this turn, as they were before."""
    _check_term: bool = False
    _told: list[Command] = field(default_factory=list)
    _changed: dict[str, set[str]] = field(
        default_factory=lambda: {"node": set(), "vm": set(), "migration": set()}
    )

    # --- what the store keeps ---------------------------------------------------------------------

    def write(self, record: Record) -> None:
        """Keep a record; ownership and raised epochs are compared with what they were before."""
        self._guard(record)
        self._writes[record.key] = record
        self.state.put(record)
        self.touch(record)

    def delete(
        self, record: NodeRecord | VmRecord | Ownership | RaisedEpoch | MigrationRecord | DrainRecord
    ) -> None:
        """Forget a record."""
        self._guard(record)
        self._writes[record.key] = None
        match record:
            case NodeRecord():
                del self.state.nodes[record.name]
                self.state.vote_set = None
                self.state.network_metrics = None
            case VmRecord():
                self.state.forget_vm(record.spec.name)
            case Ownership():
                del self.state.owners[record.vm]
            case RaisedEpoch():
                del self.state.raised[record.vm]
            case MigrationRecord():
                del self.state.migrations[record.id]
            case DrainRecord():
                del self.state.drains[record.node]
        self.touch(record)

    def _guard(self, record: Record) -> None:
        """Compare ownership and raised epochs with what they were before this turn."""
        if record.key in self._before:
            return
        if isinstance(record, Ownership):
            self._before[record.key] = self.state.owners.get(record.vm)
        elif isinstance(record, RaisedEpoch):
            self._before[record.key] = self.state.raised.get(record.vm)

    def log(self, kind: EventKind, message: str, node: str = "", vm: str = "") -> None:
        """Add a row to the event log."""
        self._events.append(EventRecord(kind, message, node, vm))

    def move_to(self, move: MigrationRecord, state: MigrationState, reason: str = "") -> MigrationRecord:
        """Take a move to its next state. Raises InvalidTransition if the table does not have the step."""
        if (move.state, state) not in MIGRATION_TRANSITIONS:
            raise InvalidTransition(f"{move.id} of {move.vm}: {move.state} -> {state} ({reason}); {move}")
        changed = replace(move, state=state, reason=reason or move.reason)
        self.write(changed)
        return changed

    # --- what is forgotten at a restart -----------------------------------------------------------

    def attend(self, node: str, present: Attendance) -> None:
        """Note a node's presence."""
        self.state.attendance[node] = present
        self._changed["node"].add(node)

    # --- what others are told ---------------------------------------------------------------------

    def do(self, command: ReadWitness | ReplaceWitness) -> None:
        """Have the driver ask the witness."""
        self._told.append(command)

    def order(self, node: str, body: ToHost) -> None:
        """Send an order to the present session of a node; without a stream, reconciliation will repeat it."""
        present = self.state.attendance.get(node)
        if present is None or present.stream is None:
            return
        self.tell(present.stream, self.state.nodes[node].incarnation, present.session, body)

    def ask_voter(self, node: str, body: AcknowledgeLoss | RecordVotes) -> None:
        """Send a voter's question to a node, or to its new life that waits in joining."""
        waiting = self.state.pending.get(node)
        if waiting is None:
            self.order(node, body)
        else:
            self.tell(waiting.stream, waiting.envelope.incarnation, waiting.envelope.session, body)

    def tell(self, stream: int, incarnation: str, session: int, body: ToHost) -> None:
        """Send an order to whoever is on this stream."""
        self._told.append(Send(stream, HostOrder(self.term, incarnation, session, body)))

    def needs_term(self) -> None:
        """Nothing of this turn is told before the term was seen to be the store's still (rules S2, L3)."""
        self._check_term = True

    def close(self, stream: int, reason: Refusal) -> None:
        """End a stream."""
        self.state.streams.pop(stream, None)
        self._told.append(CloseStream(stream, reason))

    def reply(self, request: int, result: str | MigrationRecord | Refusal) -> None:
        """Answer an admin."""
        self._told.append(Reply(request, result))

    def answer_waiting(self, what: str, vm: str, result: str | Refusal) -> None:
        """Answer everybody who waits for the VM to be ``on`` or ``off``."""
        for request in self.state.waiting.pop((what, vm), ()):
            self.reply(request, result)

    def touch(self, record: Record) -> None:
        """Mark an object as changed for watchers."""
        match record:
            case NodeRecord():
                self._changed["node"].add(record.name)
            case DrainRecord():
                self._changed["node"].add(record.node)
            case VmRecord():
                self._changed["vm"].add(record.spec.name)
            case Ownership():
                self._changed["vm"].add(record.vm)
                for node in (record.node, getattr(self._before.get(record.key), "node", None)):
                    if node is not None:
                        self._changed["node"].add(node)
            case MigrationRecord():
                self._changed["migration"].add(record.id)
                self._changed["vm"].add(record.vm)
                # It takes memory on both its hosts, and gives it back on one when it ends.
                self._changed["node"] |= {record.source, record.target}

    def touch_vm(self, vm: str) -> None:
        """Mark a VM as changed although no record of it is."""
        self._changed["vm"].add(vm)

    def touch_migration(self, migration_id: str) -> None:
        """Mark a move as changed although its record is not."""
        self._changed["migration"].add(migration_id)

    @property
    def may_change_votes(self) -> bool:
        """Whether other votes might be wanted now: a node, or what an admin has chosen, has changed."""
        return any(key.startswith(("node/", "quorum")) for key in self._writes)

    @property
    def may_change_paths(self) -> bool:
        """Whether a network might have been cut now: a node has changed."""
        return any(key.startswith("node/") for key in self._writes)

    @property
    def may_free_room(self) -> bool:
        """Whether a VM without a host might get one now: a record or a node's presence has changed."""
        return bool(self._writes or self._changed["node"])

    @property
    def may_empty_nodes(self) -> bool:
        """Whether a VM might leave its node now: a record, a node's presence or what runs has changed."""
        return bool(self._writes or self._changed["node"] or self._changed["vm"])

    @property
    def may_free_slots(self) -> bool:
        """Whether a queued move might start now: a move, an owner or what runs has changed."""
        return bool(self._changed["migration"] or self._changed["vm"] or self._changed["node"])

    def commands(self) -> list[Command]:
        """The list for the driver."""
        result: list[Command] = []
        if self._writes or self._events:
            result.append(
                Commit(
                    term=self.term,
                    guards=tuple(Guard(key, before) for key, before in self._before.items()),
                    writes=tuple(record for record in self._writes.values() if record is not None),
                    deletes=tuple(key for key, record in self._writes.items() if record is None),
                    events=tuple(self._events),
                )
            )
        elif self._check_term:
            result.append(CheckTerm(self.term))
        result.extend(self._told)
        if any(self._changed.values()):
            result.append(
                Changed(
                    nodes=frozenset(self._changed["node"]),
                    vms=frozenset(self._changed["vm"]),
                    migrations=frozenset(self._changed["migration"]),
                )
            )
        return result
