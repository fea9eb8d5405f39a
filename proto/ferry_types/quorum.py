"""Votes: who has one, what a voter keeps, and which requests its record refuses (rules Q1 to Q5).

A voter is a host, which has a clock and keeps its promises in memory, or the witness, which has neither: it
keeps a record that others read and replace.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

WITNESS = "witness"
"""Name of the witness's vote; the names of hosts' votes are their UUIDs."""


@dataclass(frozen=True, slots=True)
class Voter:
    """A host with a vote. ``address``: host:port of its services, empty if it is not known."""

    uuid: str
    name: str
    address: str


@dataclass(frozen=True, slots=True)
class VoteSet:
    """Who has a vote. ``witness``: its address if it has one, else empty. Numbers rise from 1."""

    number: int
    voters: tuple[Voter, ...]
    witness: str

    @property
    def votes(self) -> frozenset[str]:
        """The votes' names."""
        names = frozenset(voter.uuid for voter in self.voters)
        return names | {WITNESS} if self.witness else names


def is_majority(given: Collection[str], votes: Collection[str]) -> bool:
    """Whether these votes are more than half of all; there is no majority of none."""
    return 2 * len(set(given) & set(votes)) > len(votes)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A voter's word that this life of a host gets no promise: its VMs may be failed over (rule Q2)."""

    node: str
    incarnation: str
    term: int
    round: int


@dataclass(frozen=True, slots=True)
class Claim:
    """What a host shows a voter when it asks for a promise: itself, and what its last grant said."""

    node: str
    incarnation: str
    term: int
    abandoned_round: int
    votes_number: int


@dataclass(frozen=True, slots=True)
class PromiseRequest:
    """Asks one voter to acknowledge no loss of a host for ``L(1+e)`` (rule Q1)."""

    voter_uuid: str
    lease_s: float
    claim: Claim


@dataclass(frozen=True, slots=True)
class VotingRecord:
    """What a voter must still know after it has died (rule Q3). ``term``: the highest that it has seen."""

    term: int = 0
    votes_number: int = 0
    acknowledged: tuple[Acknowledgement, ...] = ()

    def objection(self, claim: Claim) -> str:
        """Why a host gets no promise, in words; empty: nothing here is against it.

        An acknowledgement stands until the host shows a grant of a later term, or one that abandons that
        round or a later one (rule Q2).
        """
        if claim.votes_number < self.votes_number:
            return f"vote set {claim.votes_number} has been replaced by {self.votes_number}"
        for given in self.acknowledged:
            if (given.node, given.incarnation) == (claim.node, claim.incarnation) and (
                (claim.term, claim.abandoned_round) < (given.term, given.round)
            ):
                return f"its loss was acknowledged in round {given.round} of term {given.term}"
        return ""

    def acknowledging(self, given: Acknowledgement) -> "VotingRecord":
        """With an acknowledgement; of two against one host, that of the later round is kept."""
        same = [known for known in self.acknowledged if known.node == given.node]
        latest = max((given, *same), key=lambda known: (known.term, known.round))
        others = [known for known in self.acknowledged if known.node != given.node]
        acknowledged = tuple(sorted((*others, latest), key=lambda known: known.node))
        return replace(self, term=max(self.term, given.term), acknowledged=acknowledged)

    def recording(self, term: int, votes_number: int) -> "VotingRecord":
        """With a vote set's number."""
        return replace(self, term=max(self.term, term), votes_number=max(self.votes_number, votes_number))


@dataclass(frozen=True, slots=True)
class WitnessPromise:
    """A promise in the witness's record. The number is never used twice (rule Q4)."""

    node: str
    incarnation: str
    number: int


@dataclass(frozen=True, slots=True)
class WitnessRecord:
    """All that a witness keeps of a cluster; replaced as a whole by compare-and-set on the revision.

    A promise stands until somebody who has seen that very number for ``L(1+e)`` has replaced it.
    """

    revision: int
    votes: VotingRecord
    promises: tuple[WitnessPromise, ...]

    def promising(self, claim: Claim) -> "WitnessRecord":
        """What is to replace it so that a host has a new promise."""
        others = [known for known in self.promises if known.node != claim.node]
        promise = WitnessPromise(claim.node, claim.incarnation, self.revision + 1)
        promises = tuple(sorted((*others, promise), key=lambda known: known.node))
        return WitnessRecord(self.revision + 1, self.votes, promises)

    def voting(self, votes: VotingRecord, run_out: Collection[WitnessPromise]) -> "WitnessRecord":
        """What is to replace it so that it keeps these votes, and not the promises that have run out."""
        promises = tuple(promise for promise in self.promises if promise not in run_out)
        return WitnessRecord(self.revision + 1, votes, promises)


NO_VOTES = VotingRecord()
"""What a voter has kept that was never asked."""

NO_RECORD = WitnessRecord(0, NO_VOTES, ())
"""What a witness keeps of a cluster that it has not heard of."""
