"""``make simulate``: run seeds, print what was covered, and, as the last line, seeds and violations."""

import argparse
import sys
from dataclasses import dataclass, field
from typing import Final

from ferry_sim.commands import add_jobs, positive, say
from ferry_sim.coverage import Coverage
from ferry_sim.seeds import Outcome, run_seeds
from ferry_sim.storm import LONG, PAIR, RULES, SHORT, VOTES

COURSES: Final = {"long": LONG, "short": SHORT, "votes": VOTES, "pair": PAIR, "rules": RULES}


@dataclass
class _Total:
    seeds: int = 0
    violations: list[int] = field(default_factory=list)
    simulated_s: float = 0.0
    processor_s: float = 0.0
    moves: int = 0
    faults: int = 0
    coverage: Coverage = field(default_factory=Coverage)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        if outcome.violation:
            self.violations.append(outcome.seed)
        self.simulated_s += outcome.simulated_s
        self.processor_s += outcome.processor_s
        self.moves += outcome.moves
        self.faults += outcome.faults
        self.coverage.add(outcome.coverage)


def main() -> int:
    """The command: exit code 1 if anything was violated."""
    arguments = _arguments()
    course = COURSES[arguments.course]
    size = course.size
    say(
        f"options: --seeds {arguments.seeds} --first {arguments.first} --course {arguments.course} "
        f"--jobs {arguments.jobs}"
    )
    say(
        f"a seed: {size.hosts} hosts, {course.vms} VMs, profile {size.profile}; at least "
        f"{course.steps} steps, {course.seconds_min:.0f} s, "
        f"{course.moves_min} moves, {course.faults_min} faults"
    )
    total = _Total()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    for outcome in run_seeds(seeds, course, arguments.jobs):
        total.add(outcome)
        if outcome.violation:
            say(f"seed {outcome.seed}, at {outcome.simulated_s:.3f} s:\n{outcome.violation}")
            say(f"again: make simulate SEEDS=1 FIRST={outcome.seed} COURSE={arguments.course}")
        if arguments.traces:
            say(f"seed {outcome.seed}: trace {outcome.trace:08x}, {outcome.moves} moves")
    say(f"{total.moves} moves were accepted, {total.faults} faults done")
    say(f"covered: {total.coverage}")
    speed = total.simulated_s / total.processor_s
    say(f"{total.simulated_s:.0f} s were simulated, {speed:.0f} in a second of one processor")
    failed = f" ({', '.join(map(str, total.violations))})" if total.violations else ""
    say(f"{total.seeds} seeds, {len(total.violations)} violations{failed}")
    return 1 if total.violations else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ferry_sim", description="Simulate clusters under faults."
    )
    parser.add_argument("--seeds", type=positive, default=50, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default %(default)s)")
    parser.add_argument("--course", choices=sorted(COURSES), default="long", help="default %(default)s")
    add_jobs(parser)
    parser.add_argument("--traces", action="store_true", help="print each seed's trace hash")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
