"""Every scenario in tests/scenarios comes out as it says, on virtual time, and so again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferry_sim.scenarios import model, runner

FOLDER = Path(__file__).parents[1] / "scenarios"
FILES = sorted(FOLDER.rglob("*.yaml"))


def name_of(file: Path) -> str:
    return str(file.relative_to(FOLDER).with_suffix(""))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_scenario_comes_out_as_it_says(file: Path) -> None:
    outcome = runner.run(model.read(file))
    assert outcome.violations == ()
    assert outcome.failures == (), [event.message for event in outcome.seen.events]


@pytest.mark.parametrize("seed", range(2, 4))
def test_what_a_scenario_shows_does_not_hang_on_its_seed(seed: int) -> None:
    failed = {name_of(file): runner.run(model.read(file), seed) for file in FILES}
    assert {name: (o.failures, o.violations) for name, o in failed.items() if not o.ok} == {}


def test_a_scenario_replays_exactly() -> None:
    code = (
        "import sys; from pathlib import Path; from ferry_sim.scenarios import model, runner\n"
        "for file in sys.argv[1:]: print(runner.run(model.read(Path(file)), 5).trace)"
    )
    files = [str(file) for file in FILES[::5]]
    traces = [
        subprocess.run(
            [sys.executable, "-c", code, *files],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for hash_seed in ("1", "2")
    ]
    assert traces[0] == traces[1]
    assert len(set(traces[0])) == len(files), "courses differ"


def test_each_says_what_it_shows() -> None:
    scenarios = {name_of(file): model.read(file) for file in FILES}
    titles = [scenario.title for scenario in scenarios.values()]
    assert len(set(titles)) == len(titles)
    short = [name for name, scenario in scenarios.items() if len(scenario.shows.split()) < 15]
    assert not short, "say why it is so"
