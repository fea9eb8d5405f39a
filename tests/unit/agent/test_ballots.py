"""A host's vote is given once it is kept: in the order of the core, or not at all, and over a restart."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ferry_agent.ballots import VOTES_NAME, Ballots, read_votes
from ferry_host import commands, inputs
from ferry_types.errors import ErrorCode, FerryError
from ferry_types.quorum import Acknowledgement, Claim, PromiseRequest, VotingRecord
from ferry_wire.files import write_durably

RECORDS = [
    VotingRecord(2**63, number, (Acknowledgement("u2", "life2", 3, number),)) for number in range(1, 6)
]
REQUEST = PromiseRequest("u1", 2.0, Claim("u2", "life2", 3, 0, 1))
PATIENCE_S = 5.0


class Core:
    """What the host's core would be told, in order."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[inputs.Event] = asyncio.Queue()

    async def next(self) -> inputs.Event:
        return await asyncio.wait_for(self.told.get(), PATIENCE_S)


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
async def ballots(tmp_path: Path, core: Core) -> AsyncIterator[Ballots]:
    made = Ballots(tmp_path, core.told.put_nowait)
    yield made
    await made.close()


async def test_what_was_kept_is_there_after_a_restart(tmp_path: Path, ballots: Ballots, core: Core) -> None:
    assert read_votes(tmp_path) is None
    ballots.keep(commands.KeepVotes(RECORDS[0]))
    assert await core.next() == inputs.VotesKept(RECORDS[0])
    assert read_votes(tmp_path) == RECORDS[0]


async def test_a_vote_is_kept_before_it_is_said_to_be(
    tmp_path: Path, ballots: Ballots, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()

    def slow(path: Path, text: str) -> None:
        assert may_write.wait(PATIENCE_S)
        write_durably(path, text)

    monkeypatch.setattr("ferry_agent.ballots.write_durably", slow)
    ballots.keep(commands.KeepVotes(RECORDS[0]))
    await asyncio.sleep(0.05)
    assert core.told.empty()
    may_write.set()
    assert await core.next() == inputs.VotesKept(RECORDS[0])


async def test_records_are_kept_in_the_order_of_the_core(
    tmp_path: Path, ballots: Ballots, core: Core
) -> None:
    for record in RECORDS:
        ballots.keep(commands.KeepVotes(record))
    assert [await core.next() for _ in RECORDS] == [inputs.VotesKept(record) for record in RECORDS]
    assert read_votes(tmp_path) == RECORDS[-1]


async def test_what_a_full_disk_did_not_take_is_not_said_to_be_kept(
    tmp_path: Path, ballots: Ballots, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = iter((False, True))

    def write(path: Path, text: str) -> None:
        if not next(room):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_durably(path, text)

    monkeypatch.setattr("ferry_agent.ballots.write_durably", write)
    for record in RECORDS[:2]:
        ballots.keep(commands.KeepVotes(record))
    assert await core.next() == inputs.VotesKept(RECORDS[1])
    assert read_votes(tmp_path) == RECORDS[1]


@pytest.mark.parametrize(
    "damaged", ["", "{", "[]", '{"votes": 3}', '{"term": -1}', '{"acknowledged": [{"round": "x"}]}']
)
def test_a_voter_that_has_forgotten_may_not_vote(tmp_path: Path, damaged: str) -> None:
    (tmp_path / VOTES_NAME).write_text(damaged, encoding="utf-8")
    with pytest.raises(FerryError) as raised:
        read_votes(tmp_path)
    assert raised.value.refusal.code is ErrorCode.FAILED
    assert str(tmp_path / VOTES_NAME) in raised.value.refusal.message
    assert "evict" in raised.value.refusal.hint


async def test_a_record_that_an_earlier_version_wrote_is_read(tmp_path: Path) -> None:
    (tmp_path / VOTES_NAME).write_text('{"term": "9", "votesNumber": "4"}', encoding="utf-8")
    assert read_votes(tmp_path) == VotingRecord(9, 4)


async def test_a_peer_is_answered_by_the_core(ballots: Ballots, core: Core) -> None:
    first, second = (asyncio.ensure_future(ballots.promise(REQUEST)) for _ in range(2))
    asked = [await core.next(), await core.next()]
    replies = [event.reply for event in asked if isinstance(event, inputs.PromiseAsked)]
    assert len(set(replies)) == 2
    ballots.answer(commands.AnswerPromise(replies[1], "no"))
    ballots.answer(commands.AnswerPromise(replies[0], ""))
    assert (await first, await second) == ("", "no")


async def test_nothing_is_left_when_it_closes(tmp_path: Path, core: Core) -> None:
    made = Ballots(tmp_path, core.told.put_nowait)
    await made.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
