"""The witness, as the coordinator deals with it: it reads the record, and replaces it (rules Q3, Q4).

The witness has no clock. Whoever finds a promise in its record waits ``L(1+e)`` from its own first reading
and replaces exactly that record, by compare-and-set on its revision.
"""

from dataclasses import replace

from ferry_cluster import quorum, rounds
from ferry_cluster.commands import ReadWitness, ReplaceWitness
from ferry_cluster.inputs import WitnessAnswered, WitnessFailed
from ferry_cluster.state import WitnessView
from ferry_cluster.turn import Turn
from ferry_types.quorum import WITNESS, VotingRecord, WitnessPromise, WitnessRecord


def look(turn: Turn) -> None:
    """Read its record if a rule wants to know it, and once a beat, so that promises are seen early."""
    view, record = turn.state.witness, turn.state.quorum
    address = record.voting_witness or record.witness
    if address != view.address:
        view = WitnessView(address)
    due = turn.asks_witness or turn.now - view.asked_at >= turn.settings.timing.beat_s
    if address and due and not view.awaits_answer:
        view = replace(view, asked_at=turn.now, awaits_answer=True)
        turn.do(ReadWitness(address))
    turn.state.witness = view


def on_failed(turn: Turn, event: WitnessFailed) -> None:
    """It is asked again at the next beat."""
    view = turn.state.witness
    if event.address == view.address:
        since = turn.now if view.failing_since is None else view.failing_since
        turn.state.witness = replace(view, awaits_answer=False, failing_since=since)


def on_answered(turn: Turn, event: WitnessAnswered) -> None:
    """Count what it has kept, and have it keep what it may now.

    A record of a later term is another reign's, or of a cluster of this name in another store: hands off.
    """
    view, record = turn.state.witness, event.record
    if event.address != view.address:
        return
    if record.votes.term > turn.term:
        on_failed(turn, WitnessFailed(event.address))
        return
    known = dict(view.first_read_at)
    first_read_at = {promise: known.get(promise, turn.now) for promise in record.promises}
    turn.state.witness = replace(
        view, awaits_answer=False, failing_since=None, first_read_at=tuple(first_read_at.items())
    )
    rounds.count_kept(turn, WITNESS, record.votes)
    quorum.record_vote(turn, WITNESS, record.votes.votes_number)
    span_s = turn.settings.timing.coordinator_span_s
    run_out = [promise for promise, at in first_read_at.items() if turn.now - at >= span_s]
    votes, voided = _wanted(turn, record, run_out)
    if votes != record.votes:
        turn.state.witness = replace(turn.state.witness, asked_at=turn.now, awaits_answer=True)
        turn.do(ReplaceWitness(event.address, record.voting(votes, voided)))


def _wanted(
    turn: Turn, record: WitnessRecord, run_out: list[WitnessPromise]
) -> tuple[VotingRecord, list[WitnessPromise]]:
    """What it should keep now, and which promises that takes the place of."""
    votes, voided = record.votes, list[WitnessPromise]()
    for wanted in rounds.unanswered(turn, WITNESS):
        promises = [promise for promise in record.promises if promise.node == wanted.node]
        if all(promise in run_out for promise in promises):
            votes, voided = votes.acknowledging(wanted), [*voided, *promises]
    proposal = turn.state.proposal
    if proposal is None or len(run_out) < len(record.promises):
        return votes, voided
    if WITNESS in turn.state.quorum.votes or proposal.voting_witness:
        votes = votes.recording(turn.term, proposal.number)
    return votes, run_out
