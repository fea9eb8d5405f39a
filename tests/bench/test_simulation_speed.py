"""How fast virtual time goes: seeds of the long course (16 hosts, 200 VMs), on one processor."""

from ferry_sim.seeds import run_seed
from ferry_sim.storm import LONG

SIMULATED_S_PER_S_MIN = 300


def test_a_second_simulates_five_minutes() -> None:
    outcomes = [run_seed(seed, LONG) for seed in range(8)]
    speed = sum(o.simulated_s for o in outcomes) / sum(o.processor_s for o in outcomes)
    print(f"{speed:.0f} simulated seconds in a second of one processor")  # noqa: T201 - it is what a bench is for
    assert speed >= SIMULATED_S_PER_S_MIN
