"""Rounds, vote sets and the witness at the coordinator, as the lists of commands that events lead to."""

from dataclasses import replace
from typing import Any

from tests.unit.cluster.core_bench import FAST, LOST_AFTER_S, Bench, commit_of, orders

from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import CheckTerm, Command, ReadWitness, ReplaceWitness, Reply
from ferry_cluster.inputs import DeathCertified, SetQuorum, Tick, WitnessAnswered, WitnessFailed
from ferry_cluster.records import QuorumRecord
from ferry_types.eras import Era
from ferry_types.errors import Refusal
from ferry_types.events import NO_MAJORITY, QUORUM_FORCED, QUORUM_LOST
from ferry_types.messages import (
    AcknowledgeLoss,
    DeathCertificate,
    Grant,
    LossAcknowledged,
    RecordVotes,
    Renewal,
    VotesRecorded,
)
from ferry_types.quorum import NO_RECORD, NO_VOTES, Acknowledgement, WitnessPromise, WitnessRecord
from ferry_types.vms import NodeState

ADDRESS = "w:1"


class Voters(Bench):
    """Hosts that record every vote set that they are asked to; losses they acknowledge by hand."""

    def __init__(self, hosts: int = 3, era: Era = Era.WS2012R2) -> None:
        super().__init__(hosts, era, forced=False)

    def handle(self, event: Any) -> list[Command]:
        done = super().handle(event)
        asked = [
            (number, order.number)
            for number in range(1, 9)
            for order in orders(done, number)
            if isinstance(order, RecordVotes)
        ]
        for number, votes in asked:
            done = [*done, *self.say(number, VotesRecorded(votes))]
        return done

    @property
    def votes(self) -> frozenset[str]:
        return self.cluster.state.quorum.votes

    def let_run_out(self, *renewing: int, seconds: float = LOST_AFTER_S + FAST.beat_s) -> list[Command]:
        """Time goes by until all leases but of these have run out; the last list of commands."""
        end, done = self.now + seconds, []
        while self.now < end:
            self.now = min(end, self.now + FAST.beat_s)
            for number in renewing:
                self.say(number, Renewal(int(self.now * 1000)))
            done = self.handle(Tick())
        return done

    def acknowledge(self, voter: int, node: int, round_number: int = 1, term: int = 1) -> list[Command]:
        return self.say(voter, LossAcknowledged(f"h{node}", f"life-{node}", term, round_number))

    def is_up(self, number: int) -> bool:
        return self.cluster.state.nodes[f"h{number}"].up


def test_a_node_is_lost_when_a_majority_has_acknowledged_exactly_this_round() -> None:
    bench = Voters(3)
    bench.let_run_out(1, 2)
    assert bench.is_up(3)
    assert bench.cluster.node_view("h3").state is NodeState.DOWN
    assert bench.cluster.quorum_view().under_judgement == ("h3",)
    bench.acknowledge(1, 3)
    for stale in ({"round_number": 2}, {"term": 2}, {"node": 2}):
        bench.acknowledge(2, **{"node": 3, **stale})
    assert bench.is_up(3), "one of three votes"
    bench.acknowledge(1, 3)
    assert bench.is_up(3), "a repeat is no second vote"
    bench.acknowledge(2, 3)
    assert not bench.is_up(3)


def test_voters_are_asked_again_each_beat_and_a_renewal_ends_the_round() -> None:
    bench = Voters(3)
    bench.let_run_out(1, 2)
    bench.now += FAST.beat_s
    done = bench.handle(Tick())
    assert CheckTerm(1) in done, "whoever has been replaced finds out"
    asked = AcknowledgeLoss("h3", "life-3", 1)
    assert asked in orders(done, 1)
    assert asked in orders(done, 2)
    assert not orders(done, 3), "nobody is asked about itself"
    bench.acknowledge(1, 3)
    bench.now += FAST.beat_s
    assert asked not in orders(bench.handle(Tick()), 1), "who has answered is not asked again"
    [grant] = orders(bench.say(3, Renewal(9)), 3)
    assert isinstance(grant, Grant)
    assert grant.abandoned_round == 1
    bench.acknowledge(2, 3)
    assert bench.is_up(3)
    bench.let_run_out(1, 2)
    bench.acknowledge(2, 3)
    assert bench.is_up(3), "the answer was to round 1, and this is round 2"
    for voter in (1, 2):
        bench.acknowledge(voter, 3, 2)
    assert not bench.is_up(3)


def test_a_minority_gives_nobody_up() -> None:
    bench = Voters(3)
    bench.let_run_out(1)
    bench.acknowledge(1, 2)
    bench.acknowledge(1, 3, 2)
    bench.let_run_out(1)
    assert bench.is_up(2)
    assert bench.is_up(3)


def test_the_host_that_holds_the_only_vote_is_given_up_by_nobody() -> None:
    bench = Voters(1)
    assert bench.votes == {"uuid-1"}
    end, said = bench.now + 5 * LOST_AFTER_S, []
    while bench.now < end:
        bench.now += FAST.beat_s
        said += [event for event in events(bench.handle(Tick())) if event.kind is NO_MAJORITY]
    assert bench.is_up(1)
    [once] = said
    assert "there is no majority" in once.message


def test_a_reign_that_is_forced_asks_nobody_and_says_so() -> None:
    bench = Bench(3, forced=True)
    assert any(
        event.kind is QUORUM_FORCED
        for event in events(Cluster(bench.settings, 2, [], bench.now).start(bench.now))
    )
    bench.wait(LOST_AFTER_S)
    assert not bench.cluster.state.nodes["h3"].up


# --- vote sets ------------------------------------------------------------------------------------


def test_the_vote_set_changes_by_one_vote_and_its_number_is_stored_before_anybody_is_asked() -> None:
    bench = Bench(3, forced=False)
    first = bench.cluster.state.proposal
    assert first is not None
    assert (first.voters, first.number) == (("uuid-1",), 1)
    assert bench.cluster.state.quorum == QuorumRecord(highest=1)
    done = bench.say(1, VotesRecorded(1))
    [stored] = [record for record in commit_of(done).writes if isinstance(record, QuorumRecord)]
    assert (stored.number, stored.voters, stored.highest) == (1, ("uuid-1",), 2)
    assert orders(done, 1) == orders(done, 2) == [RecordVotes(2)]
    bench.say(1, VotesRecorded(2))
    assert bench.cluster.state.quorum.number == 1, "of two votes it takes both"
    bench.say(2, VotesRecorded(2))
    assert bench.cluster.state.quorum.voters == ("uuid-1", "uuid-2")


def test_no_vote_set_changes_during_a_round_and_a_withdrawn_number_is_not_used_again() -> None:
    bench = Voters(3)
    before = bench.cluster.state.quorum
    bench.let_run_out(1, 2)
    withdrawn = bench.cluster.state.quorum.highest
    bench.handle(SetQuorum(5, ADDRESS, False))
    bench.now += FAST.beat_s
    bench.say(1, Renewal(80_000))
    assert bench.cluster.state.proposal is None
    assert bench.cluster.state.quorum.voters == before.voters
    bench.say(3, Renewal(81_000))
    bench.handle(Tick())
    bench.handle(WitnessAnswered(ADDRESS, NO_RECORD))
    assert bench.cluster.state.quorum.highest > withdrawn


def test_grants_tell_of_a_vote_set_once_and_of_its_number_always() -> None:
    bench = Voters(3)
    [grant] = orders(bench.say(1, Renewal(70)), 1)
    assert grant.votes is not None
    assert grant.votes.number == grant.votes_number
    [again] = orders(bench.say(1, Renewal(71)), 1)
    assert (again.votes, again.votes_number) == (None, grant.votes_number)


def test_dynamic_votes_are_refused_in_an_era_without_them() -> None:
    bench = Voters(2, Era.WS2008R2)
    [reply] = [c for c in bench.handle(SetQuorum(5, None, True)) if isinstance(c, Reply)]
    assert isinstance(reply.result, Refusal)
    assert reply.result.rule == "era"


def test_a_voter_whose_name_was_taken_by_another_host_counts_until_the_votes_have_changed() -> None:
    bench = Bench(3, forced=False)
    for number in range(1, 7):
        for voter in (1, 2, 3):
            bench.say(voter, VotesRecorded(number))
    assert bench.cluster.state.quorum.voters == ("uuid-1", "uuid-2", "uuid-3")
    bench.handle(DeathCertified(DeathCertificate("h2", "life-2", "killed")))
    bench.join(2, stream=7, uuid="uuid-9", life="life-9")
    [grant] = orders(bench.say(1, Renewal(70)), 1)
    assert [voter.address for voter in grant.votes.voters] == ["127.0.0.1:1", "", "127.0.0.1:1"]
    assert len(grant.votes.votes) == 3


def test_a_host_that_paused_for_want_of_a_majority_is_in_the_log() -> None:
    bench = Voters(2)
    done = bench.join(1, session=2, paused_because="it had lost the coordinator, and 1 of 3 votes promised")
    [event] = [event for event in events(done) if event.kind is QUORUM_LOST]
    assert (event.node, event.kind.event_id) == ("h1", 1177)


# --- the witness ----------------------------------------------------------------------------------


def witnessed() -> Voters:
    """Two hosts and a witness with a vote."""
    bench = Voters(2)
    bench.handle(SetQuorum(5, ADDRESS, None))
    record = NO_RECORD
    for _ in range(9):
        bench.now += FAST.beat_s
        for number in (1, 2):
            bench.say(number, Renewal(int(bench.now * 1000)))
        bench.handle(Tick())
        for replaced in replacing(bench.handle(WitnessAnswered(ADDRESS, record))):
            record = replaced.record
    bench.handle(WitnessAnswered(ADDRESS, record))
    assert bench.votes == {"uuid-1", "uuid-2", "witness"}
    return bench


def test_whoever_finds_a_promise_at_the_witness_waits_from_its_own_first_reading() -> None:
    bench = witnessed()
    kept = replace(NO_VOTES, term=1, votes_number=bench.cluster.state.quorum.number)
    promise = WitnessPromise("h1", "life-1", 9)
    record = WitnessRecord(9, kept, (promise,))
    bench.let_run_out(2)
    assert not replacing(bench.handle(WitnessAnswered(ADDRESS, record)))
    bench.let_run_out(2, seconds=LOST_AFTER_S - 0.1)
    assert not replacing(bench.handle(WitnessAnswered(ADDRESS, record)))
    bench.let_run_out(2, seconds=0.2)
    newer = replace(record, revision=10, promises=(replace(promise, number=10),))
    assert not replacing(bench.handle(WitnessAnswered(ADDRESS, newer))), "another promise: from the beginning"
    bench.let_run_out(2)
    [command] = replacing(bench.handle(WitnessAnswered(ADDRESS, newer)))
    round_number = bench.cluster.state.rounds["h1"].number
    wanted = Acknowledgement("h1", "life-1", 1, round_number)
    assert command.record.revision == 11
    assert command.record.promises == ()
    assert command.record.votes.acknowledged == (wanted,)
    bench.handle(WitnessAnswered(ADDRESS, command.record))
    bench.say(2, Renewal(90_000))
    bench.acknowledge(2, 1, round_number)
    assert not bench.is_up(1)


def test_promises_of_others_stay_when_a_loss_is_acknowledged() -> None:
    bench = witnessed()
    bench.let_run_out(2)
    other = WitnessPromise("h2", "life-2", 9)
    kept = replace(NO_VOTES, term=1, votes_number=bench.cluster.state.quorum.number)
    [command] = replacing(bench.handle(WitnessAnswered(ADDRESS, WitnessRecord(9, kept, (other,)))))
    assert command.record.promises == (other,)


def test_a_record_of_a_later_term_is_left_alone_and_counts_as_silence() -> None:
    bench = witnessed()
    bench.let_run_out(2)
    later = WitnessRecord(50, replace(NO_VOTES, term=7, votes_number=99), ())
    assert not replacing(bench.handle(WitnessAnswered(ADDRESS, later)))
    assert bench.cluster.state.witness.failing_since is not None


def test_a_witness_is_read_once_a_beat_and_never_twice_at_a_time() -> None:
    bench = witnessed()
    bench.now += FAST.beat_s
    assert [c for c in bench.handle(Tick()) if isinstance(c, ReadWitness)] == [ReadWitness(ADDRESS)]
    bench.now += FAST.beat_s
    assert not [c for c in bench.handle(Tick()) if isinstance(c, ReadWitness)]
    bench.handle(WitnessFailed(ADDRESS))
    assert [c for c in bench.handle(Tick()) if isinstance(c, ReadWitness)] == [ReadWitness(ADDRESS)]
    bench.handle(WitnessFailed(ADDRESS))
    assert not [c for c in bench.handle(Tick()) if isinstance(c, ReadWitness)]


def replacing(done: list[Command]) -> list[ReplaceWitness]:
    return [command for command in done if isinstance(command, ReplaceWitness)]


def events(done: list[Command]) -> list[Any]:
    return [event for command in done for event in getattr(command, "events", ())]
