"""Fifty seeds of the long course, and `make simulate` as a command."""

import os
import subprocess
import sys

import pytest

from ferry_host import host as host_module
from ferry_host import moves
from ferry_sim import __main__ as command
from ferry_sim.coverage import Coverage
from ferry_sim.seeds import Outcome, run_seeds
from ferry_sim.storm import LONG, PAIR, VOTES, Course
from ferry_types.messages import ResumeSource

SEEDS = 50


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return list(run_seeds(range(SEEDS), LONG, os.cpu_count() or 1))


@pytest.mark.timeout(240)
def test_no_seed_is_violated(outcomes: list[Outcome]) -> None:
    assert [outcome.violation for outcome in outcomes] == [""] * SEEDS


@pytest.mark.parametrize("course", [VOTES, PAIR], ids=["votes", "pair"])
def test_no_seed_is_violated_in_which_voters_are_lost(course: Course) -> None:
    for outcome in run_seeds(range(30), course, jobs=1):
        assert not outcome.violation, f"seed {outcome.seed}: {outcome.violation}"


def test_every_seed_is_as_hard_as_it_claims_to_be(outcomes: list[Outcome]) -> None:
    assert min(outcome.simulated_s for outcome in outcomes) >= 600
    assert min(outcome.moves for outcome in outcomes) >= 20
    assert min(outcome.faults for outcome in outcomes) >= 10


def test_the_seeds_take_every_row_of_both_transition_tables(outcomes: list[Outcome]) -> None:
    coverage = Coverage()
    for outcome in outcomes:
        coverage.add(outcome.coverage)
    assert coverage.missing() == []


def simulate(*arguments: str, hash_seed: int = 0) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "ferry_sim", *arguments],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_seed_replays_exactly() -> None:
    options = ("--seeds", "20", "--first", "7", "--course", "short", "--traces")
    first, again = (simulate(*options, hash_seed=seed).stdout for seed in (1, 2))
    traces = [line for line in first.splitlines() if "trace" in line]
    assert len({line.split()[3] for line in traces}) == 20, "seeds differ"
    assert traces == [line for line in again.splitlines() if "trace" in line]


def test_the_last_line_counts_seeds_and_violations() -> None:
    done = simulate("--seeds", "3", "--first", "5", "--course", "short")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("options: --seeds 3 --first 5 --course short --jobs ")
    assert lines[-1] == "3 seeds, 0 violations"


def test_a_violation_prints_its_seed_and_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(host_module._ORDERS, ResumeSource, lambda turn, order: moves.on_resume(turn, None))  # type: ignore[arg-type]
    monkeypatch.setattr(sys, "argv", ["ferry_sim", "--seeds", "6", "--course", "short", "--jobs", "1"])
    assert command.main() == 1
    said = capsys.readouterr().out.splitlines()
    failing = [line.split()[1].rstrip(",") for line in said if line.startswith("seed ")]
    assert failing
    assert f"again: make simulate SEEDS=1 FIRST={failing[0]} COURSE=short" in said
    assert said[-1] == f"6 seeds, {len(failing)} violations ({', '.join(failing)})"


@pytest.mark.parametrize("arguments", [("--seeds", "0"), ("--seeds", "many"), ("--course", "steep")])
def test_wrong_options_are_exit_2(arguments: tuple[str, str]) -> None:
    assert simulate(*arguments).returncode == 2
