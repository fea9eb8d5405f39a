"""LZ4 in threads of low priority, ahead of the sending: the shell around ``ferry_host.compression``.

A batch is gathered on the event loop, compressed in a thread, and made a frame on the event loop again when
the wire takes it. So a thread does nothing but LZ4, without the interpreter: one that has it, on a processor
that others keep busy, would make everybody wait until it gets its turn.

Held at most, beside the frames in flight: the pages of each batch under way (one more than there are
threads), and for each thread LZ4's output and the pages of a batch that was given up: 20 MiB for three.
"""

import asyncio
import os
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import lz4.block
import numpy as np
from numpy.typing import NDArray

from ferry_agent.migration.frames import EncodedFrame, compressed_frame, plain_frame
from ferry_agent.migration.processors import ProcessorMeter
from ferry_agent.migration.tally import Tally
from ferry_host.compression import WINDOW_S, WIRE_LOW_FRAMES, Governor, Pending, Plain, Window

THREADS_MAX = 3
"""Three threads fill a link of 5 to 10 Gbit/s, and with what is in flight they hold 52 MiB."""

NICENESS = 10
"""A thread of this priority gets a tenth of a processor that a guest wants for itself, until the next look at
the processors ends even that. Linux has a priority for each thread (setpriority(2), under "C library/kernel
differences"), and anyone may lower one's own. ``SCHED_IDLE`` would be too low: the interpreter, which such a
thread needs to say that it is done, would wait with it for a turn that does not come."""

PATIENCE_S = 0.02
"""A batch takes 4 ms of a processor: threads that finish none in this time are kept from it, and a wire that
has nothing else to do does not wait for them. In the pause that would be black-out."""

JUDGED_AFTER_S, DRY_SENDING_SHARE = 0.05, 0.25
"""A wire is taken for faster than the compressor if, by the time that one was waited for so long, the
wire was waited for less than a quarter of that. Less time proves nothing: buffers take the first frames."""

BATCH_PAGES_MIN = 4
"""Fewer pages take longer to be handed to a thread and back than to be sent."""


class FrameLink(Protocol):
    """What takes the frames: one stream, whose frames are numbered in the order in which they are sent."""

    tally: Tally
    """Where what is compressed is counted."""

    @property
    def frames_sent(self) -> int:
        """The number of the next frame."""

    @property
    def frames_acked(self) -> int:
        """Frames that the target has checked and written."""

    async def send_frame(self, frame: EncodedFrame) -> None:
        """Take frame number ``frames_sent``. Raises FerryError if the link broke."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pages gathered for a frame: ``rows`` is (carried pages, 4096) uint8, which nobody writes any more."""

    page_indices: NDArray[np.int64]
    zero_indices: NDArray[np.int64]
    rows: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Job:
    payload: bytes
    processor_s: float
    waited_s: float
    """Pushed off the processor; waiting for the interpreter does not count."""


class Compressor:
    """Compresses batches of one attempt and hands their frames to its link. For one task at a time.

    Frames get their numbers when they leave, in the order in which they are ready, and plain ones overtake
    them: a pass names each page once, so that the order within it is nothing to the target. ``flush`` at the
    end of every pass.
    """

    def __init__(self, link: FrameLink, meter: ProcessorMeter | None = None) -> None:
        self._link = link
        self._meter = ProcessorMeter() if meter is None else meter
        threads = max(1, min(THREADS_MAX, self._meter.processors))
        self._governor = Governor(threads, time.monotonic())
        self._threads = ThreadPoolExecutor(threads, "compress", initializer=_lower_priority)
        self._jobs: dict[asyncio.Future[_Job], Batch] = {}
        self._measured_at_s = time.monotonic()
        self._own_s = self._waited_s = 0.0
        self._sending_s = self._waiting_s = 0.0
        """For so long the wire, and the compressor, were waited for since they were last compared."""
        self.in_pause = False
        """Whether the guest is paused and the black-out waits for what is sent."""

    async def takes(self, pages: int) -> bool:
        """Hand over what is ready; whether the next batch, of so many pages, is to be submitted, not sent.

        Raises FerryError if the link broke.
        """
        if pages < BATCH_PAGES_MIN:
            return False
        while True:
            await self._hand_over_ready()
            self._look_at_processors()
            choice = self._choose()
            if choice is Pending.COMPRESS:
                return True
            if isinstance(choice, Plain):
                self._governor.sent_plain(pages, choice)
                return False
            in_vain = await self._waited_in_vain()
            if self._waiting_s >= JUDGED_AFTER_S:
                if self._sending_s < self._waiting_s * DRY_SENDING_SHARE:
                    self._governor.wire_ran_dry(time.monotonic())
                self._sending_s = self._waiting_s = 0.0
            if in_vain:
                self._governor.sent_plain(pages, Plain.NO_PROCESSOR)
                return False

    def submit(self, batch: Batch) -> None:
        """Have a batch compressed; its frame is sent by a later ``takes`` or ``flush``."""
        self._governor.begun()
        loop = asyncio.get_running_loop()
        self._jobs[loop.run_in_executor(self._threads, _compress, batch.rows)] = batch

    async def flush(self) -> None:
        """Hand over everything that was submitted. Raises FerryError if the link broke."""
        while self._jobs:
            in_vain = await self._waited_in_vain()
            await self._hand_over_ready()
            if in_vain:
                await self._give_up()
        self._sending_s = self._waiting_s = 0.0

    def explanation(self) -> str:
        """What was compressed and why the rest was not, in words."""
        return self._governor.explanation()

    def close(self) -> None:
        """Let the threads end with the batches that they are at; nothing of them is sent any more."""
        for job in self._jobs:
            if not job.cancel():
                job.exception()  # the first one has ended the attempt already
        self._jobs.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _choose(self) -> Pending | Plain:
        unacked_frames = self._link.frames_sent - self._link.frames_acked
        now_s = time.monotonic()
        return self._governor.decide(len(self._jobs), unacked_frames, now_s, in_pause=self.in_pause)

    async def _waited_in_vain(self) -> bool:
        """Wait for a batch; whether none was ready in time and the wire may have nothing to do."""
        began_at_s = time.monotonic()
        await asyncio.wait(self._jobs, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        self._waiting_s += time.monotonic() - began_at_s
        unacked_frames = self._link.frames_sent - self._link.frames_acked
        return unacked_frames <= WIRE_LOW_FRAMES and not any(job.done() for job in self._jobs)

    async def _give_up(self) -> None:
        """Send what is still being compressed as it is. Threads may go on reading its pages, a copy."""
        for job, batch in list(self._jobs.items()):
            del self._jobs[job]
            job.cancel()
            self._governor.sent_plain(len(batch.rows), Plain.NO_PROCESSOR)
            sequence = self._link.frames_sent
            frame = plain_frame(sequence, batch.page_indices, batch.zero_indices, batch.rows)
            await self._link.send_frame(frame)

    async def _hand_over_ready(self) -> None:
        for future in [one for one in self._jobs if one.done()]:
            batch, job = self._jobs.pop(future), future.result()
            self._own_s += job.processor_s
            self._waited_s += job.waited_s
            frame, began_at_s = self._frame_of(batch, job), time.monotonic()
            await self._link.send_frame(frame)
            self._sending_s += time.monotonic() - began_at_s

    def _frame_of(self, batch: Batch, job: _Job) -> EncodedFrame:
        pages, raw_bytes, payload_bytes = len(batch.rows), batch.rows.nbytes, len(job.payload)
        sequence = self._link.frames_sent
        if not self._governor.finished(pages, raw_bytes, payload_bytes, job.processor_s):
            return plain_frame(sequence, batch.page_indices, batch.zero_indices, batch.rows)
        tally = self._link.tally
        tally.compressed_pages += pages
        tally.compressed_bytes += payload_bytes
        tally.saved_bytes += raw_bytes - payload_bytes
        return compressed_frame(sequence, batch.page_indices, batch.zero_indices, batch.rows, job.payload)

    def _look_at_processors(self) -> None:
        now_s = time.monotonic()
        duration_s = now_s - self._measured_at_s
        if duration_s >= WINDOW_S:
            window = Window(duration_s, self._meter.idle_s(), self._own_s, self._waited_s)
            self._governor.budget.observe(window)
            self._measured_at_s, self._own_s, self._waited_s = now_s, 0.0, 0.0


def _lower_priority() -> None:
    thread = threading.get_native_id()
    # An agent that an admin has put lower still stays there: it may not raise itself again.
    niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread))
    os.setpriority(os.PRIO_PROCESS, thread, niceness)


def _compress(rows: NDArray[np.uint8]) -> _Job:
    preempted = _preemptions()
    began_at_s, processor_began_s = time.monotonic(), time.thread_time()
    # The default mode: at 1 Gbit/s, faster ones cost more on the wire than they save here (acceleration 8 is
    # 1.2 times as fast on real files, and leaves 50 % of them instead of 41 %).
    payload = lz4.block.compress(rows.data, store_size=False)
    processor_s = time.thread_time() - processor_began_s
    waited_s = time.monotonic() - began_at_s - processor_s if _preemptions() > preempted else 0.0
    return _Job(payload, processor_s, waited_s)


def _preemptions() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw
