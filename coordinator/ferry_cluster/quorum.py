"""Who has a vote, and how that changes: by one vote at a time (rule Q5).

A new vote set takes effect once majorities of it and of the one before have recorded its number; a voter that
has, gives no promise under older ones. No change goes on beside a failover round: the round withdraws the
proposal, whose number is never used again.
"""

from dataclasses import replace

from ferry_cluster.inputs import SetQuorum
from ferry_cluster.records import NodeRecord, QuorumRecord
from ferry_cluster.state import ClusterState, Proposal
from ferry_cluster.turn import Turn
from ferry_types.errors import refused
from ferry_types.events import QUORUM_CHANGED
from ferry_types.messages import RecordVotes, VotesRecorded
from ferry_types.quorum import WITNESS, Voter, VoteSet, is_majority


def vote_set(state: ClusterState) -> VoteSet | None:
    """The vote set in effect, for hosts; None before the first."""
    record = state.quorum
    if state.vote_set is None and record.number:
        nodes = {node.uuid: node for node in state.nodes.values()}
        voters = [
            Voter(uuid, nodes[uuid].name, nodes[uuid].address) if uuid in nodes else Voter(uuid, uuid, "")
            for uuid in record.voters
        ]
        state.vote_set = VoteSet(record.number, tuple(voters), record.voting_witness)
    return state.vote_set


def wanted_votes(turn: Turn) -> tuple[tuple[str, ...], str]:
    """Who should have a vote by the era's rules: hosts' UUIDs, and the witness's address or nothing.

    Dynamic quorum (2012): nodes that are lost have none. Dynamic witness (2012 R2): it votes only beside an
    even number of nodes. Without a witness that answers, an even number leaves out the last node by name, as
    the tie-breaker of 2012 R2 leaves one out.
    """
    record, rules = turn.state.quorum, turn.settings.rules
    dynamic = record.dynamic and rules.dynamic_quorum
    stay = [node for node in turn.state.nodes.values() if node.name not in turn.state.evicting]
    nodes = sorted(stay, key=lambda node: node.name)
    uuids = [node.uuid for node in nodes if node.up or (not dynamic and node.uuid in record.voters)]
    if not dynamic:
        return tuple(sorted(uuids)), record.witness
    if not uuids:
        return (), ""
    is_even = len(uuids) % 2 == 0
    silent = turn.state.witness.is_silent(turn.now, turn.settings.timing.coordinator_span_s)
    if record.witness and (is_even or not rules.dynamic_witness) and not silent:
        return tuple(sorted(uuids)), record.witness
    return tuple(sorted(uuids[:-1] if is_even else uuids)), ""


def maintain(turn: Turn) -> None:
    """Take the votes one step further to what is wanted, if they are not."""
    state = turn.state
    if state.rounds:
        state.proposal = None
        return
    record = state.quorum
    voters, voting_witness = _next_step(turn.state, *wanted_votes(turn))
    is_wanted = (voters, voting_witness) == (record.voters, record.voting_witness)
    if is_wanted and record.highest == record.number:
        state.proposal = None
        return
    proposal = state.proposal
    if proposal is None or (proposal.voters, proposal.voting_witness) != (voters, voting_witness):
        turn.write(replace(record, highest=record.highest + 1))
        proposal = Proposal(record.highest + 1, voters, voting_witness, turn.now)
        _propose(turn, proposal)
    elif turn.now - proposal.asked_at >= turn.settings.timing.beat_s:
        _propose(turn, replace(proposal, asked_at=turn.now))
    _adopt_if_recorded(turn)


def _next_step(
    state: ClusterState, voters: tuple[str, ...], voting_witness: str
) -> tuple[tuple[str, ...], str]:
    """The vote set that differs from the present one by one vote, on the way to the wanted one.

    Whoever answers comes before the dead go, and they go before anybody who answers does: so no majority is
    ever needed of more dead than must be.
    """
    record = state.quorum
    present, present_witness = set(record.voters), record.voting_witness
    live = {node.uuid for node in state.nodes.values() if node.up}
    missing, surplus = set(voters) - present, present - set(voters)
    if missing:
        present.add(min(missing))
    elif voting_witness and not present_witness:
        present_witness = voting_witness
    elif surplus - live:
        present.remove(min(surplus - live))
    elif voting_witness != present_witness:
        present_witness = ""
    elif surplus:
        present.remove(min(surplus))
    return tuple(sorted(present)), present_witness


def _propose(turn: Turn, proposal: Proposal) -> None:
    turn.state.proposal = proposal
    if turn.settings.forced:
        return
    wanted = {*turn.state.quorum.voters, *proposal.voters} - proposal.recorded
    for node in turn.state.nodes.values():
        if node.uuid in wanted:
            turn.ask_voter(node.name, RecordVotes(proposal.number))
    turn.asks_witness = True


def on_votes_recorded(turn: Turn, node: NodeRecord, message: VotesRecorded) -> None:
    """A host has recorded a vote set."""
    record_vote(turn, node.uuid, message.number)


def record_vote(turn: Turn, vote: str, number: int) -> None:
    """Count a vote for the proposal, if it is for that one or a later one."""
    proposal = turn.state.proposal
    if proposal is not None and number >= proposal.number and vote not in proposal.recorded:
        turn.state.proposal = replace(proposal, recorded=proposal.recorded | {vote})
        _adopt_if_recorded(turn)


def _adopt_if_recorded(turn: Turn) -> None:
    proposal, record = turn.state.proposal, turn.state.quorum
    if proposal is None:
        return
    adopted = replace(
        record, number=proposal.number, voters=proposal.voters, voting_witness=proposal.voting_witness
    )
    # The first host's own vote is all that there is to begin with.
    enough = not record.votes or is_majority(proposal.recorded, record.votes)
    enough = enough and (not adopted.votes or is_majority(proposal.recorded, adopted.votes))
    if enough or turn.settings.forced:
        turn.state.proposal = None
        turn.write(adopted)
        turn.log(QUORUM_CHANGED, f"{_names(turn.state, adopted)} (vote set {adopted.number})")
        maintain(turn)


def _names(state: ClusterState, record: QuorumRecord) -> str:
    names = sorted(node.name for node in state.nodes.values() if node.uuid in record.voters)
    votes = [*names, *([WITNESS] if record.voting_witness else [])]
    return f"votes: {', '.join(votes)}" if votes else "nobody has a vote"


def on_set_quorum(turn: Turn, event: SetQuorum) -> None:
    """Keep what the admin has chosen; the votes follow one by one."""
    if event.dynamic and not turn.settings.rules.dynamic_quorum:
        why = f"a cluster of era {turn.settings.era} has no dynamic quorum"
        turn.reply(event.request, refused("era", why, "its votes are static"))
        return
    record = turn.state.quorum
    chosen = replace(
        record,
        witness=record.witness if event.witness is None else event.witness,
        dynamic=record.dynamic if event.dynamic is None else event.dynamic,
    )
    if chosen != record:
        turn.write(chosen)
        votes = "dynamic" if chosen.dynamic and turn.settings.rules.dynamic_quorum else "static"
        witness = f"a witness at {chosen.witness}" if chosen.witness else "no witness"
        turn.log(QUORUM_CHANGED, f"quorum: {votes} votes, {witness}")
    turn.reply(event.request, "quorum")
