"""How many pages the frames of option tcpip carry, by the wire and by whether the guest runs."""

from tests.unit.migration.ends import Ends, assert_equal, guest_writes, random_memory, two_ends

from ferry_agent.migration import protocol
from ferry_agent.migration.ports import UnshapedWire, WireOf, unshaped
from ferry_agent.migration.transports.tcpip import LAST_FRAMES_SMALLER
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE
from ferry_types.migrations import MigrationFigures

PAGES = 2 * FRAME_PAGES_MAX
LAST_PAGES = 100
SLOW_FRAME_PAGES = 64
SMALL_FRAME_PAGES = SLOW_FRAME_PAGES // LAST_FRAMES_SMALLER


class CountingWire(UnshapedWire):
    """Notes the pages of each frame that passes."""

    def __init__(self, frame_pages: int) -> None:
        self.frame_bytes = frame_pages * PAGE_SIZE
        self.passed: list[int] = []

    async def pass_bytes(self, size_bytes: int) -> None:
        if pages := size_bytes // PAGE_SIZE:  # not the opening frame, nor one that only asks for an answer
            self.passed.append(pages)


class LateWire(UnshapedWire):
    """What has arrived is acknowledged late."""

    latency_s = 0.3


async def move(wire: CountingWire, target_wire_of: WireOf = unshaped) -> MigrationFigures:
    """What is measured of a move whose guest writes its first pages once more, right before the pause."""

    def write(ends: Ends) -> None:
        for page in range(LAST_PAGES):
            guest_writes(ends.memory, page, 1 + page)

    async with two_ends(
        random_memory(PAGES),
        source_wire_of=lambda _nic_name, _mtu: wire,
        target_wire_of=target_wire_of,
    ) as ends:
        ends.source.on_pause = lambda: write(ends)
        awaiting = await ends.move()
        await ends.target.device_state()
        assert_equal(ends)
        return awaiting.figures(None)


async def test_on_a_slow_wire_frames_of_the_last_pages_are_smaller() -> None:
    wire = CountingWire(SLOW_FRAME_PAGES)

    await move(wire)

    small, rest = divmod(LAST_PAGES, SMALL_FRAME_PAGES)
    assert wire.passed == (
        [SLOW_FRAME_PAGES] * (PAGES // SLOW_FRAME_PAGES) + [SMALL_FRAME_PAGES] * small + [rest]
    )


async def test_on_a_fast_wire_they_are_not() -> None:
    wire = CountingWire(FRAME_PAGES_MAX)

    await move(wire)

    assert wire.passed == [FRAME_PAGES_MAX] * 2 + [LAST_PAGES]


async def test_a_frame_has_a_page_however_slow_the_wire() -> None:
    wire = CountingWire(1)

    await move(wire)

    assert wire.passed == [1] * (PAGES + LAST_PAGES)


async def test_small_frames_wait_no_more_than_others_for_late_acknowledgements() -> None:
    figures = await move(CountingWire(SLOW_FRAME_PAGES), lambda _nic_name, _mtu: LateWire())

    assert LAST_PAGES > SMALL_FRAME_PAGES * protocol.IN_FLIGHT_FRAMES_MAX, (
        "more small frames than a window has of others"
    )
    assert figures.final is not None
    assert figures.final.duration_s < LateWire.latency_s
