"""The same files on real processes: what a scenario shows on virtual time happens in earnest too."""

from pathlib import Path

import pytest

from ferry_cli.scenarios.live import run_live, virtual_only
from ferry_sim.scenarios import model

FOLDER = Path(__file__).parents[1] / "scenarios"
LIVE = ("failover/certified-death", "failover/power-loss", "moves/live-migration")


@pytest.mark.parametrize("name", LIVE)
async def test_a_scenario_comes_out_live_as_it_says(name: str) -> None:
    scenario = model.read(FOLDER / f"{name}.yaml")
    assert virtual_only(scenario) == []
    outcome = await run_live(scenario, scenario.seed, lambda _said: None)
    assert outcome.violations == ()
    assert outcome.failures == (), [event.message for event in outcome.seen.events]
