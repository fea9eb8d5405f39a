"""What a host expects of a move, and what the move then takes over a link of a known rate."""

import asyncio

import numpy as np
import pytest
from tests.unit.migration.ends import random_memory
from tests.unit.migration.paced import (
    WIRE_BYTES_PER_S,
    busy_guest,
    choose,
    move,
    pause_s,
)
from tests.unit.tries import in_some_try

from ferry_agent.estimates import SAMPLED_PAGES_MAX, estimate_move, pages_to_send
from ferry_agent.guest.memory import GuestMemory
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import WireFigures
from ferry_types.workloads import AccessPattern

WIRE = WireFigures(WIRE_BYTES_PER_S)
MEASURED_S = 0.4
TOLERANCE = 0.3
SLACK_S = 0.02
"""What a pass takes besides, on a busy machine; ``tests/bench`` is stricter."""


@pytest.mark.parametrize(
    ("times_the_wire", "access", "options"),
    [
        (0.4, AccessPattern.UNIFORM, {}),
        (0.4, AccessPattern.SEQUENTIAL, {}),
        (0.8, AccessPattern.HOTSET, {}),
        (2.0, AccessPattern.UNIFORM, {"pass_limit": 4}),
    ],
)
async def test_a_move_takes_about_what_was_estimated(
    times_the_wire: float, access: AccessPattern, options: dict[str, int]
) -> None:
    async def is_as_estimated() -> None:
        async with busy_guest(times_the_wire, access) as (ends, host):
            await asyncio.sleep(MEASURED_S)
            expected = estimate_move(host.image, choose(**options), WIRE)
            figures = await move(ends, host, **options)
        assert expected is not None
        assert expected.blackout_s is not None
        assert abs(expected.passes - len(figures.passes)) <= 1
        assert figures.brownout_s == pytest.approx(
            expected.brownout_s, rel=TOLERANCE, abs=SLACK_S * expected.passes
        )
        assert figures.bytes_sent == pytest.approx(expected.bytes_sent, rel=TOLERANCE)
        if options:  # switched at the limit, not as soon as little enough was left
            assert pause_s(figures) == pytest.approx(expected.blackout_s, rel=TOLERANCE)

    await in_some_try(is_as_estimated)


async def test_a_paused_guest_cannot_be_measured() -> None:
    async with busy_guest() as (_, host):
        await host.pause()
        assert estimate_move(host.image, choose(), WIRE) is None


@pytest.mark.parametrize("share_of_zeros", [0.0, 0.5, 1.0])
def test_zero_pages_are_told_from_a_sample(share_of_zeros: float) -> None:
    memory = random_memory(4 * SAMPLED_PAGES_MAX)
    memory.touched[: memory.n_pages // 2] = False
    touched = memory.n_pages // 2
    zeros = np.random.default_rng(4).permutation(np.flatnonzero(memory.touched))[
        : round(share_of_zeros * touched)
    ]
    memory.pages[zeros] = 0
    assert pages_to_send(memory) == pytest.approx((1 - share_of_zeros) * touched, abs=0.03 * touched)
    memory.close()


def test_of_memory_that_nobody_touched_nothing_is_sent() -> None:
    memory = GuestMemory(16 * PAGE_SIZE)
    assert pages_to_send(memory) == 0
    memory.close()
