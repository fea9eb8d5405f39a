"""Attempts that fail, before and after the final copy: who is told what, and who has his marks back."""

import asyncio
import contextlib
from typing import Any

import pytest
from tests.unit.migration import ends as two
from tests.unit.migration.ends import (
    DEADLINE_S,
    MOVE,
    Ends,
    assert_equal,
    guest_writes,
    random_memory,
)

from ferry.v1 import migration_pb2
from ferry_agent.migration.copier import PageCopier
from ferry_agent.migration.ports import MoveFailed
from ferry_agent.migration.receiver import Receiver
from ferry_agent.migration.target import MigrationServicer
from ferry_types.errors import ErrorCode, FerryError, failed, refused
from ferry_types.limits import DEVICE_STATE_BYTES_MAX

PAGES = 2000

pytestmark = pytest.mark.usefixtures("option")

two_ends = two.two_ends


# --- failures before the final copy -------------------------------------------------------------------


async def assert_runs_on(ends: Ends, marked: list[int]) -> None:
    """The source has its marks back and can move again; the target has given the first attempt up."""
    assert not ends.source.past_return
    assert set(marked) <= set(ends.memory.dirty.take().tolist())


async def test_what_the_target_refuses_fails_at_the_source_with_the_targets_words() -> None:
    memory = random_memory(8)
    guest_writes(memory, 3, 1)
    async with two_ends(memory, target_pages=16) as ends:
        with pytest.raises(MoveFailed, match="with 8 pages, this host expects vm1 under epoch 7 with 16"):
            await ends.move()
        with pytest.raises(MoveFailed, match="wrong token") as wrong:
            await ends.move(token="guessed")
        with pytest.raises(MoveFailed, match="no move other is expected here"):
            await ends.move(migration_id="other")
        with pytest.raises(MoveFailed, match="under epoch 6"):
            await ends.move(epoch=6)
        assert wrong.value.refusal.rule == "migration token"
        assert "opened" not in ends.source.reached
        assert not ends.target.outcome.done()
        await assert_runs_on(ends, [3])


async def test_a_target_of_another_protocol_version_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async def accept(_servicer: MigrationServicer, _receiver: Receiver, context: Any) -> None:
        accept = migration_pb2.MigrationAccept(protocol_version=1)
        await context.write(migration_pb2.ControlFromTarget(accept=accept))
        await context.read()

    monkeypatch.setattr(MigrationServicer, "_converse", accept)
    async with two_ends(random_memory(8)) as ends:
        with pytest.raises(MoveFailed, match="node2 speaks version 1 of the migration protocol"):
            await ends.move()


async def test_a_target_that_is_not_there_is_unreachable() -> None:
    async with two_ends(random_memory(8)) as ends:
        await ends.stop_target()
        with pytest.raises(MoveFailed) as error:
            await ends.move()
        assert error.value.refusal.code is ErrorCode.UNREACHABLE
        assert ends.address in error.value.refusal.message


async def test_the_source_says_why_before_its_streams_end() -> None:
    async with two_ends(random_memory(PAGES)) as ends:

        def fail() -> None:
            raise FerryError(failed("failpoint source.copying"))

        outcome_then = []
        ends.source.hooks["source.copying"] = fail
        ends.source.on_give_up = lambda: outcome_then.append(ends.target.outcome.done())
        with pytest.raises(MoveFailed, match="failpoint"):
            await ends.move()
        await ends.target.refusal()
        assert [reason.message for reason in ends.source.given_up] == ["failpoint source.copying"]
        assert outcome_then == [False]


@pytest.mark.parametrize("failpoint", ["source.copying", "source.arming", "source.paused"])
async def test_a_target_that_goes_away_is_noticed_at_every_point(failpoint: str) -> None:
    memory = random_memory(PAGES)
    guest_writes(memory, 3, 1)
    async with two_ends(memory) as ends:

        async def die() -> None:
            await ends.stop_target()
            await asyncio.Event().wait()  # whatever the source waits for never comes

        ends.source.hooks[failpoint] = die
        with pytest.raises(MoveFailed):
            await ends.move()
        await ends.target.refusal()
        await assert_runs_on(ends, [3])


async def test_a_host_that_may_not_send_the_final_copy_runs_on_and_may_try_again() -> None:
    memory = random_memory(PAGES)
    async with two_ends(memory) as ends:
        ends.source.return_refused = refused("lease", "the lease has run out")
        ends.source.on_pause = lambda: guest_writes(memory, 9, 1)
        with pytest.raises(MoveFailed, match="the lease has run out"):
            await ends.move()
        assert "source's" in (await ends.target.refusal()).message
        await assert_runs_on(ends, [9])
    memory = random_memory(PAGES)
    async with two_ends(memory) as again:
        await again.move()
        await again.target.device_state()
        assert_equal(again)


async def test_too_large_a_device_state_is_not_sent() -> None:
    async with two_ends(random_memory(8)) as ends:
        ends.source.state = bytes(DEVICE_STATE_BYTES_MAX + 1)
        with pytest.raises(MoveFailed, match="bytes of device state"):
            await ends.move()
        await ends.target.refusal()
        await assert_runs_on(ends, [])


@pytest.mark.parametrize(
    "failpoint", ["source.connecting", "source.copying", "source.arming", "source.paused"]
)
async def test_a_cancelled_move_gives_back_its_marks(failpoint: str) -> None:
    memory = random_memory(PAGES)
    guest_writes(memory, 3, 1)
    async with two_ends(memory) as ends:
        holding = asyncio.Event()

        async def hold() -> None:
            holding.set()
            await asyncio.Event().wait()

        ends.source.hooks[failpoint] = hold
        move = asyncio.create_task(ends.move())
        await asyncio.wait_for(holding.wait(), DEADLINE_S)
        move.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await move
        assert move.cancelled()
        if failpoint != "source.connecting":
            await ends.target.refusal()
        await assert_runs_on(ends, [3])


async def test_marks_that_are_not_given_back_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 23."""
    monkeypatch.setattr(PageCopier, "give_back", lambda _copier: None)
    with pytest.raises(AssertionError):
        await test_a_cancelled_move_gives_back_its_marks("source.copying")


async def test_a_failpoint_that_fails_ends_the_attempt() -> None:
    async with two_ends(random_memory(8)) as ends:

        def fail() -> None:
            raise FerryError(failed("failpoint source.arming"))

        ends.source.hooks["source.arming"] = fail
        with pytest.raises(MoveFailed, match=r"failpoint source\.arming"):
            await ends.move()


# --- after the final copy -----------------------------------------------------------------------------


async def test_streams_that_break_after_the_final_copy_are_reported_and_no_failure() -> None:
    async with two_ends(random_memory(8)) as ends:
        awaiting = await ends.move()
        await ends.target.device_state()
        lost = asyncio.create_task(awaiting.lost())
        await ends.stop_target()
        await asyncio.wait_for(lost, DEADLINE_S)
        assert awaiting.figures(None).blackout_s is None


async def test_waiting_for_the_outcome_can_be_cancelled_and_asked_again() -> None:
    async with two_ends(random_memory(8)) as ends:
        awaiting = await ends.move()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(awaiting.lost(), 0.01)
        await ends.target.device_state()


async def test_a_ready_target_does_not_mind_the_streams_end() -> None:
    async with two_ends(random_memory(8)) as ends:
        awaiting = await ends.move()
        state = await ends.target.device_state()
        await awaiting.close()
        await ends.streams_ended()
        assert ends.target.outcome.result() == state


async def test_an_aborted_hand_over_gives_back_its_marks_when_it_is_closed() -> None:
    memory = random_memory(8)
    guest_writes(memory, 3, 1)
    async with two_ends(memory) as ends:
        awaiting = await ends.move()
        assert memory.dirty.count() == 0
        await awaiting.close()
        assert memory.dirty.take().tolist() == [3]


async def test_memory_that_differs_is_found_by_verify() -> None:
    async with two_ends(random_memory(PAGES)) as ends:

        def damage() -> None:
            ends.target.memory.pages[17, 100] ^= 1

        ends.source.hooks["source.paused"] = damage
        awaiting = await ends.move(verify=True)
        assert (await ends.target.refusal()).message == "memory at the target differs from the source's"
        lost = await asyncio.wait_for(awaiting.lost(), DEADLINE_S)
        assert lost.message == "memory at the target differs from the source's"


async def test_a_dropped_move_ends_at_both_sides() -> None:
    async with two_ends(random_memory(8)) as ends:
        holding = asyncio.Event()

        async def hold() -> None:
            holding.set()
            await asyncio.Event().wait()

        ends.source.hooks["source.copying"] = hold
        move = asyncio.create_task(ends.move())
        await asyncio.wait_for(holding.wait(), DEADLINE_S)
        ends.servicer.drop(MOVE)
        ends.target.memory.close()
        with pytest.raises(MoveFailed, match="the target has dropped the move"):
            await move
        assert not ends.target.outcome.done()
