"""What of a scenario needs real processes: on virtual time no page is copied, and nothing takes long."""

from ferry_sim.scenarios import steps
from ferry_sim.scenarios.expectations import EstimateFigures, MoveFigures
from ferry_sim.scenarios.model import Scenario
from ferry_types.migrations import MigrationOptions


def live_only(scenario: Scenario) -> list[str]:
    """Why a scenario cannot be run on virtual time, in words; nothing if it can."""
    found = []
    if scenario.drains or any(
        (move.figures, move.estimate) != (MoveFigures(), EstimateFigures()) for move in scenario.moves
    ):
        found.append("it expects figures of moves, and on virtual time no page is copied")
    if scenario.scale != 1:
        found.append("scale is of real memory and real rates")
    shaped = [
        f"{nic} of {name}"
        for name, node in scenario.nodes.items()
        for nic, described in node.nics.items()
        if described.rate is not None or described.latency
    ]
    if shaped:
        found.append(f"NIC {shaped[0]} has a rate or a latency, which shape pages")
    for line in scenario.steps:
        action = line.parsed.action
        if isinstance(action, steps.MigrateVm) and action.options != MigrationOptions():
            found.append(f"the step {line.step!r} chooses how pages are copied")
            break
    return found
