"""The cluster core: ``handle(event, now) -> commands``.

It does no I/O, reads no clock and draws no random number; ``now`` is monotonic seconds of the
coordinator's process.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ferry_cluster import (
    admin,
    drain,
    failback,
    isolation,
    membership,
    moves,
    networks,
    ownership,
    quorum,
    requests,
    roles,
    rounds,
    witness,
)
from ferry_cluster.commands import Command
from ferry_cluster.inputs import (
    CancelMove,
    CreateVm,
    DeathCertified,
    DrainNode,
    Event,
    EvictNode,
    HostMessage,
    MigrateVm,
    PauseNode,
    RemoveVm,
    ResumeNode,
    SetPolicy,
    SetQuorum,
    SetVm,
    StreamClosed,
    Tick,
    TurnOffVm,
    TurnOnVm,
    WitnessAnswered,
    WitnessFailed,
)
from ferry_cluster.invariants import check_state
from ferry_cluster.network_views import NetworkView, network_views
from ferry_cluster.placement import Room, rate_hosts
from ferry_cluster.plans import DrainPlan, DrainView, HostRating
from ferry_cluster.records import NodeRecord, Record
from ferry_cluster.refusals import no_migration, no_network, no_node, no_vm
from ferry_cluster.state import Attendance, ClusterSettings, ClusterState
from ferry_cluster.turn import Turn
from ferry_cluster.views import (
    MigrationView,
    NodeView,
    QuorumView,
    VmView,
    drain_view,
    migration_view,
    node_view,
    quorum_view,
    vm_view,
)
from ferry_cluster.wire import wire_figures
from ferry_types.errors import FerryError, Refusal
from ferry_types.events import COORDINATOR_UP, QUORUM_FORCED
from ferry_types.messages import (
    ArmHandOff,
    IncomingPrepared,
    Join,
    LossAcknowledged,
    MigrationFailed,
    MigrationProgress,
    NicsChanged,
    OrderRefused,
    ProposeAbort,
    RaiseEpoch,
    Renewal,
    SourceReleased,
    TargetReady,
    VmRunning,
    VmStopped,
    VotesRecorded,
)
from ferry_types.migrations import TransportOption, WireFigures

__all__ = ["Cluster", "ClusterSettings"]


_REQUESTS: Mapping[type, Callable[[Turn, Any], None]] = {
    CreateVm: admin.on_create,
    SetVm: roles.on_set_vm,
    TurnOnVm: admin.on_turn_on,
    TurnOffVm: admin.on_turn_off,
    RemoveVm: admin.on_remove,
    MigrateVm: admin.on_migrate,
    CancelMove: admin.on_cancel,
    PauseNode: drain.on_pause,
    DrainNode: drain.on_drain,
    ResumeNode: drain.on_resume,
    EvictNode: admin.on_evict,
    SetPolicy: roles.on_set_policy,
    SetQuorum: quorum.on_set_quorum,
    WitnessAnswered: witness.on_answered,
    WitnessFailed: witness.on_failed,
}

_REPORTS: Mapping[type, Callable[[Turn, NodeRecord, Any], None]] = {
    Renewal: membership.on_renewal,
    VmRunning: moves.on_running,
    VmStopped: ownership.on_vm_stopped,
    OrderRefused: moves.on_order_refused,
    RaiseEpoch: ownership.on_raise_epoch,
    IncomingPrepared: moves.on_incoming_prepared,
    MigrationProgress: moves.on_progress,
    ArmHandOff: moves.on_arm,
    TargetReady: moves.on_target_ready,
    ProposeAbort: moves.on_propose_abort,
    MigrationFailed: moves.on_failed,
    SourceReleased: moves.on_source_released,
    LossAcknowledged: rounds.on_acknowledged,
    VotesRecorded: quorum.on_votes_recorded,
    NicsChanged: networks.on_nics_changed,
}


class Cluster:
    """One reign: the rules over one state. A driver feeds it and carries out what it returns."""

    def __init__(self, settings: ClusterSettings, term: int, records: Iterable[Record], now: float) -> None:
        self.settings = settings
        self.term = term
        self.state = ClusterState.from_records(records)
        self.state.last_now = now
        # Rule L5: a coordinator that started or took over judges nobody for a whole L(1+e).
        self.state.judge_after = now + settings.timing.coordinator_span_s
        for name, node in self.state.nodes.items():
            lease_until = self.state.judge_after if node.up else None
            self.state.attendance[name] = Attendance(lease_until=lease_until)

    def start(self, now: float) -> list[Command]:
        """What to do once, before the first event."""
        turn = Turn(self.settings, self.state, self.term, now)
        era, lease_s = str(self.settings.era), self.settings.timing.lease_s
        if (self.state.policy.era, self.state.policy.lease_s) != (era, lease_s):
            turn.write(replace(self.state.policy, era=era, lease_s=lease_s))
        turn.log(COORDINATOR_UP, f"the coordinator of {self.settings.cluster} is up in term {self.term}")
        if self.settings.forced:
            turn.log(QUORUM_FORCED, "quorum is overridden: lost nodes are failed over without a majority")
        return turn.commands()

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at ``now`` (seconds, never falling); the driver carries the list out in order."""
        turn = Turn(self.settings, self.state, self.term, now)
        membership.watch_clock(turn)
        if isinstance(event, HostMessage):
            self._on_host_message(turn, event)
        elif isinstance(event, StreamClosed):
            membership.on_stream_closed(turn, event.stream)
        elif isinstance(event, DeathCertified):
            membership.on_death_certified(turn, event.certificate)
        elif not isinstance(event, Tick):
            _REQUESTS[type(event)](turn, event)
        if isinstance(event, Tick):
            self._look_at_the_clock(turn, event)
        self._follow_up(turn, ticked=isinstance(event, Tick))
        return turn.commands()

    def _follow_up(self, turn: Turn, *, ticked: bool) -> None:
        """What follows from an event for others than those that it is about."""
        if ticked or turn.has_new_votes:
            membership.judge(turn)
        if ticked or turn.may_change_votes or self.state.evicting:
            quorum.maintain(turn)
            admin.finish_evictions(turn)
        if ticked or turn.asks_witness:
            witness.look(turn)
        if turn.may_free_room or (ticked and self.state.delayed):
            ownership.place_waiting(turn)
        if ticked:
            failback.send_back(turn)
        if turn.may_change_paths:
            moves.end_unreachable(turn)
        if ticked or turn.may_empty_nodes:
            drain.advance(turn)
        if turn.may_free_slots:
            moves.start_queued(turn)

    def _look_at_the_clock(self, turn: Turn, tick: Tick) -> None:
        self.state.wall_us = tick.wall_us
        isolation.end_quarantines(turn)
        isolation.isolate_silent(turn)
        isolation.empty_quarantined(turn)
        membership.admit_released(turn)

    def _on_host_message(self, turn: Turn, event: HostMessage) -> None:
        envelope = event.envelope
        if isinstance(envelope.body, Join):
            membership.on_join(turn, event.stream, envelope, envelope.body)
            return
        name = self.state.streams.get(event.stream)
        if name is None:
            self._on_vote_of_joining(turn, event)
            return
        node, present = self.state.nodes[name], self.state.attendance[name]
        # Rules L2, O3: only the present session of the admitted incarnation is heard.
        if (
            present.stream == event.stream
            and node.incarnation == envelope.incarnation
            and present.session == envelope.session
            and present.session > present.lost_session
        ):
            _REPORTS[type(envelope.body)](turn, node, envelope.body)

    def _on_vote_of_joining(self, turn: Turn, event: HostMessage) -> None:
        """A host's vote is the host's, whichever life of it is admitted."""
        envelope = event.envelope
        if isinstance(envelope.body, LossAcknowledged | VotesRecorded):
            for name, waiting in self.state.pending.items():
                sender = (waiting.stream, waiting.envelope.incarnation, waiting.envelope.session)
                if sender == (event.stream, envelope.incarnation, envelope.session):
                    _REPORTS[type(envelope.body)](turn, self.state.nodes[name], envelope.body)

    # --- reads ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise InvariantViolation if the state breaks an invariant."""
        check_state(self.state)

    def node_views(self) -> list[NodeView]:
        """All nodes, by name."""
        used = self.state.memory_used_bytes()
        return [node_view(self.state, name, used[name]) for name in sorted(self.state.nodes)]

    def node_view(self, name: str) -> NodeView:
        """One node. Raises FerryError (not found)."""
        if name not in self.state.nodes:
            raise FerryError(no_node(name))
        return node_view(self.state, name, self.state.memory_used_bytes()[name])

    def network_views(self) -> list[NetworkView]:
        """All networks, the most preferred first."""
        return network_views(self.settings, self.state)

    def network_view(self, name: str) -> NetworkView:
        """One network. Raises FerryError (not found)."""
        for view in self.network_views():
            if view.name == name:
                return view
        raise FerryError(no_network(name))

    def quorum_view(self) -> QuorumView:
        """Who has a vote."""
        return quorum_view(self.settings, self.state)

    def vm_views(self) -> list[VmView]:
        """All VMs, by name."""
        return [vm_view(self.state, name) for name in sorted(self.state.vms)]

    def vm_view(self, name: str) -> VmView:
        """One VM. Raises FerryError (not found)."""
        if name not in self.state.vms:
            raise FerryError(no_vm(name))
        return vm_view(self.state, name)

    def drain_view(self, name: str) -> DrainView | None:
        """The node's drain, until it resumes."""
        return drain_view(self.state, name)

    def drain_plan(self, node: str, to: str) -> DrainPlan:
        """What a drain would do now. Raises FerryError with what is against it."""
        planned = drain.plan(self.settings, self.state, self.state.last_now, node, to)
        if isinstance(planned, Refusal):
            raise FerryError(planned)
        return planned

    def host_ratings(self, vm: str) -> tuple[HostRating, ...]:
        """Every host with its stars for a VM, best first. Raises FerryError (not found)."""
        if vm not in self.state.vms:
            raise FerryError(no_vm(vm))
        room = Room(self.settings, self.state, self.state.last_now)
        wish = requests.wish_to_move(self.state, self.state.vms[vm])
        return rate_hosts(room, wish)

    def wire_figures(self, source: str, target: str, option: TransportOption | None) -> WireFigures | None:
        """What is known of the wire between two hosts, for moves by this option; None if nothing is."""
        return wire_figures(self.settings, self.state, source, target, option)

    def migration_views(self) -> list[MigrationView]:
        """All moves that are kept, oldest first."""
        moves_known = sorted(self.state.migrations.values(), key=lambda move: move.number)
        return [migration_view(self.settings, self.state, move.id) for move in moves_known]

    def migration_view(self, migration_id: str) -> MigrationView:
        """One move. Raises FerryError (not found)."""
        if migration_id not in self.state.migrations:
            raise FerryError(no_migration(migration_id))
        return migration_view(self.settings, self.state, migration_id)
