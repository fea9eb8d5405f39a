"""One raw connection of option ``direct`` at the target: checks frames, receives pages where they belong."""

import socket
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64

from ferry_agent.migration import direct_wire
from ferry_agent.migration.direct_wire import ANSWER, HEADER, SCATTERED, Verdict
from ferry_agent.migration.frame_codec import FrameError
from ferry_agent.migration.frames import checked_indices
from ferry_agent.migration.ports import Wire
from ferry_agent.migration.receiver import ArrivingLane, Receiver
from ferry_types.errors import FerryError, failed
from ferry_types.limits import FRAME_PAGES_MAX, FRAME_ZERO_PAGES_MAX, PAGE_SIZE

_NO_INDICES: NDArray[np.uint32] = np.empty(0, np.uint32)


class _Named(NamedTuple):
    """What a frame is to write, once it is known to be in memory."""

    runs: list[tuple[int, int]]
    pages: NDArray[np.uint32] | None
    """None if they are a run."""
    zeros: NDArray[np.uint32]

    @property
    def in_many_pieces(self) -> bool:
        """Whether they are received aside, and scattered from there."""
        return len(self.runs) > direct_wire.RUNS_MAX


class _Taken(NamedTuple):
    """A frame whose pages were received."""

    pages: int
    """Pages that it names, zero ones too."""
    size_bytes: int
    checksum: int
    verdict: Verdict
    answer_wanted: bool


class ArrivingPages:
    """``run`` is for a thread of its own. The connection blocks, with SO_RCVTIMEO set."""

    def __init__(
        self,
        lane: ArrivingLane,
        receiver: Receiver,
        connection: socket.socket,
        wire: Wire,
    ) -> None:
        self._lane = lane
        self._receiver = receiver
        self._connection = connection
        self._wire = wire
        self._pages = receiver.slot.memory.pages
        self._touched = receiver.slot.memory.touched
        self._flat = self._pages.data.cast("B")
        self._scattered: NDArray[np.uint8] = np.empty((FRAME_PAGES_MAX, PAGE_SIZE), np.uint8)
        self._indices = bytearray(4 * (FRAME_PAGES_MAX + FRAME_ZERO_PAGES_MAX))

    def run(self) -> None:
        """Take frames until the connection ends. Always raises: FrameError, or FerryError with the reason."""
        sequence = 0
        header = bytearray(HEADER.size)
        try:
            while self._await(header):
                frame = self._take(sequence, header)
                self._wire.pass_bytes_blocking(frame.size_bytes)
                if frame.verdict is Verdict.GOOD:
                    self._lane.count(frame.pages, frame.checksum)
                self._receiver.counted_in_thread()
                if frame.answer_wanted or frame.verdict is not Verdict.GOOD:
                    self._connection.sendall(ANSWER.pack(sequence, frame.verdict))
                sequence += 1
        except BlockingIOError:
            raise FrameError("it stopped in the middle") from None
        except OSError as error:
            raise FerryError(failed(f"lane {self._lane.number} from the source broke: {error}")) from error
        raise FerryError(failed(f"the source's lane {self._lane.number} ended before everything had arrived"))

    def _await(self, header: bytearray) -> bool:
        """Wait for the next frame; False if there is none. Silence is the receiver's to judge."""
        while True:
            try:
                received = self._connection.recv_into(header, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                continue
            if received not in (0, len(header)):
                raise FrameError("its header is cut off")
            return bool(received)

    def _take(self, sequence: int, header: bytearray) -> _Taken:
        """Receive a frame's pages."""
        number, page_count, zero_count, first, answer_wanted, checksum = HEADER.unpack(header)
        if number != sequence:
            raise FrameError(f"frame {number} came where frame {sequence} was due")
        if page_count > FRAME_PAGES_MAX or zero_count > FRAME_ZERO_PAGES_MAX:
            raise FrameError(f"{page_count} pages and {zero_count} zero pages in one frame are too many")
        split = 4 * page_count if first == SCATTERED else 0
        indices = memoryview(self._indices)[: split + 4 * zero_count]
        _check_whole(direct_wire.receive_all(self._connection, [indices]))
        named = self._checked(first, page_count, indices[:split], indices[split:])
        with self._receiver.gate.writing() as may:
            if not may:
                raise FrameError("a frame came after the last one")
            found = direct_wire.begin_checksum(first, page_count, indices)
            self._write(named, found)
            whole = found.intdigest() == checksum
            if whole:
                self._finish(named)
        size_bytes = HEADER.size + len(indices) + page_count * PAGE_SIZE
        verdict = Verdict.GOOD if whole else Verdict.TORN
        return _Taken(page_count + zero_count, size_bytes, checksum, verdict, answer_wanted)

    def _checked(self, first: int, page_count: int, page_bytes: memoryview, zero_bytes: memoryview) -> _Named:
        """What the numbers name. Raises FrameError for one that is out of range."""
        in_memory = len(self._pages)
        zeros = _NO_INDICES
        if len(zero_bytes):
            zeros = checked_indices(zero_bytes, FRAME_ZERO_PAGES_MAX, in_memory, "zero pages")
        if first == SCATTERED:
            pages = checked_indices(page_bytes, FRAME_PAGES_MAX, in_memory, "pages")
            return _Named(direct_wire.runs_of(pages), pages, zeros)
        if first + page_count > in_memory:
            last = first + page_count - 1
            raise FrameError(f"page {last} is out of range: memory has {in_memory} pages")
        return _Named([(first, page_count)], None, zeros)

    def _write(self, named: _Named, checksum: xxh3_64) -> None:
        """Receive contents where they belong, or aside if they are in too many pieces, and hash them."""
        if named.pages is not None and named.in_many_pieces:
            views = [self._scattered[: len(named.pages)].data.cast("B")]
        else:
            views = direct_wire.views_of(self._flat, named.runs)
            # Whatever becomes of the frame: these pages are not known to be zero any more.
            for first, count in named.runs:
                self._touched[first : first + count] = True
        if len(views) == 1:
            _check_whole(direct_wire.receive_run(self._connection, views[0], checksum))
        else:
            _check_whole(direct_wire.receive_all(self._connection, views))
            for view in views:
                checksum.update(view)

    def _finish(self, named: _Named) -> None:
        """The frame is whole."""
        if named.pages is not None and named.in_many_pieces:
            self._pages[named.pages] = self._scattered[: len(named.pages)]
            self._touched[named.pages] = True
        if len(named.zeros):
            # Zeros for pages that were never touched would only cost memory.
            self._pages[named.zeros[self._touched[named.zeros]]] = 0


def _check_whole(is_whole: bool) -> None:
    if not is_whole:
        raise FrameError("it is cut off")
