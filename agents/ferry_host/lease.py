"""The host's side of its lease (rules L1, L2, L4, Q1).

The deadline counts from *sending* the renewal. When it has passed, whatever was to be done first closes
the gate, holds every VM and begins a new session; nothing of the old session counts any more.
"""

from dataclasses import replace

from ferry_host import images, moves, promises, voter
from ferry_host.commands import HoldVcpu, SetBeat, SetDeadline
from ferry_host.inputs import NicsTurned
from ferry_host.state import INCOMING
from ferry_host.turn import Turn
from ferry_types.errors import failed
from ferry_types.messages import ArmHandOff, Grant, Join, NicsChanged, ProposeAbort, Renewal, Wait, Welcome
from ferry_types.profiles import LeaseTiming
from ferry_types.quorum import Claim, VoteSet
from ferry_types.vms import ImagePhase

_HELD = frozenset({ImagePhase.BOOTING, ImagePhase.RAISING, ImagePhase.RUNNING, ImagePhase.SWITCHING})
"""An image that awaits the outcome of a hand-off needs no hold: only an order can make it run."""


def check_deadline(turn: Turn) -> None:
    """First thing in every turn: has the lease run out?"""
    if turn.state.deadline_s is not None and turn.now >= turn.state.deadline_s:
        turn.state.deadline_s = None
        if (poll := turn.state.poll) is not None:
            others = poll.votes.votes - {turn.state.identity.uuid}
            promised = f"{len(poll.given & poll.votes.votes)} of {len(poll.votes.votes)} votes promised"
            why = promised if others else "there is no other vote than its own"
            turn.state.paused_because = f"it had lost the coordinator, and {why}"
        turn.do(SetDeadline(None, turn.state.paused_because))
        _begin_session(turn)


def on_connected(turn: Turn) -> None:
    """Join. A host that comes without a lease comes in a new session: the coordinator may have judged it."""
    turn.state.connected = True
    turn.state.welcome = False
    if turn.state.deadline_s is None:
        _begin_session(turn)
    else:
        _join(turn)


def _begin_session(turn: Turn) -> None:
    state = turn.state
    given_up = []
    for image in list(state.images.values()):
        if image.phase in INCOMING:
            images.remove(turn, image)
        elif image.phase in _HELD:
            turn.do(HoldVcpu(image.name))
            held = turn.put(replace(image, held=True))
            if held.outgoing is not None:
                given_up.append(held.outgoing.migration_id)
                moves.give_up_outgoing(turn, held)
    state.session += 1
    state.sent_at.clear()
    state.claim = state.poll = None
    state.welcome = False
    _join(turn)
    for migration_id in given_up:
        turn.end_move(migration_id, failed("the lease of the source's host ran out"))


def _join(turn: Turn) -> None:
    """Say who is here and what it holds."""
    state = turn.state
    if not state.connected:
        return
    identity = state.identity
    turn.report(
        Join(
            identity.name,
            identity.uuid,
            identity.address,
            identity.echo_address,
            identity.capacity,
            identity.version,
            tuple(state.images[name].report() for name in sorted(state.images)),
            state.paused_because,
            state.nics_down,
        )
    )


def on_nics_turned(turn: Turn, event: NicsTurned) -> None:
    """NICs went down or came up: the coordinator chooses other networks. A join repeats it."""
    turn.state.nics_down = event.down
    turn.report(NicsChanged(event.down))


def on_welcome(turn: Turn, welcome: Welcome) -> None:
    """Begin to renew, and repeat what a broken stream may have swallowed."""
    state = turn.state
    state.welcome = True
    state.paused_because = ""
    state.timing = LeaseTiming("granted", welcome.beat_s, welcome.lease_s)
    voter.on_lease_known(turn, welcome.lease_s)
    if state.term > state.votes.term:
        voter.keep(turn, state.votes.recording(state.term, state.votes.votes_number))
    turn.do(SetBeat(welcome.beat_s, welcome.era, welcome.cluster, welcome.networks))
    if state.identity.capacity.nics:  # a join that has waited is out of date
        turn.report(NicsChanged(state.nics_down))
    for image in list(state.images.values()):
        if image.phase is ImagePhase.RUNNING and not image.held and image.ran_at_s is not None:
            turn.report(image.running(image.ran_at_s))
        if image.outgoing is None:
            continue
        if image.outgoing.broken:
            turn.report(ProposeAbort(image.outgoing.migration_id, image.outgoing.broken))
        elif image.phase is ImagePhase.RUNNING and image.outgoing.switch_due:
            turn.report(ArmHandOff(image.outgoing.migration_id))


def on_wait(turn: Turn, wait: Wait) -> None:
    """A former life of this host may still run; this one's vote counts all the same."""
    voter.on_lease_known(turn, wait.lease_s)


def on_beat(turn: Turn) -> None:
    """Ask for another stretch: the coordinator, and the voters if it has not answered for a while."""
    state = turn.state
    if state.connected and state.welcome and state.timing is not None:
        _renew(turn, state.timing)
    promises.ask_if_due(turn)


def _renew(turn: Turn, timing: LeaseTiming) -> None:
    state = turn.state
    oldest_useful = turn.now - timing.lease_s
    state.sent_at = {seq: at for seq, at in state.sent_at.items() if at > oldest_useful}
    state.sent_at[state.next_seq] = turn.now
    turn.report(Renewal(state.next_seq))
    state.next_seq += 1


def on_grant(turn: Turn, grant: Grant) -> None:
    """The lease is extended from that renewal on, and the host has something new to show to voters."""
    state = turn.state
    if grant.votes is not None:
        _learn(turn, grant.votes)
    sent_at = state.sent_at.pop(grant.seq, None)
    if sent_at is None:
        return
    identity = state.identity
    state.claim = Claim(
        identity.name, identity.incarnation, state.term, grant.abandoned_round, grant.votes_number
    )
    state.poll = None
    promises.extend(turn, sent_at)


def _learn(turn: Turn, votes: VoteSet) -> None:
    """Keep the newest vote set, or the newest addresses in it."""
    known = turn.state.vote_set
    if known is None or votes.number >= known.number:
        turn.state.vote_set = votes
