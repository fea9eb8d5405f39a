"""Zero pages are found in every order and place, and looking begins before anybody asks."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ferry_agent.migration import page_order
from ferry_agent.migration.page_order import Indices, PageOrder, as_they_stand
from ferry_agent.migration.zero_search import (
    GLANCE_PAGES,
    LOOK_INLINE_PAGES_MAX,
    LOOKS_AHEAD,
    ZeroSearch,
)

BATCH = 1024
GLANCE_EVERY = BATCH // GLANCE_PAGES
PAGES = (LOOKS_AHEAD + 1) * BATCH + 904
"""The last batch is not looked at before the first was asked for, and has another length."""
WORDS_PER_PAGE = 512


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_order, "BATCH_PAGES", BATCH)


def memory(share_of_zeros: float) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Words of so many pages, and which pages are zero; the others show it in one word, anywhere."""
    chance = np.random.default_rng(7)
    zero = chance.random(PAGES) < share_of_zeros
    words = np.zeros((PAGES, WORDS_PER_PAGE), np.uint64)
    full = np.flatnonzero(~zero)
    words[full, chance.integers(0, WORDS_PER_PAGE, len(full))] = 1
    return words, zero


async def found(search: ZeroSearch) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    batches = []
    while (batch := await search.next()) is not None:
        batches.append(batch)
    return np.concatenate([pages for pages, _ in batches]), np.concatenate([zero for _, zero in batches])


@pytest.mark.parametrize("share_of_zeros", [0.0, 0.01, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("shuffled", [False, True])
async def test_every_zero_page_is_found_and_the_order_kept(share_of_zeros: float, shuffled: bool) -> None:
    words, zero = memory(share_of_zeros)
    order = np.random.default_rng(3).permutation(PAGES) if shuffled else np.arange(PAGES)

    pages, mask = await found(ZeroSearch(words, as_they_stand(order), glance=False))

    assert np.array_equal(pages, order)
    assert np.array_equal(mask, zero[order])


async def test_pages_that_all_show_contents_at_a_glance_are_not_read() -> None:
    words = np.zeros((PAGES, WORDS_PER_PAGE), np.uint64)
    words[GLANCE_EVERY // 2 :: GLANCE_EVERY, 0] = 1

    _, mask = await found(ZeroSearch(words, as_they_stand(np.arange(PAGES)), glance=True))

    whole_batches = PAGES // BATCH * BATCH
    assert not mask[:whole_batches].any()


async def test_a_batch_is_read_if_one_page_that_is_glanced_at_may_be_zero() -> None:
    words = np.zeros((PAGES, WORDS_PER_PAGE), np.uint64)
    words[GLANCE_EVERY // 2 :: GLANCE_EVERY, 0] = 1
    words[BATCH + 3 * GLANCE_EVERY + GLANCE_EVERY // 2] = 0

    _, mask = await found(ZeroSearch(words, as_they_stand(np.arange(PAGES)), glance=True))

    assert not mask[:BATCH].any()
    assert np.count_nonzero(mask[BATCH : 2 * BATCH]) == BATCH - GLANCE_PAGES + 1


@pytest.mark.parametrize(("contents", "looked_at"), [(0, LOOKS_AHEAD), (1, 1)])
async def test_behind_a_batch_that_shows_contents_nobody_looks_yet(contents: int, looked_at: int) -> None:
    words = np.full((PAGES, WORDS_PER_PAGE), contents, np.uint64)
    begun = []

    def batches() -> Iterator[Indices]:
        for batch in as_they_stand(np.arange(PAGES)).batches:
            begun.append(len(batch))
            yield batch

    search = ZeroSearch(words, PageOrder(PAGES, batches()), glance=True)

    assert begun == [BATCH] * looked_at
    pages, mask = await found(search)
    assert len(pages) == PAGES
    assert mask.all() == (not contents)


async def test_once_a_glance_was_wrong_every_page_is_looked_at() -> None:
    words = np.zeros((PAGES, WORDS_PER_PAGE), np.uint64)
    words[GLANCE_EVERY // 2 :: GLANCE_EVERY, 0] = 1
    search = ZeroSearch(words, as_they_stand(np.arange(PAGES)), glance=True)
    await search.next()

    search.trust_no_glance()
    _, mask = await found(search)

    whole = mask[BATCH : -(PAGES % BATCH)]  # without the batch that was glanced at before
    assert np.count_nonzero(~whole) == len(whole) // GLANCE_EVERY
    last = mask[-(PAGES % BATCH) :]
    assert np.count_nonzero(~last) == len(range(GLANCE_EVERY // 2, len(last), GLANCE_EVERY))


async def test_looking_begins_at_once() -> None:
    words = np.zeros((LOOK_INLINE_PAGES_MAX, WORDS_PER_PAGE), np.uint64)
    search = ZeroSearch(words, as_they_stand(np.arange(LOOK_INLINE_PAGES_MAX)), glance=False)

    words[:] = 1  # as a guest that writes later, and marks what it wrote
    _, mask = await found(search)

    assert mask.all()
