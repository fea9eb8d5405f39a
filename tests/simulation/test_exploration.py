"""Small scopes are exhausted in every run of the suite, the others by `make explore`."""

import pytest
from tests.simulation.test_planted_bugs import (
    Plant,
    an_abort_that_raises_nothing,
    the_source_resumes_after_the_final_copy,
    what_was_handed_over_discarded,
)

from ferry_sim.explore import Budget, Play, search

STATES_MAX = 5000


@pytest.mark.parametrize("budget", [{}, {"repeat": 1}, {"break": 1}, {"cut": 1}], ids=str)
def test_a_scope_is_exhausted(budget: Budget) -> None:
    found = search(budget, STATES_MAX)
    assert found.violation == "", "\n".join(found.trace)
    assert found.whole
    assert found.states > 10


@pytest.mark.parametrize(
    ("plant", "budget"),
    [
        (the_source_resumes_after_the_final_copy, {"break": 1}),
        (an_abort_that_raises_nothing, {"break": 1}),
        (what_was_handed_over_discarded, {"cut": 1}),
    ],
)
def test_a_planted_bug_is_found_by_a_shortest_trace(
    plant: Plant, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    found = search(budget, STATES_MAX)
    assert found.violation
    play = Play(budget)
    for name in found.trace[:-1]:
        play.take(next(step for step in play.steps() if step.name == name))
    last = next(step for step in play.steps() if step.name == found.trace[-1])
    with pytest.raises(AssertionError):
        play.take(last)


def test_a_search_that_was_cut_short_says_so() -> None:
    assert not search({"cut": 1}, 100).whole
