"""Bugs planted in votes, rounds and promises; hosts that reach only some of the voters must notice.

As in ``test_planted_bugs``, a plant takes out as many guards as it needs for the rule to be gone.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.simulation.test_planted_bugs import SEEDS, Plant, is_noticed

from ferry_cluster import quorum, rounds, witness
from ferry_cluster.commands import Command, Commit
from ferry_cluster.inputs import Event, HostMessage
from ferry_cluster.records import NodeRecord
from ferry_cluster.state import FailoverRound
from ferry_cluster.turn import Turn as ClusterTurn
from ferry_host import host as host_module
from ferry_host import lease, promises
from ferry_host.commands import SetDeadline
from ferry_host.host import Host
from ferry_host.inputs import PromiseAnswered
from ferry_host.state import HostIdentity, Poll
from ferry_host.turn import Turn as HostTurn
from ferry_sim.network import Network
from ferry_sim.processes import Agent, Reign
from ferry_sim.store import CheckedStore
from ferry_sim.storm import PAIR, SHORT, VOTES, Course
from ferry_sim.world import World
from ferry_types.messages import Grant, HostOrder, Renewal
from ferry_types.quorum import (
    Acknowledgement,
    Claim,
    VotingRecord,
    WitnessPromise,
    WitnessRecord,
    is_majority,
)

# --- rounds ---------------------------------------------------------------------------------------


def a_grant_while_the_failover_is_in_flight(patch: pytest.MonkeyPatch) -> None:
    """Trap 1: the store takes its time over a failover, and renewals of that node are granted meanwhile."""
    commit, submit = World._commit, World.submit
    in_flight: dict[str, Commit] = {}

    def commit_late(world: World, reign: Reign, command: Commit, rest: list[Command]) -> bool:
        lost = [record.name for record in command.writes if isinstance(record, NodeRecord) and not record.up]
        if not lost or command in in_flight.values():
            return commit(world, reign, command, rest)
        in_flight.update(dict.fromkeys(lost, command))

        def finish() -> None:
            world._carry_out(reign, [command, *rest])
            for name in lost:
                in_flight.pop(name, None)

        world.clockwork.later(1.0, lambda: reign.do(finish))
        return False

    def grant(world: World, reign: Reign, event: Event) -> None:
        if isinstance(event, HostMessage) and isinstance(event.envelope.body, Renewal):
            stream = next((one for one in world.network.streams if one.number == event.stream), None)
            if stream is not None and stream.agent.name in in_flight and reign.alive:
                envelope = event.envelope
                body = Grant(event.envelope.body.seq, 10**6)
                order = HostOrder(reign.term, envelope.incarnation, envelope.session, body)
                world.network.to_host(event.stream, order)
        submit(world, reign, event)

    patch.setattr(World, "_commit", commit_late)
    patch.setattr(World, "submit", grant)


def a_commit_under_a_passed_term(patch: pytest.MonkeyPatch) -> None:
    """Trap 2: the store compares epochs, but not the term."""
    commit = CheckedStore.commit

    def compare_epochs(store: CheckedStore, command: Commit) -> bool:
        if any(store.records.get(guard.key) != guard.expected for guard in command.guards):
            return False
        return commit(store, replace(command, term=store.term))

    patch.setattr(CheckedStore, "commit", compare_epochs)
    patch.setattr(ClusterTurn, "needs_term", lambda _turn: None)


def votes_released_by_the_next_term(patch: pytest.MonkeyPatch) -> None:
    """Trap 4: a voter that hears of a later term forgets its acknowledgements; and rounds outlive terms."""
    recording = VotingRecord.recording

    def forget(record: VotingRecord, term: int, votes_number: int) -> VotingRecord:
        released = replace(record, acknowledged=()) if term > record.term else record
        return recording(released, term, votes_number)

    patch.setattr(VotingRecord, "recording", forget)
    a_commit_under_a_passed_term(patch)


def an_acknowledgement_forgotten_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    """Trap 5."""
    init = Host.__init__

    def forget(host: Host, identity: HostIdentity, votes: VotingRecord | None = None) -> None:
        init(host, identity, None if votes is None else replace(votes, acknowledged=()))

    patch.setattr(Host, "__init__", forget)


def an_answer_to_an_abandoned_round_counted(patch: pytest.MonkeyPatch) -> None:
    """Trap 6: whichever round it answers."""

    def count(turn: ClusterTurn, vote: str, given: Acknowledgement) -> None:
        known = turn.state.rounds.get(given.node)
        if known is not None and known.incarnation == given.incarnation:
            turn.state.rounds[given.node] = replace(known, acknowledged=known.acknowledged | {vote})
            turn.has_new_votes = True

    close = rounds.close

    def keep_votes(turn: ClusterTurn, node: str) -> None:
        former = turn.state.rounds.get(node)
        close(turn, node)
        if former is not None and turn.state.nodes[node].up:
            earlier[node] = former.acknowledged

    ask = rounds._ask
    earlier: dict[str, frozenset[str]] = {}

    def ask_again(turn: ClusterTurn, node: NodeRecord, open_round: FailoverRound) -> None:
        acknowledged = open_round.acknowledged | earlier.get(node.name, frozenset())
        ask(turn, node, replace(open_round, acknowledged=acknowledged))

    patch.setattr(rounds, "_count", count)
    patch.setattr(rounds, "close", keep_votes)
    patch.setattr(rounds, "_ask", ask_again)


# --- promises -------------------------------------------------------------------------------------


def a_witness_promise_overwritten_at_once(patch: pytest.MonkeyPatch) -> None:
    """Trap 7: whoever finds one does not wait."""
    wanted = witness._wanted

    def overwrite(
        turn: ClusterTurn, record: WitnessRecord, _run_out: list[WitnessPromise]
    ) -> tuple[VotingRecord, list[WitnessPromise]]:
        return wanted(turn, record, list(record.promises))

    patch.setattr(witness, "_wanted", overwrite)


def a_promise_that_revives_a_lapsed_lease(patch: pytest.MonkeyPatch) -> None:
    """Trap 8: the poll outlives the lease, and its answers count from their arrival."""
    check_deadline = lease.check_deadline
    polls: dict[str, Poll] = {}

    def keep_poll(turn: HostTurn) -> None:
        poll = turn.state.poll
        check_deadline(turn)
        if poll is not None and turn.state.poll is None:
            polls[turn.state.identity.incarnation] = poll

    def revive(turn: HostTurn, event: PromiseAnswered) -> None:
        poll = polls.get(turn.state.identity.incarnation)
        if turn.state.poll is None and poll is not None and poll.number == event.poll:
            turn.state.poll = poll
        promises.on_answered(turn, event)

    def extend_from_now(turn: HostTurn, _sent_at_s: float) -> None:
        assert turn.state.timing is not None
        turn.state.extended_from_s = turn.now
        turn.state.deadline_s = turn.now + turn.state.timing.host_span_s
        turn.do(SetDeadline(turn.state.deadline_s))

    patch.setattr(lease, "check_deadline", keep_poll)
    patch.setitem(host_module._EVENTS, PromiseAnswered, revive)
    patch.setattr(promises, "extend", extend_from_now)


def acknowledgements_beside_a_promise(patch: pytest.MonkeyPatch) -> None:
    """Rule Q2: a voter acknowledges the loss of a host that it has just promised not to give up."""
    keep = Host.handle

    def forget_promises(host: Host, event: object, now: float) -> object:
        host.state.promised.clear()
        return keep(host, event, now)  # type: ignore[arg-type]

    patch.setattr(Host, "handle", forget_promises)


def a_promise_to_a_host_whose_loss_was_acknowledged(patch: pytest.MonkeyPatch) -> None:
    """Rule Q2, the other way round."""

    def no_objection(_record: VotingRecord, _claim: Claim) -> str:
        return ""

    patch.setattr(VotingRecord, "objection", no_objection)


def a_restarted_voter_that_is_not_quiet(patch: pytest.MonkeyPatch) -> None:
    """Rule Q3: its former life may have promised."""
    init = Host.__init__

    def speak(host: Host, identity: HostIdentity, votes: VotingRecord | None = None) -> None:
        init(host, identity, votes)
        host.state.quiet_until_s = 0.0

    patch.setattr(Host, "__init__", speak)


# --- vote sets and orders -------------------------------------------------------------------------


def two_vote_set_changes_at_once(patch: pytest.MonkeyPatch) -> None:
    """Trap 19: all changes together, and nobody asks the majority of the votes before them."""

    def jump(_state: object, voters: tuple[str, ...], voting_witness: str) -> tuple[tuple[str, ...], str]:
        return voters, voting_witness

    adopt = quorum._adopt_if_recorded

    def adopt_by_the_new(turn: ClusterTurn) -> None:
        proposal, before = turn.state.proposal, turn.state.quorum
        if proposal is not None:
            new = replace(before, voters=proposal.voters, voting_witness=proposal.voting_witness)
            if is_majority(proposal.recorded, new.votes):
                turn.state.proposal = replace(proposal, recorded=proposal.recorded | before.votes)
        adopt(turn)

    patch.setattr(quorum, "_next_step", jump)
    patch.setattr(quorum, "_adopt_if_recorded", adopt_by_the_new)


def an_order_that_reaches_a_restarted_incarnation(patch: pytest.MonkeyPatch) -> None:
    """Trap 11: it is delivered to whoever bears the host's name by then, and obeyed."""
    to_host, on_order = Network.to_host, Host._on_order

    def to_name(network: Network, number: int, order: HostOrder) -> None:
        stream = network._streams.get(number)
        if stream is not None:
            world = network._ends
            assert isinstance(world, World)
            present: Agent = world.agents[stream.agent.name]
            if not stream.agent.alive and present.alive:
                network._clockwork.later(0.1, lambda: present.do(lambda: world.obey(present, order)))
        to_host(network, number, order)

    def obey(host: Host, turn: HostTurn, order: HostOrder) -> None:
        state = host.state
        on_order(host, turn, replace(order, incarnation=state.identity.incarnation, session=state.session))

    patch.setattr(Network, "to_host", to_name)
    patch.setattr(Host, "_on_order", obey)


PLANTS: list[tuple[Plant, Course]] = [
    (a_grant_while_the_failover_is_in_flight, VOTES),
    (a_commit_under_a_passed_term, SHORT),
    (votes_released_by_the_next_term, VOTES),
    (an_acknowledgement_forgotten_at_a_restart, VOTES),
    (an_answer_to_an_abandoned_round_counted, VOTES),
    (a_witness_promise_overwritten_at_once, PAIR),
    (a_promise_that_revives_a_lapsed_lease, VOTES),
    (acknowledgements_beside_a_promise, VOTES),
    (a_promise_to_a_host_whose_loss_was_acknowledged, VOTES),
    (a_restarted_voter_that_is_not_quiet, VOTES),
    (two_vote_set_changes_at_once, VOTES),
    (an_order_that_reaches_a_restarted_incarnation, SHORT),
]


@pytest.mark.parametrize(("plant", "course"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_planted_bug_is_noticed(
    plant: Callable[[pytest.MonkeyPatch], None], course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert any(is_noticed(seed, course) for seed in SEEDS)
