"""Which of the moves that there were are those that a scenario expects."""

import re
from collections.abc import Sequence

from ferry_sim.scenarios.expectations import Move
from ferry_sim.scenarios.seen import SeenMove


def found_moves(expected: Sequence[Move], seen: Sequence[SeenMove]) -> list[SeenMove | None]:
    """For each expected move the one that it is, in their order, others between; None from the first on that
    is not there.
    """
    found: list[SeenMove | None] = []
    position = 0
    for move in expected:
        following = (at for at in range(position, len(seen)) if _is_move(move, seen[at]))
        at = next(following, None)
        if at is None:
            break
        found.append(seen[at])
        position = at + 1
    return found + [None] * (len(expected) - len(found))


def _is_move(expected: Move, move: SeenMove) -> bool:
    return (
        expected.vm == move.vm
        and expected.source in (None, move.source)
        and expected.target in (None, move.target)
        and expected.state == move.state
        and expected.option in (None, move.option)
        and (expected.reason is None or re.search(expected.reason, move.reason) is not None)
    )
