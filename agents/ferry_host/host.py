"""The host core: ``handle(event, now) -> commands``.

It does no I/O, reads no clock and draws no random number; ``now`` is monotonic seconds of this host.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ferry_host import images, inputs, lease, moves, promises, voter
from ferry_host.commands import Command
from ferry_host.state import HostIdentity, HostState
from ferry_host.turn import Turn
from ferry_types import messages
from ferry_types.messages import HostOrder
from ferry_types.quorum import VotingRecord

_EVENTS: Mapping[type, Callable[[Turn, Any], None]] = {
    inputs.NicsTurned: lease.on_nics_turned,
    inputs.Booted: images.on_booted,
    inputs.BootFailed: images.on_boot_failed,
    inputs.Halted: images.on_halted,
    inputs.QuantumRan: images.on_quantum_ran,
    inputs.GuestCrashed: images.on_guest_crashed,
    inputs.IncomingAllocated: moves.on_allocated,
    inputs.IncomingComplete: moves.on_complete,
    inputs.IncomingFailed: moves.on_incoming_failed,
    inputs.OutgoingProgress: moves.on_progress,
    inputs.SwitchDue: moves.on_switch_due,
    inputs.FinalCopyDue: moves.on_final_due,
    inputs.OutgoingFailed: moves.on_outgoing_failed,
    inputs.SourceGone: moves.on_source_gone,
    inputs.PromiseAsked: voter.on_promise_asked,
    inputs.VotesKept: voter.on_votes_kept,
    inputs.PromiseAnswered: promises.on_answered,
    inputs.WitnessRead: promises.on_witness_read,
    inputs.WitnessReplaced: promises.on_witness_replaced,
}

_ORDERS: Mapping[type, Callable[[Turn, Any], None]] = {
    messages.Welcome: lease.on_welcome,
    messages.Wait: lease.on_wait,
    messages.Grant: lease.on_grant,
    messages.StartVm: images.on_start,
    messages.StopVm: images.on_stop,
    messages.GoOn: images.on_go_on,
    messages.DiscardVm: images.on_discard,
    messages.EpochRaised: images.on_epoch_raised,
    messages.PrepareIncoming: moves.on_prepare,
    messages.BeginOutgoing: moves.on_begin,
    messages.Armed: moves.on_armed,
    messages.CancelMigration: moves.on_cancel,
    messages.RunVm: moves.on_run,
    messages.TargetRuns: moves.on_target_runs,
    messages.ResumeSource: moves.on_resume,
    messages.AcknowledgeLoss: voter.on_acknowledge,
    messages.RecordVotes: voter.on_record_votes,
}


class Host:
    """The rules of one host over one state. An agent feeds it and carries out what it returns."""

    def __init__(self, identity: HostIdentity, votes: VotingRecord | None = None) -> None:
        """``votes``: what a former life has kept; None if there was none, or it has never had a vote."""
        self.state = HostState(identity)
        if votes is not None:
            self.state.votes = self.state.votes_kept = votes
            self.state.term = votes.term
            self.state.quiet_until_s = None

    def handle(self, event: inputs.Event, now: float) -> list[Command]:
        """Take one event at ``now`` (monotonic seconds, never falling)."""
        turn = Turn(self.state, now)
        lease.check_deadline(turn)
        match event:
            case inputs.Connected():
                lease.on_connected(turn)
            case inputs.Disconnected():
                self.state.connected = False
                self.state.welcome = False
            case inputs.OrderReceived():
                self._on_order(turn, event.order)
            case inputs.Beat():
                lease.on_beat(turn)
            case inputs.LeaseTimer():
                pass  # the deadline was checked above
            case _:
                _EVENTS[type(event)](turn, event)
        return turn.commands

    def _on_order(self, turn: Turn, order: HostOrder) -> None:
        state = self.state
        # Rule L2: orders of another incarnation or session are refused; so are those of a former reign.
        if (order.incarnation, order.session) != (state.identity.incarnation, state.session):
            return
        if order.term < state.term:
            return
        state.term = order.term
        _ORDERS[type(order.body)](turn, order.body)
