"""The same files on real processes: what a scenario shows on virtual time happens in earnest too.

Two labs run side by side: most of a scenario's time is waiting, for processes to come up and for leases to
run out. With more of them two processors would be too busy for beats of 250 ms. The one that expects figures
runs before them, alone.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from ferry_cli import interrupts
from ferry_cli.scenarios.live import run_live, virtual_only
from ferry_sim.scenarios import model
from ferry_sim.scenarios.outcome import Outcome

pytestmark = pytest.mark.timeout(180)

FOLDER = Path(__file__).parents[1] / "scenarios"
FIGURES = "../reference/annotated-example"
"""A short one that expects figures; the reference points themselves take minutes (``make reference``)."""
SIDE_BY_SIDE = 2
WITHOUT_FIGURES = (
    "resiliency/isolated-and-back",  # the longest
    "failover/certified-death",
    "failover/power-loss",
    "moves/live-migration",
    "planned/pause",
    "planned/drain",
    "planned/drain-stuck-stop",
    "planned/resume-failback",
    "planned/evict-force",
    "resiliency/certificate",
)
LIVE = (FIGURES, *WITHOUT_FIGURES)


async def _run_all() -> dict[str, Outcome | BaseException]:
    free = asyncio.Semaphore(SIDE_BY_SIDE)

    async def run(name: str) -> Outcome:
        scenario = model.read(FOLDER / f"{name}.yaml")
        async with free:
            return await run_live(scenario, scenario.seed, lambda _said: None)

    (alone,) = await asyncio.gather(run(FIGURES), return_exceptions=True)
    together = await asyncio.gather(*(run(name) for name in WITHOUT_FIGURES), return_exceptions=True)
    return {FIGURES: alone, **dict(zip(WITHOUT_FIGURES, together, strict=True))}


@pytest.fixture(scope="module")
def outcomes() -> Mapping[str, Outcome | BaseException]:
    """Scenario -> what came of it, or why it could not be run."""
    return interrupts.run(_run_all())


@pytest.mark.parametrize("name", LIVE)
def test_a_scenario_comes_out_live_as_it_says(
    name: str, outcomes: Mapping[str, Outcome | BaseException]
) -> None:
    outcome = outcomes[name]
    if isinstance(outcome, BaseException):
        raise outcome
    assert outcome.violations == ()
    assert outcome.failures == (), [event.message for event in outcome.seen.events]
    assert [check.words for check in outcome.checks if not check.ok] == []
    assert bool(outcome.checks) == (name == FIGURES)


@pytest.mark.parametrize("name", LIVE)
def test_it_can_be_run_live(name: str) -> None:
    assert virtual_only(model.read(FOLDER / f"{name}.yaml")) == []
