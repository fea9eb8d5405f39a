"""A host's vote and its promises from others, as the lists of commands that events lead to."""

from typing import Any

from ferry_host import commands, inputs
from ferry_host.host import Host
from ferry_host.state import HostIdentity
from ferry_types.messages import (
    AcknowledgeLoss,
    Grant,
    HostOrder,
    Join,
    LossAcknowledged,
    RecordVotes,
    Renewal,
    VotesRecorded,
    Wait,
    Welcome,
)
from ferry_types.profiles import PROFILES, PROMISE_AFTER_BEATS
from ferry_types.quorum import (
    NO_RECORD,
    Acknowledgement,
    Claim,
    PromiseRequest,
    Voter,
    VoteSet,
    VotingRecord,
    WitnessRecord,
)
from ferry_types.vms import Capacity

FAST = PROFILES["fast"]
SPAN_S = FAST.coordinator_span_s
VOTES = VoteSet(4, (Voter("uuid", "h", "x:1"), Voter("u2", "h2", "x:3"), Voter("u3", "h3", "x:5")), "")
WITNESSED = VoteSet(5, VOTES.voters[:2], "w:1")
PEER = Claim("h2", "life-2", 1, 0, 4)


class Bench:
    """A host core that is welcome, driven by hand; ``votes``: what a former life has kept."""

    def __init__(self, votes: VotingRecord | None = None) -> None:
        self.now = 100.0
        identity = HostIdentity("h", "uuid", "life", "x:1", "x:2", Capacity(2**30, 2, 2), "0")
        self.host = Host(identity, votes)
        self.handle(inputs.Connected())
        self.order(Welcome("c", FAST.beat_s, FAST.lease_s, "2012r2"))

    def handle(self, event: inputs.Event) -> list[commands.Command]:
        done = self.host.handle(event, self.now)
        for command in done:
            if isinstance(command, commands.KeepVotes):
                done = [*done, *self.handle(inputs.VotesKept(command.record))]
        return done

    def order(self, body: Any, term: int = 1) -> list[commands.Command]:
        return self.handle(inputs.OrderReceived(HostOrder(term, "life", self.host.state.session, body)))

    def renew(self, votes: VoteSet = VOTES, abandoned_round: int = 0) -> None:
        [renewal] = [body for body in reports(self.handle(inputs.Beat())) if isinstance(body, Renewal)]
        self.order(Grant(renewal.seq, abandoned_round, votes.number, votes))

    def poll(self) -> list[commands.Command]:
        """Let grants stay away for as long as this host bears."""
        self.now += PROMISE_AFTER_BEATS * FAST.beat_s
        return [done for done in self.handle(inputs.Beat()) if not isinstance(done, commands.Report)]

    def ask(self, claim: Claim = PEER, voter_uuid: str = "uuid") -> str:
        """What is against a promise to a peer."""
        [answer] = self.handle(inputs.PromiseAsked(7, PromiseRequest(voter_uuid, FAST.lease_s, claim)))
        assert isinstance(answer, commands.AnswerPromise)
        assert answer.reply == 7
        return answer.objection


def reports(done: list[commands.Command]) -> list[Any]:
    return [command.envelope.body for command in done if isinstance(command, commands.Report)]


# --- promises from others -------------------------------------------------------------------------


def test_a_majority_of_promises_extends_the_lease_from_the_asking() -> None:
    bench = Bench()
    bench.renew()
    first, second = bench.poll()
    asked_at = bench.now
    assert isinstance(first, commands.AskPromise)
    assert isinstance(second, commands.AskPromise)
    assert (first.voter.uuid, second.voter.uuid) == ("u2", "u3")
    assert first.request == PromiseRequest("u2", FAST.lease_s, Claim("h", "life", 1, 0, 4))
    bench.now += 0.3
    assert bench.handle(inputs.PromiseAnswered(first.poll, "u2", "no")) == []
    assert bench.handle(inputs.PromiseAnswered(first.poll - 1, "u2", "")) == []
    done = bench.handle(inputs.PromiseAnswered(first.poll, "u3", ""))
    assert done == [commands.SetDeadline(asked_at + FAST.host_span_s)]
    assert bench.handle(inputs.PromiseAnswered(first.poll, "u2", "")) == [], "one extension a poll"


def test_no_promise_revives_a_lapsed_lease() -> None:
    bench = Bench()
    bench.renew()
    asked, *_ = bench.poll()
    assert isinstance(asked, commands.AskPromise)
    bench.now += FAST.lease_s
    done = bench.handle(inputs.PromiseAnswered(asked.poll, "u2", ""))
    assert done[0] == commands.SetDeadline(None, "it had lost the coordinator, and 1 of 3 votes promised")
    [join] = reports(done)
    assert isinstance(join, Join)
    assert join.paused_because == "it had lost the coordinator, and 1 of 3 votes promised"
    assert bench.host.state.deadline_s is None
    assert bench.poll() == [], "nothing is asked without a grant of this session"


def test_nobody_asks_while_grants_come() -> None:
    bench = Bench()
    for _ in range(20):
        bench.renew()
        bench.now += FAST.beat_s
        asked = [c for c in bench.handle(inputs.Beat()) if isinstance(c, commands.AskPromise)]
        assert not asked


def test_nobody_asks_under_a_vote_set_that_it_has_not_been_told() -> None:
    bench = Bench()
    bench.renew()
    [renewal] = [body for body in reports(bench.handle(inputs.Beat())) if isinstance(body, Renewal)]
    bench.order(Grant(renewal.seq, 0, VOTES.number + 1, None))
    assert bench.poll() == []


def test_its_own_vote_alone_extends_nothing() -> None:
    bench = Bench()
    bench.renew(VoteSet(1, VOTES.voters[:1], ""))
    assert bench.poll() == []


def test_the_witness_is_read_and_replaced_again_when_somebody_was_first() -> None:
    bench = Bench()
    bench.renew(WITNESSED)
    _, read = bench.poll()
    assert isinstance(read, commands.ReadWitness)
    [replaced] = bench.handle(inputs.WitnessRead(read.poll, NO_RECORD))
    assert isinstance(replaced, commands.ReplaceWitness)
    assert replaced.record == NO_RECORD.promising(Claim("h", "life", 1, 0, 5))
    other = NO_RECORD.promising(PEER)
    [again] = bench.handle(inputs.WitnessReplaced(read.poll, False, other))
    assert isinstance(again, commands.ReplaceWitness)
    assert again.record.revision == 2
    assert {promise.node for promise in again.record.promises} == {"h", "h2"}
    assert [promise.number for promise in again.record.promises] == [2, 1]
    [extended] = bench.handle(inputs.WitnessReplaced(read.poll, True, again.record))
    assert isinstance(extended, commands.SetDeadline)


def test_a_witness_that_has_acknowledged_its_loss_promises_nothing() -> None:
    bench = Bench()
    bench.renew(WITNESSED)
    _, read = bench.poll()
    assert isinstance(read, commands.ReadWitness)
    against = WitnessRecord(3, VotingRecord().acknowledging(Acknowledgement("h", "life", 1, 1)), ())
    assert bench.handle(inputs.WitnessRead(read.poll, against)) == []


# --- its own vote ---------------------------------------------------------------------------------


def test_an_acknowledgement_is_durable_before_it_is_answered() -> None:
    bench = Bench()
    order = HostOrder(1, "life", bench.host.state.session, AcknowledgeLoss("h2", "life-2", 3))
    given = Acknowledgement("h2", "life-2", 1, 3)
    [keep] = bench.host.handle(inputs.OrderReceived(order), bench.now)
    assert keep == commands.KeepVotes(VotingRecord(1, 0, (given,)))
    assert bench.ask() != "", "it acts by it at once"
    [again] = bench.host.handle(inputs.OrderReceived(order), bench.now)
    assert again == keep, "what was not kept is tried again"
    answer = LossAcknowledged("h2", "life-2", 1, 3)
    assert reports(bench.handle(inputs.VotesKept(VotingRecord(1, 0, (given,))))) == [answer]
    assert reports(bench.host.handle(inputs.OrderReceived(order), bench.now)) == [answer]


def test_whose_loss_was_acknowledged_is_promised_nothing_until_it_was_granted_to_since() -> None:
    bench = Bench()
    bench.order(AcknowledgeLoss("h2", "life-2", 3), term=2)
    assert "round 3 of term 2" in bench.ask(Claim("h2", "life-2", 2, 2, 4))
    assert "round 3 of term 2" in bench.ask(Claim("h2", "life-2", 1, 9, 4))
    assert bench.ask(Claim("h2", "life-2", 2, 3, 4)) == ""
    assert bench.ask(Claim("h2", "life-2", 3, 0, 4)) == ""
    assert bench.ask(Claim("h2", "life-3", 1, 0, 4)) == "", "another life is meant"


def test_an_acknowledgement_of_an_earlier_round_takes_no_later_ones_place() -> None:
    bench = Bench()
    bench.order(AcknowledgeLoss("h2", "life-2", 3))
    bench.order(AcknowledgeLoss("h2", "life-2", 2))
    assert bench.ask(Claim("h2", "life-2", 1, 2, 4)) != ""


def test_who_is_promised_something_is_not_given_up_for_as_long() -> None:
    bench = Bench()
    assert bench.ask() == ""
    for order in (AcknowledgeLoss("h2", "life-2", 1), RecordVotes(5)):
        bench.now += 0.9 * SPAN_S / 2
        assert bench.order(order) == []
    assert reports(bench.order(AcknowledgeLoss("h3", "life-3", 2))), "of another it may speak"
    bench.now += 0.11 * SPAN_S
    assert reports(bench.order(AcknowledgeLoss("h2", "life-2", 1)))
    assert reports(bench.order(RecordVotes(5))) == [VotesRecorded(5)]


def test_a_promise_to_itself_counts_like_any_other() -> None:
    bench = Bench()
    bench.renew()
    bench.poll()
    assert bench.order(RecordVotes(5)) == []


def test_a_vote_set_that_was_recorded_ends_promises_under_older_ones() -> None:
    bench = Bench()
    assert reports(bench.order(RecordVotes(5))) == [VotesRecorded(5)]
    assert "vote set 4 has been replaced by 5" in bench.ask()
    assert bench.ask(Claim("h2", "life-2", 1, 0, 5)) == ""
    assert reports(bench.order(RecordVotes(5))) == [VotesRecorded(5)], "a repeat is answered"


def test_a_voter_that_was_started_again_is_quiet_for_a_while_but_may_promise() -> None:
    given = Acknowledgement("h3", "life-3", 4, 1)
    bench = Bench(VotingRecord(4, 4, (given,)))
    bench.order(Welcome("c", FAST.beat_s, FAST.lease_s, "2012r2"), term=4)
    for order in (AcknowledgeLoss("h2", "life-2", 1), RecordVotes(5)):
        assert bench.order(order, term=4) == []
    assert bench.ask() == ""
    assert "acknowledged" in bench.ask(Claim("h3", "life-3", 4, 0, 4)), "what it has kept still holds"
    bench.now += SPAN_S
    assert reports(bench.order(AcknowledgeLoss("h4", "life-4", 2), term=4))
    assert bench.order(AcknowledgeLoss("h4", "life-4", 2), term=3) == [], "the term that it has seen counts"


def test_a_host_that_waits_in_joining_votes() -> None:
    bench = Bench(VotingRecord(1, 4, ()))
    bench.host.state.quiet_until_s = None
    bench.order(Wait("its former life may run", FAST.lease_s))
    bench.now += SPAN_S
    assert reports(bench.order(AcknowledgeLoss("h2", "life-2", 1)))


def test_the_highest_term_that_it_has_seen_is_kept() -> None:
    bench = Bench()
    done = bench.order(Welcome("c", FAST.beat_s, FAST.lease_s, "2012r2"), term=9)
    assert commands.KeepVotes(VotingRecord(9, 0, ())) in done


def test_another_hosts_uuid_is_not_answered_for() -> None:
    assert Bench().ask(voter_uuid="u9") == "another host is meant"
