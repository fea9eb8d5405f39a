"""Runs begin on a quiet machine; one that the hypervisor has disturbed is made again, but not for ever."""

import pytest
from tests.unit.bench.bench_samples import own_run

from ferry_cli.bench.document import OwnRun, Question
from ferry_cli.bench.memory import FreeMemory
from ferry_cli.bench.rounds import TRIES_MAX, free_memory, is_hurried, undisturbed
from ferry_types.limits import PAGE_SIZE
from ferry_types.units import parse_rate

MIB = 2**20


async def measured(
    *stolen_s: float, total_s: float = 1.0, tries_max: int = TRIES_MAX
) -> tuple[float, int, int]:
    """Stolen time of the run that counts, how many were set aside, and how often there was a rest before."""
    rest = iter(stolen_s)
    rests = 0

    async def run_once() -> OwnRun:
        return own_run(total_s, stolen_s=next(rest))

    async def quieten() -> None:
        nonlocal rests
        rests += 1

    run, set_aside = await undisturbed(run_once, quieten, tries_max)
    return run.stolen_s, set_aside, rests


async def test_a_run_that_nobody_disturbed_counts() -> None:
    assert await measured(0.0) == (0.0, 0, 1)


async def test_a_disturbed_run_is_made_again() -> None:
    assert await measured(0.4, 0.02) == (0.02, 1, 2)


async def test_the_last_try_counts_whatever_was_taken_of_it() -> None:
    stolen_s = [0.1 * number for number in range(1, TRIES_MAX + 1)]

    assert await measured(*stolen_s) == (stolen_s[-1], TRIES_MAX - 1, TRIES_MAX)


async def test_a_run_that_has_one_try_counts_after_a_rest_all_the_same() -> None:
    assert await measured(0.4, tries_max=1) == (0.4, 0, 1)


@pytest.mark.parametrize(
    ("memory_bytes", "rate_bytes_per_s", "hurried"),
    [
        (256 * MIB, None, True),
        (256 * MIB - PAGE_SIZE, None, False),
        (256 * MIB, parse_rate("10Gbit/s"), True),
        (256 * MIB, parse_rate("1Gbit/s"), False),
    ],
)
@pytest.mark.parametrize("fill", ["random", "zero"])
def test_free_memory_is_warm_and_settled_for_runs_that_are_hurried_and_compared(
    fill: str, memory_bytes: int, rate_bytes_per_s: int | None, *, hurried: bool
) -> None:
    question = Question(memory_bytes, fill, "idle", "tcpip", None, rate_bytes_per_s)

    assert is_hurried(question) == hurried
    settled = free_memory(question, compared=True) is FreeMemory.WARM_AND_SETTLED
    assert settled == (hurried and fill != "zero")
    assert free_memory(question, compared=False) is not FreeMemory.WARM_AND_SETTLED


@pytest.mark.parametrize(("stolen_s", "total_s"), [(0.01, 0.05), (0.02, 0.4), (0.05, 1.0)])
async def test_a_step_of_the_count_or_a_twentieth_is_let_pass(stolen_s: float, total_s: float) -> None:
    assert await measured(stolen_s, total_s=total_s) == (stolen_s, 0, 1)
