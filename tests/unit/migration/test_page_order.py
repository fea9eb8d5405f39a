"""The order of a pass: every chosen page once, pages in use last, in batches of bounded size."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferry_agent.migration import page_order
from ferry_agent.migration.page_order import PageOrder, as_they_stand, least_recently_used_first, rising

BATCH = 4


@pytest.fixture(autouse=True, scope="module")
def _small_batches() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(page_order, "BATCH_PAGES", BATCH)
    yield
    patch.undo()


def pages_of(order: PageOrder) -> list[int]:
    """All pages in their order; checks what holds for every order."""
    batches = [batch.tolist() for batch in order.batches]
    assert all(1 <= len(batch) <= BATCH for batch in batches)
    pages = [page for batch in batches for page in batch]
    assert len(pages) == order.page_count
    return pages


def masks(uses: list[tuple[bool, int]]) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
    """Which pages are chosen, and when each was last used."""
    chosen = np.array([is_chosen for is_chosen, _ in uses], np.bool_)
    return chosen, np.array([tick for _, tick in uses], np.uint32)


def test_pages_in_use_come_last() -> None:
    last_used = np.array([5, 0, 9, 0], np.uint32)

    assert pages_of(least_recently_used_first(np.ones(4, np.bool_), last_used)) == [1, 3, 0, 2]
    assert pages_of(least_recently_used_first(np.array([True, False, True, True]), last_used)) == [3, 0, 2]


def test_of_pages_in_use_only_those_count_that_are_chosen() -> None:
    last_used = np.array([1, 7, 7, 8], np.uint32)

    assert pages_of(least_recently_used_first(np.array([False, True, True, True]), last_used)) == [1, 2, 3]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3) | st.integers(2**32 - 2, 2**32 - 1)), max_size=40))
def test_every_chosen_page_comes_once_by_its_last_use(uses: list[tuple[bool, int]]) -> None:
    chosen, last_used = masks(uses)
    expected = sorted(np.flatnonzero(chosen).tolist(), key=lambda page: (last_used[page], page))

    assert pages_of(least_recently_used_first(chosen, last_used)) == expected


@given(st.lists(st.booleans(), max_size=40))
def test_chosen_pages_rise(chosen: list[bool]) -> None:
    assert pages_of(rising(np.array(chosen, np.bool_))) == [page for page, each in enumerate(chosen) if each]


@given(st.permutations(range(11)))
def test_an_order_that_is_given_is_kept(order: list[int]) -> None:
    assert pages_of(as_they_stand(np.array(order, np.int64))) == order


def test_none_chosen_is_no_batch() -> None:
    assert pages_of(least_recently_used_first(np.zeros(5, np.bool_), np.zeros(5, np.uint32))) == []
