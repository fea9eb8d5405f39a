"""Running seeds, one after the other or on several processors."""

import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from ferry_sim.coverage import Coverage
from ferry_sim.storm import Course, Storm


@dataclass
class Outcome:
    """What came of one seed. ``violation``: the traceback of the first thing that must not be, or empty."""

    seed: int
    simulated_s: float
    processor_s: float
    moves: int
    faults: int
    trace: int
    violation: str
    coverage: Coverage


def run_seed(seed: int, course: Course) -> Outcome:
    """Run one seed. Whatever an exception says, it is a violation: the cores raise none in order."""
    began_s, violation = time.process_time(), ""
    storm = Storm(seed, course)
    began_at = storm.world.now
    try:
        storm.run()
    except Exception:  # noqa: BLE001 - reported, with its traceback
        violation = traceback.format_exc()
    world = storm.world
    return Outcome(
        seed,
        world.now - began_at,
        time.process_time() - began_s,
        storm.moves,
        storm.faults,
        world.clockwork.trace,
        violation,
        world.coverage,
    )


def run_seeds(seeds: range, course: Course, jobs: int) -> Iterator[Outcome]:
    """All of them, in order."""
    if jobs == 1:
        yield from (run_seed(seed, course) for seed in seeds)
        return
    # Not by fork: a caller may have threads, tests those of gRPC.
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        yield from pool.map(run_seed, seeds, [course] * len(seeds))
