"""Guest memory: what is touched, used and dirty, and that it is really given back."""

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from ferry_agent.guest import memory as memory_module
from ferry_agent.guest.memory import GuestMemory
from ferry_types.errors import FerryError

MIB = 2**20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_fresh_memory_is_zero_untouched_and_clean() -> None:
    memory = GuestMemory(4 * MIB)
    assert memory.pages.shape == (1024, 4096)
    assert not memory.touched.any()
    assert not memory.pages.any()
    assert memory.dirty.count() == 0
    memory.close()


def test_a_write_shows_in_contents_marks_and_use() -> None:
    memory = GuestMemory(4 * MIB)
    memory.tick = 17
    index = np.array([900, 3])
    memory.write(index, np.full((2, 4096), 7, dtype=np.uint8))
    assert (memory.pages[index] == 7).all()
    assert np.flatnonzero(memory.touched).tolist() == [3, 900]
    assert memory.last_used[[3, 4, 900]].tolist() == [17, 0, 17]
    assert memory.dirty.take().tolist() == [3, 900]
    memory.close()


def test_marks_that_are_taken_as_a_mask_are_cleared_and_can_be_given_back() -> None:
    memory = GuestMemory(4 * MIB)
    memory.mark_written(np.array([3, 900]))
    taken = memory.dirty.take_all()
    memory.mark_written(7)
    assert np.flatnonzero(taken).tolist() == [3, 900]
    assert memory.dirty.take().tolist() == [7]
    memory.dirty.give_back(taken)
    assert memory.dirty.take().tolist() == [3, 900]
    memory.close()


def test_a_read_only_shows_in_use() -> None:
    memory = GuestMemory(4 * MIB)
    memory.tick = 5
    memory.mark_read(np.array([8]))
    assert memory.last_used[8] == 5
    assert not memory.touched.any()
    assert memory.dirty.count() == 0
    memory.close()


def test_pages_and_words_are_the_same_memory() -> None:
    memory = GuestMemory(4 * MIB)
    memory.words[2, 511] = 1
    assert memory.pages[2, 4088] == 1
    memory.close()


def test_closing_gives_memory_back_even_if_somebody_holds_a_view() -> None:
    memory = GuestMemory(64 * MIB)
    memory.pages[:] = 1
    held = memory.pages[5]
    before = resident_bytes()
    memory.close()
    assert before - resident_bytes() > 60 * MIB
    assert not held.any()
    memory.close()


def test_contents_are_given_back_in_pieces_to_the_last_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "_DISCARD_BYTES", 24 * MIB)
    memory = GuestMemory(64 * MIB)
    memory.pages[:] = 1
    before = resident_bytes()
    mapping = Mock(wraps=memory._map, closed=False)
    with monkeypatch.context() as patch:
        patch.setattr(memory, "_map", mapping)
        memory.discard()
    assert [call.args[2] for call in mapping.madvise.call_args_list] == [24 * MIB, 24 * MIB, 16 * MIB]
    assert before - resident_bytes() > 60 * MIB
    assert not memory.pages.any()
    memory.close()
    memory.discard()


@pytest.mark.parametrize("memory_bytes", [0, -4096, 4097])
def test_memory_is_whole_pages(memory_bytes: int) -> None:
    with pytest.raises(ValueError, match="multiple of 4096"):
        GuestMemory(memory_bytes)


def test_memory_that_cannot_be_had_is_an_expected_error() -> None:
    with pytest.raises(FerryError, match="cannot allocate"):
        GuestMemory(2**60)
