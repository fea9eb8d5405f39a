"""Help to converge, with a guest on a vCPU of its own that writes twice as fast as the wire carries."""

import asyncio

import pytest
from tests.unit.migration.ends import EPOCH, MOVE, TOKEN, VM, guest_writes, random_memory, two_ends
from tests.unit.migration.paced import (
    ALLOWED_S,
    DEADLINE_S,
    WIRE_BYTES_PER_S,
    GuestHost,
    busy_guest,
    move,
    pause_s,
)
from tests.unit.tries import TRIES, in_some_try

from ferry_agent.migration.ports import MoveFailed
from ferry_agent.migration.source import OutgoingMove
from ferry_types.limits import PAGE_SIZE
from ferry_types.messages import BeginOutgoing
from ferry_types.migrations import MigrationFigures, MigrationOptions


async def runs_at_full_speed(host: GuestHost) -> bool:
    """Whether it is not slowed, in the best of three looks: others use the machine, too."""
    speeds = [await host.steps_per_s() for _ in range(TRIES)]
    return max(speeds) > 0.75 / host.guest.pace.period_s


async def test_without_help_the_limit_forces_a_long_pause() -> None:
    async with busy_guest() as (ends, host):
        figures = await move(ends, host, pass_limit=5)
    assert len(figures.passes) == 5
    assert figures.explanation.startswith("switched at the limit of 5 passes")
    assert pause_s(figures) > 3 * ALLOWED_S
    assert host.throttles == []


async def test_a_throttled_guest_converges_and_arrives_at_full_speed() -> None:
    pauses_s: list[float] = []

    async def converges() -> None:
        async with busy_guest() as (ends, host):
            figures = await move(ends, host, pass_limit=20, throttle=True)
            host.vcpu.resume(EPOCH + 1)  # as if the move had been aborted
            assert await runs_at_full_speed(host)
        percents = [figure.throttle_percent for figure in figures.passes]
        assert percents[:2] == [0, 0]
        assert percents == sorted(percents)
        steps = list(dict.fromkeys(percents))
        assert steps[:3] == [0, 20, 30]
        assert len(figures.passes) < 20
        assert figures.explanation.endswith(f"; the guest was slowed by {percents[-1]} %")
        assert host.throttles[-1] == 0
        pauses_s.append(pause_s(figures))
        assert min(pauses_s) <= 2 * ALLOWED_S

    await in_some_try(converges)


async def test_over_the_allowed_blackout_the_move_is_given_up_and_the_guest_runs_on_unthrottled() -> None:
    async with busy_guest() as (ends, host):
        with pytest.raises(MoveFailed) as failed:
            await move(ends, host, pass_limit=4, throttle=True, abort_over_blackout=True)
        refusal = failed.value.refusal
        assert refusal.rule == "abort over black-out"
        assert refusal.message.startswith("given up at the limit of 4 passes: the guest dirtied ")
        assert not host.paused
        assert "source.arming" not in host.reached
        assert host.throttles in ([20, 30, 0], [20, 0])
        assert await runs_at_full_speed(host)
        assert (await ends.target.refusal()).message


async def test_a_cancelled_move_leaves_no_guest_throttled() -> None:
    async with busy_guest() as (ends, host):
        task = asyncio.create_task(move(ends, host, pass_limit=100, throttle=True))
        async with asyncio.timeout(DEADLINE_S):
            while 30 not in host.throttles:  # noqa: ASYNC110 - there is nothing else to wait for
                await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert host.throttles[-1] == 0
        assert await runs_at_full_speed(host)


async def ebb_and_flow(**options: int | bool) -> MigrationFigures:
    """A move of a guest that is slow during every third pass, which leaves less dirty than the others."""
    async with busy_guest() as (ends, host):

        async def turn_of_the_tide() -> None:
            passes_done = host.reached.count("source.copying")
            host.vcpu.throttle(75 if passes_done % 3 == 2 else 0)

        host.hooks["source.copying"] = turn_of_the_tide
        return await move(ends, host, **options)


async def test_the_minimum_rule_switches_with_less_left_than_the_limit_does() -> None:
    async def switches_at_an_ebb() -> None:
        at_limit = await ebb_and_flow(pass_limit=5)
        at_minimum = await ebb_and_flow(pass_limit=5, switch_at_minimum=True)
        assert at_limit.final is not None
        assert at_minimum.final is not None
        assert len(at_limit.passes) == 5
        assert len(at_minimum.passes) in (6, 9)
        assert at_minimum.final.pages_sent < 0.75 * at_limit.final.pages_sent
        assert at_minimum.final.pages_sent * PAGE_SIZE > ALLOWED_S * WIRE_BYTES_PER_S
        assert "was about the least that the last" in at_minimum.explanation

    await in_some_try(switches_at_an_ebb)


@pytest.mark.parametrize("abort", [True, False])
async def test_what_is_dirtied_while_the_hand_off_is_armed_counts_as_well(abort: bool) -> None:
    async with two_ends(random_memory(64)) as ends:

        async def arm(migration_id: str) -> None:
            assert migration_id == MOVE
            guest_writes(ends.memory, 3, 7)

        ends.source.arm = arm  # type: ignore[method-assign]
        options = MigrationOptions(pass_limit=1, blackout_allowed_s=1e-9, abort_over_blackout=abort)
        order = BeginOutgoing(MOVE, TOKEN, VM, EPOCH, "node2", ends.address, options)
        moving = OutgoingMove(
            order, ends.memory, ends.source, least_recently_used_first=True, channels=ends.channels
        ).run()
        if not abort:
            ends.awaiting.append(await asyncio.wait_for(moving, DEADLINE_S))
            return
        with pytest.raises(MoveFailed, match="given up at the limit of 1 pass"):
            await asyncio.wait_for(moving, DEADLINE_S)
        assert not ends.source.paused
        assert ends.memory.dirty.count() > 0
