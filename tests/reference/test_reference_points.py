"""The reference points on real processes, each with its figures: ``make reference``.

They are shaped and mostly wait, so that three run side by side, the shortest ones in turn: a lab that starts
takes processors for a second or two, which shows in moves that are over within seconds.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from ferry_cli import interrupts
from ferry_cli.scenarios.documents import outcome_lines
from ferry_cli.scenarios.live import run_live
from ferry_sim.scenarios import model
from ferry_sim.scenarios.outcome import Outcome

FOLDER = Path(__file__).parent
LANES = (("sql-1gbit",), ("brownout-blackout", "drain-limit-2", "drain-limit-10"))
"""Those that take long, and little of the machine; all others take turns beside them."""
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

pytestmark = pytest.mark.timeout(600)


async def _run(name: str) -> Outcome:
    scenario = model.read(FOLDER / f"{name}.yaml")
    return await run_live(scenario, scenario.seed, lambda _said: None)


async def _run_in_turn(names: list[str]) -> list[Outcome | BaseException]:
    outcomes: list[Outcome | BaseException] = []
    for name in names:
        outcomes += await asyncio.gather(_run(name), return_exceptions=True)
    return outcomes


async def _run_all(names: list[str]) -> dict[str, Outcome | BaseException]:
    beside = {name for lane in LANES for name in lane}
    lanes = [
        *([name for name in lane if name in names] for lane in LANES),
        [name for name in names if name not in beside],
    ]
    outcomes = await asyncio.gather(*(_run_in_turn(lane) for lane in lanes))
    return {
        name: outcome
        for lane, came in zip(lanes, outcomes, strict=True)
        for name, outcome in zip(lane, came, strict=True)
    }


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Mapping[str, Outcome | BaseException]:
    """Reference point -> what came of it, or why it could not be run; of those that were chosen."""
    chosen = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and hasattr(item, "callspec")
    }
    return interrupts.run(_run_all([name for name in NAMES if name in chosen]))


@pytest.mark.parametrize("name", NAMES)
def test_a_reference_point_is_reproduced(
    name: str, outcomes: Mapping[str, Outcome | BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = outcomes[name]
    if isinstance(outcome, BaseException):
        raise outcome
    with capsys.disabled():
        print("", *outcome_lines(f"{name}.yaml", outcome), sep="\n")  # noqa: T201 (the figures)
    assert outcome.ok
