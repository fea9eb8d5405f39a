"""This host's own vote: promises to hosts, acknowledgements of their loss, vote sets (rules Q2, Q3, Q5).

Who is promised something is not given up for as long; whose loss was acknowledged is promised nothing until
it shows that the coordinator has granted to it since. Promises are volatile, because a voter that was started
again acknowledges nothing and changes no vote set until any that it may have given has run out.
"""

from ferry_host.commands import AnswerPromise, KeepVotes
from ferry_host.inputs import PromiseAsked, VotesKept
from ferry_host.turn import Turn
from ferry_types.messages import AcknowledgeLoss, LossAcknowledged, RecordVotes, VotesRecorded
from ferry_types.profiles import LeaseTiming
from ferry_types.quorum import Acknowledgement, Claim, VotingRecord


def on_lease_known(turn: Turn, lease_s: float) -> None:
    """What a former life may have promised has run out after ``L(1+e)`` from now, at the latest."""
    if turn.state.quiet_until_s is None:
        turn.state.quiet_until_s = turn.now + _span_s(lease_s)


def on_promise_asked(turn: Turn, event: PromiseAsked) -> None:
    """Promise a peer that its loss is not acknowledged for ``L(1+e)``, or say what is against it."""
    request = event.request
    if request.voter_uuid != turn.state.identity.uuid:
        objection = "another host is meant"
    else:
        objection = promise(turn, request.claim, request.lease_s)
    turn.do(AnswerPromise(event.reply, objection))


def promise(turn: Turn, claim: Claim, lease_s: float) -> str:
    """Give a promise; what is returned says why not, or is empty."""
    objection = turn.state.votes.objection(claim)
    if not objection:
        until_s = turn.now + _span_s(lease_s)
        turn.state.promised[claim.node] = max(until_s, turn.state.promised.get(claim.node, 0.0))
    return objection


def on_acknowledge(turn: Turn, order: AcknowledgeLoss) -> None:
    """Acknowledge a node's loss once no promise to it holds; until then the coordinator asks again."""
    state = turn.state
    if _is_quiet(turn) or turn.now < state.promised.get(order.node, 0.0):
        return
    wanted = Acknowledgement(order.node, order.incarnation, state.term, order.round)
    if wanted in state.votes_kept.acknowledged:
        _acknowledged(turn, wanted)
    else:
        keep(turn, state.votes.acknowledging(wanted))


def on_record_votes(turn: Turn, order: RecordVotes) -> None:
    """Give no promise under an older vote set any more, once none holds."""
    state = turn.state
    state.promised = {node: until for node, until in state.promised.items() if turn.now < until}
    if state.votes_kept.votes_number >= order.number:
        turn.report(VotesRecorded(order.number))
    elif not _is_quiet(turn) and not state.promised:
        keep(turn, state.votes.recording(state.term, order.number))


def keep(turn: Turn, votes: VotingRecord) -> None:
    """Act by this record from now on; what it says is answered when it is durable (rule Q3)."""
    turn.state.votes = votes
    turn.do(KeepVotes(votes))


def on_votes_kept(turn: Turn, event: VotesKept) -> None:
    """Answer what has become durable."""
    before, turn.state.votes_kept = turn.state.votes_kept, event.record
    for given in event.record.acknowledged:
        if given not in before.acknowledged:
            _acknowledged(turn, given)
    if event.record.votes_number > before.votes_number:
        turn.report(VotesRecorded(event.record.votes_number))


def _acknowledged(turn: Turn, given: Acknowledgement) -> None:
    turn.report(LossAcknowledged(given.node, given.incarnation, given.term, given.round))


def _span_s(lease_s: float) -> float:
    return LeaseTiming("promised", 0.0, lease_s).coordinator_span_s


def _is_quiet(turn: Turn) -> bool:
    return turn.state.quiet_until_s is None or turn.now < turn.state.quiet_until_s
