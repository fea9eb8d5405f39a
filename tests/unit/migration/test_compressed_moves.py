"""Whole attempts with the option ``compression``: what is compressed, what is not and why; all arrives."""

import asyncio
import os
import threading
import time
from typing import Any

import numpy as np
import pytest
from tests.unit.migration.ends import DEADLINE_S, Ends, assert_equal, guest_writes, random_memory, two_ends

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration import compression
from ferry_agent.migration.compression import NICENESS, Batch, Compressor
from ferry_agent.migration.ports import MoveFailed
from ferry_agent.migration.processors import ProcessorMeter
from ferry_agent.migration.transports.compressed import FIRST_BATCH_PAGES
from ferry_host.compression import Governor, Pending, Plain, ProcessorBudget
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import MigrationFigures, TransportOption

PAGES = 2000


@pytest.fixture(autouse=True)
def idle_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processors, all of them idle: else the machine that tests run on decides."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2})
    monkeypatch.setattr(ProcessorMeter, "idle_s", lambda _self: 100.0)
    monkeypatch.setattr(compression, "PATIENCE_S", DEADLINE_S)


def text_memory(pages: int = PAGES) -> GuestMemory:
    """Lines of text, no page like another nearby; all touched, none marked."""
    memory = GuestMemory(pages * PAGE_SIZE)
    text = b"".join(b"line %08d, and what follows it\n" % number for number in range(2**16 + 1))
    memory.pages[:] = np.resize(np.frombuffer(text, np.uint8), memory.pages.shape)
    memory.touched[:] = True
    return memory


async def move(ends: Ends) -> MigrationFigures:
    awaiting = await ends.move()
    assert await ends.target.device_state() == b"registers"
    assert_equal(ends)
    return awaiting.figures(None)


async def test_text_arrives_compressed() -> None:
    async with two_ends(text_memory(), option=TransportOption.COMPRESSION) as ends:
        figures = await move(ends)
    (first,) = figures.passes
    assert (first.pages_sent, first.compressed_pages) == (PAGES, PAGES)
    assert first.compressed_bytes < PAGES * PAGE_SIZE / 2
    # Indices and headers come on top.
    assert first.compressed_bytes < figures.bytes_sent < first.compressed_bytes + 4 * PAGES + 1000
    assert figures.compression.startswith("100% of the pages were compressed, to ")


async def test_a_pass_begins_with_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wire has something to do before a whole batch is compressed."""
    submit, sizes = Compressor.submit, list[int]()

    def note_size(compressor: Compressor, batch: Batch) -> None:
        sizes.append(len(batch.rows))
        submit(compressor, batch)

    monkeypatch.setattr(Compressor, "submit", note_size)
    memory = text_memory()
    async with two_ends(memory, option=TransportOption.COMPRESSION) as ends:
        ends.source.on_pause = lambda: memory.mark_written(slice(0, 3 * FIRST_BATCH_PAGES))
        await move(ends)
    first = FIRST_BATCH_PAGES
    assert sizes[:5] == [first, 2 * first, 4 * first, 8 * first, 16 * first]
    assert sizes[-2:] == [first, 2 * first]


async def test_random_memory_is_sent_as_it_is() -> None:
    async with two_ends(random_memory(PAGES), option=TransportOption.COMPRESSION) as ends:
        figures = await move(ends)
    assert figures.passes[0].compressed_pages == 0
    assert figures.bytes_sent > PAGES * PAGE_SIZE
    assert figures.compression == "0% of the pages were compressed; 100% did not shrink"


async def test_without_the_option_nothing_is_compressed() -> None:
    async with two_ends(text_memory()) as ends:
        figures = (await ends.move()).figures(None)
    assert figures.passes[0].compressed_pages == 0
    assert figures.compression == ""


async def test_the_rate_that_the_black_out_is_judged_by_is_that_of_pages() -> None:
    """Else a pass would be copied that compression makes fit."""
    memory = text_memory()
    async with two_ends(memory, option=TransportOption.COMPRESSION) as ends:
        ends.source.hooks["source.copying"] = lambda: guest_writes(memory, 1, len(ends.source.reached))
        figures = await move(ends)
        rates = [report.rate_bytes_per_s for report in ends.source.reports if report.pages_done == PAGES]
    assert rates[0] == pytest.approx(PAGES * PAGE_SIZE / figures.passes[0].duration_s, rel=0.01)


async def test_zero_pages_among_compressed_ones_are_left_out_and_later_named() -> None:
    memory = text_memory()
    blank = [1, 2, 63, 700, 1999]  # none that the scan looks at first
    memory.pages[blank] = 0
    async with two_ends(memory, option=TransportOption.COMPRESSION) as ends:
        late = iter([5, 6, 7])

        def zero_one() -> None:
            if (page := next(late, None)) is not None:
                guest_writes(memory, page, 0)

        ends.source.hooks["source.copying"] = zero_one
        figures = await move(ends)
    first, second = figures.passes[:2]
    assert (first.pages_sent, first.zero_pages) == (PAGES - 5, 5)
    assert first.compressed_pages == PAGES - 5
    assert (second.pages_sent, second.zero_pages) == (0, 1)


async def test_a_guest_that_writes_all_the_time_loses_nothing() -> None:
    memory = text_memory()
    stop = threading.Event()

    def write() -> None:
        draw = np.random.default_rng(2)
        while not stop.wait(0.0005):
            pages = draw.integers(0, PAGES, 8)
            memory.write(pages, memory.pages[draw.integers(0, PAGES, 8)] ^ np.uint8(1))

    guest = threading.Thread(target=write)

    def pause() -> None:
        stop.set()
        guest.join()

    async with two_ends(memory, option=TransportOption.COMPRESSION) as ends:
        ends.source.on_pause = pause
        guest.start()
        try:
            figures = await move(ends)
        finally:
            pause()
    assert figures.passes[0].compressed_pages > 0


async def test_nothing_is_compressed_when_no_processor_is_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessorBudget, "allows", lambda _self, _now_s: False)
    async with two_ends(text_memory(), option=TransportOption.COMPRESSION) as ends:
        figures = await move(ends)
    assert figures.passes[0].compressed_pages == 0
    assert figures.compression == "0% of the pages were compressed; 100% found no processor to spare"


async def test_a_wire_faster_than_the_compressor_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    compress = compression._compress

    def compress_slowly(rows: np.typing.NDArray[np.uint8]) -> compression._Job:
        time.sleep(2 * compression.JUDGED_AFTER_S)
        return compress(rows)

    monkeypatch.setattr(compression, "_compress", compress_slowly)
    async with two_ends(text_memory(32 * 512), option=TransportOption.COMPRESSION) as ends:
        figures = await move(ends)
    assert 0 < figures.passes[0].compressed_pages < 32 * 512
    assert "went out while the wire was faster than the compressor" in figures.compression


async def test_threads_that_never_get_a_processor_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    compress, turn = compression._compress, threading.Event()

    def compress_later(rows: np.typing.NDArray[np.uint8]) -> compression._Job:
        turn.wait(DEADLINE_S)
        return compress(rows)

    monkeypatch.setattr(compression, "_compress", compress_later)
    monkeypatch.setattr(compression, "PATIENCE_S", 0.02)
    try:
        async with two_ends(text_memory(), option=TransportOption.COMPRESSION) as ends:
            figures = await move(ends)
    finally:
        turn.set()
    assert figures.compression == "0% of the pages were compressed; 100% found no processor to spare"


async def test_the_last_copy_is_known_to_be_in_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bool, bool]] = []
    decide = Governor.decide

    def note(governor: Governor, *about: Any, in_pause: bool) -> Pending | Plain:
        asked.append((ends.source.paused, in_pause))
        return decide(governor, *about, in_pause=in_pause)

    monkeypatch.setattr(Governor, "decide", note)
    memory = text_memory()
    async with two_ends(memory, option=TransportOption.COMPRESSION) as ends:
        ends.source.on_pause = lambda: memory.mark_written(slice(0, 100))
        figures = await move(ends)
    assert set(asked) == {(False, False), (True, True)}
    assert figures.final is not None
    assert figures.final.compressed_pages == 100


async def test_batches_under_way_are_bounded_and_the_threads_give_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compress, submit = compression._compress, Compressor.submit
    under_way: list[int] = []
    priorities: set[int] = set()

    def note_priority(rows: np.typing.NDArray[np.uint8]) -> compression._Job:
        priorities.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return compress(rows)

    def note_jobs(compressor: Compressor, batch: Batch) -> None:
        submit(compressor, batch)
        under_way.append(len(compressor._jobs))

    monkeypatch.setattr(compression, "_compress", note_priority)
    monkeypatch.setattr(Compressor, "submit", note_jobs)
    own_priority = os.getpriority(os.PRIO_PROCESS, 0)
    async with two_ends(text_memory(16 * 512), option=TransportOption.COMPRESSION) as ends:
        await move(ends)
    assert priorities == {max(NICENESS, own_priority)}
    assert max(under_way) <= compression.THREADS_MAX + 1
    assert os.getpriority(os.PRIO_PROCESS, 0) == own_priority


async def test_threads_end_with_an_attempt_that_fails() -> None:
    memory = text_memory()
    memory.mark_written(slice(0, PAGES))
    async with two_ends(memory, option=TransportOption.COMPRESSION) as ends:

        async def break_off() -> None:
            ends.servicer.drop("move-1")
            await asyncio.Event().wait()

        ends.source.hooks["source.copying"] = break_off
        with pytest.raises(MoveFailed):
            await ends.move()
        assert memory.dirty.count() == PAGES
    give_up_at_s = time.monotonic() + DEADLINE_S
    while any(thread.name.startswith("compress") for thread in threading.enumerate()):
        assert time.monotonic() < give_up_at_s
        await asyncio.sleep(0.01)


async def test_an_error_of_a_thread_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_rows: object) -> None:
        raise MemoryError

    monkeypatch.setattr(compression, "_compress", fail)
    memory = text_memory()
    memory.mark_written(slice(0, PAGES))
    async with two_ends(memory, option=TransportOption.COMPRESSION) as ends:
        with pytest.raises(MemoryError):
            await ends.move()
        assert memory.dirty.count() == PAGES
        await ends.target.refusal()
