"""A run that the hypervisor has disturbed is made again, but not for ever."""

import pytest
from tests.unit.bench.bench_samples import own_run

from ferry_cli.bench.document import OwnRun
from ferry_cli.bench.rounds import TRIES_MAX, undisturbed


async def measured(*stolen_s: float, total_s: float = 1.0) -> tuple[float, int, int]:
    """Stolen time of the run that counts, how many were set aside, and how often there was a rest before."""
    rest = iter(stolen_s)
    rests = 0

    async def run_once() -> OwnRun:
        return own_run(total_s, stolen_s=next(rest))

    async def quieten() -> None:
        nonlocal rests
        rests += 1

    run, set_aside = await undisturbed(run_once, quieten)
    return run.stolen_s, set_aside, rests


async def test_a_run_that_nobody_disturbed_counts() -> None:
    assert await measured(0.0) == (0.0, 0, 1)


async def test_a_disturbed_run_is_made_again() -> None:
    assert await measured(0.4, 0.02) == (0.02, 1, 2)


async def test_the_last_try_counts_whatever_was_taken_of_it() -> None:
    stolen_s = [0.1 * number for number in range(1, TRIES_MAX + 1)]

    assert await measured(*stolen_s) == (stolen_s[-1], TRIES_MAX - 1, TRIES_MAX)


@pytest.mark.parametrize(("stolen_s", "total_s"), [(0.01, 0.05), (0.02, 0.4), (0.05, 1.0)])
async def test_a_step_of_the_count_or_a_twentieth_is_let_pass(stolen_s: float, total_s: float) -> None:
    assert await measured(stolen_s, total_s=total_s) == (stolen_s, 0, 1)
