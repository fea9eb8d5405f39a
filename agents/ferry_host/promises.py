"""How a host that has lost the coordinator extends its lease (rule Q1).

It asks every vote of the set that its last grant named; a majority of promises extends the lease, counted
from the sending. A lease that has run out is never revived: by then the poll is forgotten. Nor does a host
extend its lease by nobody's word but its own: a later life of it may hold that vote by now.
"""

from dataclasses import replace

from ferry_host import voter
from ferry_host.commands import AskPromise, ReadWitness, ReplaceWitness, SetDeadline
from ferry_host.inputs import PromiseAnswered, WitnessRead, WitnessReplaced
from ferry_host.state import Poll
from ferry_host.turn import Turn
from ferry_types.profiles import PROMISE_AFTER_BEATS
from ferry_types.quorum import WITNESS, PromiseRequest, WitnessRecord, is_majority


def ask_if_due(turn: Turn) -> None:
    """Ask for promises if grants have stayed away; each poll is a fresh round."""
    state = turn.state
    claim, votes, timing = state.claim, state.vote_set, state.timing
    if state.deadline_s is None or claim is None or votes is None or timing is None:
        return
    if votes.number != claim.votes_number:
        return
    if turn.now - state.extended_from_s < PROMISE_AFTER_BEATS * timing.beat_s:
        return
    poll = state.poll = Poll(state.next_poll, turn.now, claim, votes)
    state.next_poll += 1
    for each in votes.voters:
        if each.uuid == state.identity.uuid:
            if not voter.promise(turn, claim, timing.lease_s):
                _count(turn, poll, each.uuid)
        elif each.address:
            turn.do(AskPromise(poll.number, each, PromiseRequest(each.uuid, timing.lease_s, claim)))
    if votes.witness:
        turn.do(ReadWitness(poll.number, votes.witness))


def on_answered(turn: Turn, event: PromiseAnswered) -> None:
    """Count a promise of the present poll."""
    poll = turn.state.poll
    if poll is not None and poll.number == event.poll and not event.objection:
        _count(turn, poll, event.voter_uuid)


def on_witness_read(turn: Turn, event: WitnessRead) -> None:
    """Write a promise into the witness's record, if nothing in it is against that."""
    poll = turn.state.poll
    if poll is not None and poll.number == event.poll:
        _write(turn, poll, event.record)


def on_witness_replaced(turn: Turn, event: WitnessReplaced) -> None:
    """The witness has promised; or somebody else was first, and it is tried again."""
    poll = turn.state.poll
    if poll is None or poll.number != event.poll:
        return
    if event.replaced:
        _count(turn, poll, WITNESS)
    else:
        _write(turn, poll, event.record)


def _write(turn: Turn, poll: Poll, record: WitnessRecord) -> None:
    """Try to replace this record, once: an answer that comes twice leads to no second attempt."""
    wanted = record.promising(poll.claim)
    if wanted.revision > poll.tried and not record.votes.objection(poll.claim):
        turn.state.poll = replace(poll, tried=wanted.revision)
        turn.do(ReplaceWitness(poll.number, poll.votes.witness, wanted))


def _count(turn: Turn, poll: Poll, vote: str) -> None:
    poll = replace(poll, given=poll.given | {vote})
    turn.state.poll = poll
    others = poll.given - {turn.state.identity.uuid}
    if others and is_majority(poll.given, poll.votes.votes):
        turn.state.poll = None
        extend(turn, poll.sent_at_s)


def extend(turn: Turn, sent_at_s: float) -> None:
    """The lease holds until ``L(1-e)`` after that was sent (rule L1)."""
    state = turn.state
    assert state.timing is not None
    deadline_s = sent_at_s + state.timing.host_span_s
    if deadline_s > turn.now and (state.deadline_s is None or deadline_s > state.deadline_s):
        state.deadline_s = deadline_s
        state.extended_from_s = sent_at_s
        turn.do(SetDeadline(deadline_s))
