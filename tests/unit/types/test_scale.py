"""What fits a scale: which one there may be, which memory, which rate."""

import pytest

from ferry_types.networks import Nic
from ferry_types.scale import SCALE_MAX, check_scale, memory_problem, rate_problem

MIB, GIB = 2**20, 2**30


@pytest.mark.parametrize("scale", [0, -1, SCALE_MAX + 1])
def test_a_scale_out_of_range_is_refused(scale: int) -> None:
    with pytest.raises(ValueError, match=f"a scale of {scale} is out of range: from 1"):
        check_scale(scale)


def test_one_and_the_largest_are_scales() -> None:
    assert [check_scale(scale) for scale in (1, 64, SCALE_MAX)] == [1, 64, SCALE_MAX]


@pytest.mark.parametrize(
    ("memory_bytes", "scale"),
    [
        (4 * MIB, 1),
        (4 * MIB + 4096, 1),
        (256 * MIB, 64),
        (56 * GIB, 64),
        (12 * MIB, 3),
        (1024 * GIB, SCALE_MAX),
    ],
)
def test_whole_pages_and_room_for_the_books_fit(memory_bytes: int, scale: int) -> None:
    assert memory_problem("a", memory_bytes, scale) is None


def test_a_memory_that_would_vanish_is_refused_with_what_is_needed() -> None:
    problem = memory_problem("a", 255 * MIB, 64)
    assert problem is not None
    assert problem.rule == "scale"
    assert problem.message == "a has 255 MiB of memory: at scale 64 a VM has at least 256 MiB"
    assert problem.hint == "give it more memory, or use a smaller scale"


def test_a_memory_that_does_not_divide_is_refused_with_those_beside_it() -> None:
    problem = memory_problem("a", 56 * 10**9, 64)
    assert problem is not None
    assert problem.rule == "scale"
    assert problem.message == (
        "memory of 56000000000 bytes of a is not a multiple of 256 KiB, what one page stands for at scale 64"
    )
    assert problem.hint == "give it 55999987712B or 56000249856B, or use a smaller scale"
    for beside in (55999987712, 56000249856):
        assert memory_problem("a", beside, 64) is None


def test_a_rate_that_would_vanish_is_refused() -> None:
    nic = Nic("live", "net", "10.0.0.1", 63_999)
    problem = rate_problem(nic, 64)
    assert problem is not None
    assert problem.rule == "scale"
    assert "511kbit/s of NIC live is too low for scale 64: at least 512kbit/s" in problem.message
    assert rate_problem(Nic("live", "net", "10.0.0.1", 64_000), 64) is None
    assert rate_problem(Nic("live", "net", "10.0.0.1"), 64) is None, "it is not shaped at all"
