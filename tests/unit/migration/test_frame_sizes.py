"""How many pages the frames of option tcpip carry, by the wire and by whether the guest runs."""

from tests.unit.migration.ends import Ends, assert_equal, guest_writes, random_memory, two_ends

from ferry_agent.migration.ports import UnshapedWire
from ferry_agent.migration.transports.tcpip import LAST_FRAMES_SMALLER
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE

PAGES = 2 * FRAME_PAGES_MAX
LAST_PAGES = 100


class CountingWire(UnshapedWire):
    """Notes the pages of each frame that passes."""

    def __init__(self, frame_pages: int) -> None:
        self.frame_bytes = frame_pages * PAGE_SIZE
        self.passed: list[int] = []

    async def pass_bytes(self, size_bytes: int) -> None:
        if pages := size_bytes // PAGE_SIZE:  # not the opening frame, nor one that only asks for an answer
            self.passed.append(pages)


async def frames_of_move(wire: CountingWire) -> list[int]:
    """Pages of each frame of a move whose guest writes its first pages once more, right before the pause."""

    def write(ends: Ends) -> None:
        for page in range(LAST_PAGES):
            guest_writes(ends.memory, page, 1 + page)

    async with two_ends(random_memory(PAGES), source_wire_of=lambda _nic_name, _mtu: wire) as ends:
        ends.source.on_pause = lambda: write(ends)
        await ends.move()
        await ends.target.device_state()
        assert_equal(ends)
    return wire.passed


async def test_on_a_slow_wire_frames_of_the_last_pages_are_smaller() -> None:
    frame_pages = 64
    small = frame_pages // LAST_FRAMES_SMALLER
    rest = [LAST_PAGES % small] if LAST_PAGES % small else []

    frames = await frames_of_move(CountingWire(frame_pages))

    assert frames == [64] * (PAGES // 64) + [small] * (LAST_PAGES // small) + rest


async def test_on_a_fast_wire_they_are_not() -> None:
    assert await frames_of_move(CountingWire(FRAME_PAGES_MAX)) == [FRAME_PAGES_MAX] * 2 + [LAST_PAGES]


async def test_a_frame_has_a_page_however_slow_the_wire() -> None:
    frames = await frames_of_move(CountingWire(1))

    assert frames == [1] * (PAGES + LAST_PAGES)
