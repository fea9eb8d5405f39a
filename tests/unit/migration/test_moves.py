"""Whole attempts, source and target, over gRPC on one event loop."""

import asyncio
import threading
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.migration import ends as two
from tests.unit.migration.ends import (
    DEADLINE_S,
    assert_equal,
    guest_writes,
    random_memory,
)

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration import copier, protocol, source
from ferry_agent.migration.copier import Copied, PageCopier
from ferry_agent.migration.page_order import PageOrder, as_they_stand, rising
from ferry_agent.migration.ports import UnshapedWire
from ferry_agent.migration.transports import direct
from ferry_agent.migration.zero_search import GLANCE_PAGES, ZeroSearch
from ferry_host import convergence
from ferry_host.scale import Scale
from ferry_types.limits import PAGE_SIZE
from ferry_types.messages import MigrationProgress
from ferry_types.migrations import TransportOption

PAGES = 2000


pytestmark = pytest.mark.usefixtures("option")

two_ends = two.two_ends


async def test_an_idle_guest_arrives_page_by_page(option: TransportOption) -> None:
    async with two_ends(random_memory(PAGES)) as ends:
        awaiting = await ends.move()
        assert await ends.target.device_state() == b"registers"
        assert_equal(ends)
        assert ends.target.memory.touched.all()
        first_quantum_at_s = time.monotonic()
        figures = awaiting.figures(first_quantum_at_s)

    assert [(one.index, one.pages_sent, one.dirty_pages_after) for one in figures.passes] == [(1, PAGES, 0)]
    assert figures.final is not None
    assert (figures.final.index, figures.final.pages_sent) == (0, 0)
    assert figures.explanation == "switched after pass 1: no page was dirty any more"
    assert figures.verified is True
    assert figures.bytes_sent > PAGES * PAGE_SIZE
    assert figures.blackout_s is not None
    assert 0 < figures.blackout_s < DEADLINE_S
    assert 0 < figures.brownout_s < DEADLINE_S
    assert ends.source.reports[-1].pages_done == PAGES
    assert ends.source.reached == [
        "source.connecting",
        "opened",
        "source.arming",  # while the last frames travel
        "source.copying",
        "source.paused",
        "source.final_sent",
    ]
    receiving = ["target.receiving"] * (2 if option is TransportOption.SMB else 1)
    assert ends.target.reached == [*receiving, "target.before_ready"]


async def test_a_move_that_is_held_while_it_copies_is_not_armed_yet() -> None:
    async with two_ends(random_memory(PAGES)) as ends:
        ends.source.hooks["source.copying"] = lambda: None
        await ends.move()
        await ends.target.device_state()
        assert ends.source.reached[1:4] == ["opened", "source.copying", "source.arming"]


class SlowWire(UnshapedWire):
    """Takes a frame of 16 pages each millisecond, the first ones too."""

    frame_bytes = 16 * PAGE_SIZE

    async def pass_bytes(self, size_bytes: int) -> None:
        await asyncio.sleep(size_bytes / self.frame_bytes / 1000)

    def pass_bytes_blocking(self, size_bytes: int) -> None:
        time.sleep(size_bytes / self.frame_bytes / 1000)


async def test_the_hand_off_is_armed_once_most_pages_have_arrived_not_when_the_window_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(direct, "WINDOW_FRAMES_MAX", protocol.IN_FLIGHT_FRAMES_MAX)
    arrived = []
    async with two_ends(random_memory(PAGES // 2), source_wire_of=lambda _nic_name, _mtu: SlowWire()) as ends:
        touched = ends.target.memory.touched
        ends.source.hooks["source.arming"] = lambda: arrived.append(np.count_nonzero(touched))
        await ends.move()
        await ends.target.device_state()

    assert arrived[0] > PAGES // 4


async def test_whether_the_switch_is_near_is_judged_by_the_pass_under_way_in_emulated_units(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[int, int]] = []

    def is_near(pass_index: int, pass_pages: int, *_others: object) -> bool:
        asked.append((pass_index, pass_pages))
        return False

    monkeypatch.setattr(convergence, "is_switch_near", is_near)
    memory = random_memory(PAGES)
    async with two_ends(memory) as ends:

        def on_report(progress: MigrationProgress) -> None:
            if progress.pass_index == 1:
                guest_writes(memory, 1, 1)

        ends.scale = Scale(4)
        ends.source.on_report = on_report
        await ends.move()
        await ends.target.device_state()
    assert set(asked) == {(1, 4 * PAGES), (2, 4)}


@pytest.mark.parametrize(("rouse_s", "by_then"), [(0.0, ["begun", "done"]), (0.2, ["begun"])])
async def test_the_target_is_told_that_the_pause_is_near_but_not_waited_for_long(
    rouse_s: float, by_then: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not rouse_s:
        monkeypatch.setattr(protocol, "ROUSE_S_MAX", DEADLINE_S)
    async with two_ends(random_memory(64)) as ends:
        ends.target.rouse_s = rouse_s
        at_the_pause: list[list[str]] = []
        ends.source.on_pause = lambda: at_the_pause.append(ends.target.rouses[:])
        await ends.move()
        assert await ends.target.device_state() == b"registers"
    assert at_the_pause == [by_then]


async def test_a_guest_that_writes_all_the_time_loses_nothing() -> None:
    memory = random_memory(PAGES)
    stop = threading.Event()

    def write() -> None:
        draw = np.random.default_rng(2)
        while not stop.is_set():
            pages = draw.integers(0, PAGES, 8)
            memory.write(pages, draw.integers(0, 256, (8, PAGE_SIZE), np.uint8))

    guest = threading.Thread(target=write)

    def pause() -> None:
        stop.set()
        guest.join()

    async with two_ends(memory) as ends:
        ends.source.on_pause = pause
        guest.start()
        try:
            awaiting = await ends.move(pass_limit=5)
            await ends.target.device_state()
        finally:
            pause()
        assert_equal(ends)
        assert 1 <= len(awaiting.figures(None).passes) <= 5


async def test_the_pass_limit_ends_the_chase() -> None:
    memory = random_memory(PAGES)
    async with two_ends(memory) as ends:
        ends.source.hooks["source.copying"] = lambda: guest_writes(memory, 1, len(ends.source.reached))
        awaiting = await ends.move(pass_limit=3)
        await ends.target.device_state()
        assert_equal(ends)
        figures = awaiting.figures(None)
    assert [one.pages_sent for one in figures.passes] == [PAGES, 1, 1]
    assert figures.final is not None
    assert figures.final.pages_sent == 1
    assert figures.explanation.startswith("switched at the limit of 3 passes: the guest dirtied ")


async def test_when_arming_takes_long_what_became_dirty_meanwhile_is_copied_before_the_pause() -> None:
    memory = random_memory(PAGES)
    async with two_ends(memory) as ends:

        async def take_long() -> None:
            await passed.wait()
            guest_writes(memory, 1, 1)

        passed = asyncio.Event()
        ends.source.on_report = lambda _progress: passed.set()
        ends.source.hooks["source.arming"] = take_long
        awaiting = await ends.move()
        await ends.target.device_state()
        assert_equal(ends)
        figures = awaiting.figures(None)
    assert [one.pages_sent for one in figures.passes] == [PAGES, 1]
    assert figures.final is not None
    assert figures.final.pages_sent == 0


class CopyThenClear(PageCopier):
    """Trap 22. The classic bug: marks are cleared when the copy is done."""

    _uncleared: NDArray[np.int64]

    def take_touched(self, *, least_recently_used_first: bool) -> PageOrder:
        assert least_recently_used_first
        self._uncleared = self._memory.dirty._find()
        return rising(self._memory.touched | self._memory.dirty._marks)

    def take_dirty(self) -> PageOrder:
        self._uncleared = self._memory.dirty._find()
        return as_they_stand(self._uncleared)

    async def copy(self, *arguments: object) -> Copied:
        copied = await super().copy(*arguments)  # type: ignore[arg-type]
        self._memory.dirty._clear(self._uncleared)
        return copied

    async def copy_last(self, search: ZeroSearch) -> Copied:
        copied = await super().copy_last(search)
        self._memory.dirty._clear(self._uncleared)
        return copied


@pytest.mark.parametrize("copier", [PageCopier, CopyThenClear])
async def test_a_page_written_behind_the_copy_is_sent_again(
    copier: type[PageCopier], option: TransportOption, monkeypatch: pytest.MonkeyPatch
) -> None:
    if copier is CopyThenClear and option is TransportOption.DIRECT:
        pytest.skip("its threads may copy the page after the write")
    monkeypatch.setattr(source, "PageCopier", copier)
    monkeypatch.setattr(source, "PROGRESS_INTERVAL_S", 0.0)
    memory = random_memory(PAGES)
    guest_writes(memory, 3, 0x11)
    async with two_ends(memory) as ends:

        def write_once(progress: MigrationProgress) -> None:
            ends.source.on_report = lambda _progress: None
            assert progress.pages_done > 0
            guest_writes(memory, 3, 0x22)

        ends.source.on_report = write_once
        if copier is CopyThenClear:
            await ends.move()
            assert (await ends.target.refusal()).message == "memory at the target differs from the source's"
            assert (ends.target.memory.pages[3] == 0x11).all()
        else:
            await ends.move()
            await ends.target.device_state()
            assert_equal(ends)


async def test_zero_pages_are_not_sent_and_untouched_ones_not_even_read() -> None:
    memory = GuestMemory(PAGES * PAGE_SIZE)
    memory.pages[:100] = 0
    memory.touched[:100] = True
    memory.pages[50, 2000] = 1
    memory.pages[PAGES - 1] = 9  # never marked as touched: nobody may look
    async with two_ends(memory) as ends:
        awaiting = await ends.move(verify=False)
        await ends.target.device_state()
        assert np.flatnonzero(ends.target.memory.touched).tolist() == [50]
        assert (ends.target.memory.pages[50] == memory.pages[50]).all()
        (figures,) = awaiting.figures(None).passes
        assert (figures.pages_sent, figures.zero_pages) == (1, 99)
        assert figures.bytes_sent < 2 * PAGE_SIZE


async def test_a_page_that_became_zero_after_it_was_sent_is_zero_on_arrival() -> None:
    memory = random_memory(PAGES)
    async with two_ends(memory) as ends:

        def become_zero() -> None:
            if ends.source.reached.count("source.copying") == 1:
                guest_writes(memory, 5, 0)

        ends.source.hooks["source.copying"] = become_zero
        awaiting = await ends.move()
        await ends.target.device_state()
        assert not ends.target.memory.pages[5].any()
        assert_equal(ends)
        assert [one.zero_pages for one in awaiting.figures(None).passes] == [0, 1]


async def test_zeros_among_busy_pages_show_once_they_are_copied() -> None:
    memory = random_memory(PAGES)
    memory.pages[[5, 700, 1999]] = 0
    memory.pages[9] = 0
    memory.pages[9, 4000] = 1
    async with two_ends(memory) as ends:

        def become_zero() -> None:
            if ends.source.reached.count("source.copying") == 1:
                memory.pages[:] = 1
                memory.pages[[6, 700, 1500]] = 0
                memory.mark_written(slice(None))

        ends.source.hooks["source.copying"] = become_zero
        awaiting = await ends.move()
        await ends.target.device_state()
        assert_equal(ends)
        first, second = awaiting.figures(None).passes
        assert (first.pages_sent, first.zero_pages) == (PAGES - 3, 3)
        assert (second.pages_sent, second.zero_pages) == (PAGES - 3, 3)


@pytest.mark.parametrize(("one_in", "is_trusted"), [(64, True), (8, False)])
async def test_glances_are_trusted_unless_they_overlook_many_zero_pages(
    one_in: int, is_trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    glances = []

    class Search(ZeroSearch):
        def __init__(self, words: NDArray[np.uint64], pages: PageOrder, *, glance: bool) -> None:
            glances.append(glance)
            super().__init__(words, pages, glance=glance)

    monkeypatch.setattr(copier, "ZeroSearch", Search)
    memory = random_memory(PAGES)
    memory.pages[::one_in] = 0
    glanced_at = np.arange(PAGES)[PAGES // GLANCE_PAGES // 2 :: PAGES // GLANCE_PAGES]
    assert memory.pages[glanced_at].any(axis=1).all()
    async with two_ends(memory) as ends:

        def write_once() -> None:
            if ends.source.reached.count("source.copying") == 1:
                memory.mark_written(slice(None))

        ends.source.hooks["source.copying"] = write_once
        awaiting = await ends.move()
        await ends.target.device_state()
        assert_equal(ends)

    assert [one.zero_pages for one in awaiting.figures(None).passes] == [-(-PAGES // one_in)] * 2
    assert glances[:2] == [True, is_trusted]


async def test_many_pages_that_became_zero_travel_in_frames_of_bounded_size() -> None:
    pages = 70_000
    memory = GuestMemory(pages * PAGE_SIZE)
    memory.pages[:, 7] = 1
    memory.touched[:] = True
    async with two_ends(memory) as ends:

        def become_zero() -> None:
            if ends.source.reached.count("source.copying") == 1:
                memory.pages[:] = 0
                memory.mark_written(slice(None))

        ends.source.hooks["source.copying"] = become_zero
        awaiting = await ends.move()
        await ends.target.device_state()
        assert not ends.target.memory.pages.any()
        assert awaiting.figures(None).passes[1].zero_pages == pages


async def test_between_machines_the_clocks_are_compared() -> None:
    async with two_ends(random_memory(8)) as ends:
        awaiting = await ends.move(boot_id="another machine")
        await ends.target.device_state()
        # Both ends are in this process after all, so the estimate has to come out near nothing.
        offset_s = awaiting._link.clock_offset_s
        assert offset_s != 0
        assert abs(offset_s) < 0.05
