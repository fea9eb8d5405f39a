"""Failover rounds: a node without a death certificate is given up by a majority (rules Q1, Q2).

A round stays open, and voters are asked again, until a majority has acknowledged it or the node has renewed
its lease. Rounds need not survive the coordinator: a new reign begins a new term.
"""

from dataclasses import replace

from ferry_cluster.records import NodeRecord
from ferry_cluster.state import FailoverRound
from ferry_cluster.turn import Turn
from ferry_types.events import NO_MAJORITY
from ferry_types.messages import AcknowledgeLoss, LossAcknowledged
from ferry_types.quorum import Acknowledgement, VotingRecord, is_majority


def put_to_vote(turn: Turn, node: NodeRecord) -> bool:
    """Ask who has not acknowledged that node's loss, and tell whether a majority has.

    Nobody is asked in a reign that an admin has forced.
    """
    if turn.settings.forced:
        return True
    state, beat_s = turn.state, turn.settings.timing.beat_s
    known = state.rounds.get(node.name)
    if known is None:
        state.round_number += 1
        _ask(turn, node, FailoverRound(state.round_number, node.incarnation, turn.now))
        votes = state.quorum.votes
        if not is_majority(votes - {node.uuid}, votes):
            why = f"{node.name} holds votes without which there is no majority: its VMs stay where they are"
            turn.log(NO_MAJORITY, why, node.name)
    elif is_majority(known.acknowledged, state.quorum.votes):
        return True
    elif turn.now - known.asked_at >= beat_s:
        _ask(turn, node, replace(known, asked_at=turn.now))
    return False


def verdict(turn: Turn, node: str) -> str:
    """Who has acknowledged a loss, in words; nothing where nobody was asked."""
    given = turn.state.acknowledged_by(node)
    return f", and {given} acknowledge its loss" if given else ""


def _ask(turn: Turn, node: NodeRecord, open_round: FailoverRound) -> None:
    """Ask who has not answered; for the node's own vote only a later life of it."""
    state = turn.state
    state.rounds[node.name] = open_round
    state.proposal = None  # rule Q5: the vote set never changes during a round
    silent = set(state.quorum.voters) - open_round.acknowledged
    if node.name not in state.pending:
        silent -= {node.uuid}
    for voter in state.nodes.values():
        if voter.uuid in silent:
            turn.ask_voter(voter.name, AcknowledgeLoss(node.name, open_round.incarnation, open_round.number))
    turn.asks_witness = True
    turn.needs_term()  # whoever has been replaced finds out
    turn.attend(node.name, state.attendance[node.name])


def close(turn: Turn, node: str) -> None:
    """The node has renewed, or is lost: the round is over, and no answer to it counts any more."""
    turn.state.rounds.pop(node, None)


def on_acknowledged(turn: Turn, voter: NodeRecord, message: LossAcknowledged) -> None:
    """Count an answer to exactly this round of this term."""
    given = Acknowledgement(message.node, message.incarnation, message.term, message.round)
    _count(turn, voter.uuid, given)


def count_kept(turn: Turn, vote: str, votes: VotingRecord) -> None:
    """Count what a voter's record says about open rounds."""
    for given in votes.acknowledged:
        _count(turn, vote, given)


def _count(turn: Turn, vote: str, given: Acknowledgement) -> None:
    known = turn.state.rounds.get(given.node)
    if known is not None and _wanted(turn, given.node, known) == given:
        turn.state.rounds[given.node] = replace(known, acknowledged=known.acknowledged | {vote})
        turn.has_new_votes = True


def unanswered(turn: Turn, vote: str) -> list[Acknowledgement]:
    """What a voter of the present set is still asked for."""
    if vote not in turn.state.quorum.votes:
        return []
    return [
        _wanted(turn, node, known)
        for node, known in turn.state.rounds.items()
        if vote not in known.acknowledged
    ]


def _wanted(turn: Turn, node: str, known: FailoverRound) -> Acknowledgement:
    return Acknowledgement(node, known.incarnation, turn.term, known.number)
