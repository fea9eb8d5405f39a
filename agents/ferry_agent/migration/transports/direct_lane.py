"""One raw connection of option ``direct`` at the source: a thread sends, the event loop takes the answers."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration import direct_wire, protocol
from ferry_agent.migration.direct_wire import ANSWER, HEADER, OPENING, SCATTERED, Verdict
from ferry_agent.migration.frames import NO_PAGES
from ferry_agent.migration.ports import Wire
from ferry_agent.migration.transports.lanes import LanePlan
from ferry_agent.migration.transports.transport import Indices, SentPages
from ferry_types.errors import FerryError, Refusal, failed
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE
from ferry_wire.addresses import parse_address

WINDOW_FRAMES_MAX = 64
"""Frames of all lanes that were given and not answered. They hold no copies of pages, only page numbers."""

ANSWER_EVERY_FRAMES = 8
"""A lane asks for an answer so often, or when it has nothing more to send: each wakes the event loop."""


class Frame(NamedTuple):
    """What a lane's thread is to send."""

    pages: Indices
    zeros: Indices
    in_place: bool
    """Without copying the pages, which may be torn then."""


Frames = SimpleQueue[Frame | None]
"""The next frames of all lanes: each takes one when it is done with another. None ends one lane's thread."""


class Shipment(NamedTuple):
    """A frame that was sent."""

    sequence: int
    page_indices: Indices
    zero_indices: Indices
    checksum: int
    size_bytes: int

    @property
    def pages(self) -> int:
        """Pages that it names, zero ones too; none if the lane has added it for the sake of an answer."""
        return len(self.page_indices) + len(self.zero_indices)


class _Look(NamedTuple):
    """A frame's contents, as they were when they were hashed."""

    first: int
    """Of the run that the pages are, or SCATTERED."""
    indices: bytes
    """As they are sent."""
    views: Sequence[memoryview]
    zero_rows: NDArray[np.bool_] | None
    """Which of the pages have turned out zero; None if none has."""
    checksum: int


class DirectLane:
    """Frames go out in the order in which they are taken; each is answered, several with one answer.

    A thread of its own sends, without the event loop between two frames. ``on_answer`` is told what the
    target says of a frame, ``on_nothing`` that a frame had nothing in it that was worth sending, ``on_death``
    that the lane has ended or misbehaves; all on the event loop.
    """

    def __init__(
        self,
        plan: LanePlan,
        target: str,
        memory: GuestMemory,
        sent_pages: SentPages,
        wire: Wire,
        frames: Frames,
        on_answer: Callable[[Shipment, Verdict], None],
        on_nothing: Callable[[], None],
        on_death: Callable[[Refusal], None],
    ) -> None:
        self.number = plan.number
        self._plan = plan
        self._target = target
        self._pages = memory.pages
        self._words = memory.words
        self._flat = memory.pages.data.cast("B")
        self._sent_pages = sent_pages
        self.wire = wire
        self._frames = frames
        self._on_answer = on_answer
        self._on_nothing = on_nothing
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"lane {plan.number}")
        self._gathered: NDArray[np.uint8] = np.empty((FRAME_PAGES_MAX, PAGE_SIZE), np.uint8)
        self._sequence = 0
        self._unasked = 0
        """Frames since the last of which an answer is wanted."""
        self._sent: deque[Shipment] = deque()
        """Unanswered. The thread appends, the event loop takes away."""
        self._progress_at_s = 0.0
        self._answers = bytearray()
        self._connection: socket.socket | None = None

    @property
    def quiet(self) -> bool:
        """Whether all is answered, and the thread will send nothing that it was not given."""
        return not self._unasked and not self._sent

    @property
    def waits_since_s(self) -> float | None:
        """Since when the target owes an answer, by the loop's clock; None while it owes none."""
        return self._progress_at_s if self._sent else None

    async def open(self, port: int, secret: bytes) -> None:
        """Connect to a port of the route's host, and prove the secret. Raises FerryError, OSError."""
        peer = parse_address(self._plan.address)
        if peer.ip is None:
            found = await self._loop.getaddrinfo(peer.host, port, type=socket.SOCK_STREAM)
        else:  # without the thread that a name takes
            found = socket.getaddrinfo(peer.host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        family, _, _, _, address = found[0]
        connection = self._connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        await self._loop.sock_connect(connection, address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = OPENING.pack(direct_wire.MAGIC, self.number, secret)
        await self._loop.sock_sendall(connection, opening)
        answer = b""
        while len(answer) < ANSWER.size:
            part = await self._loop.sock_recv(connection, ANSWER.size - len(answer))
            if not part:
                raise FerryError(failed(f"{self._target} turned lane {self.number} of the move away"))
            answer += part
        if ANSWER.unpack(answer) != (0, Verdict.JOINED):
            raise FerryError(failed(f"{self._target} sent what is not of the migration protocol"))
        connection.setblocking(True)
        direct_wire.set_timeout(connection, socket.SO_SNDTIMEO, protocol.ANSWER_S_MAX)
        self._loop.add_reader(connection, self._read_answers)
        self._loop.run_in_executor(self._executor, self._run).add_done_callback(self._thread_ended)

    async def close(self) -> None:
        """End the connection and the thread, which reads guest memory no more then."""
        connection = self._connection
        if connection is not None and connection.fileno() >= 0:
            self._loop.remove_reader(connection)
            with contextlib.suppress(OSError):  # it was never connected, or has ended
                connection.shutdown(socket.SHUT_RDWR)
        self._frames.put(None)
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        if connection is not None:
            connection.close()

    # --- in the lane's thread -------------------------------------------------------------------------

    def _run(self) -> None:
        """Send frames until there comes None. Raises OSError, FerryError."""
        while (frame := self._next()) is not None:
            if not self._ship(frame):
                self._loop.call_soon_threadsafe(self._on_nothing)

    def _next(self) -> Frame | None:
        try:
            return self._frames.get_nowait()
        except Empty:
            if self._unasked:  # another lane has sent what came last, or all of it was zero
                self._send(NO_PAGES, NO_PAGES, self._look(NO_PAGES, NO_PAGES, in_place=True))
            return self._frames.get()

    def _ship(self, frame: Frame) -> bool:
        """Hash a frame and send it; False if all its pages were zero, and nobody needs to know."""
        pages, zeros, in_place = frame
        look = self._look(pages, zeros, in_place)
        if look.zero_rows is not None:
            pages, zeros = self._sent_pages.sift(pages, zeros, look.zero_rows)
            look = self._look(pages, zeros, in_place)
        if not len(pages) and not len(zeros):
            return False
        run = slice(look.first, look.first + len(pages))
        self._sent_pages.note(pages if look.first == SCATTERED else run, zeros)
        self._send(pages, zeros, look)
        return True

    def _send(self, pages: Indices, zeros: Indices, look: _Look) -> None:
        checksum = look.checksum
        size_bytes = HEADER.size + len(look.indices) + len(pages) * PAGE_SIZE
        self.wire.pass_bytes_blocking(size_bytes)
        ask = self._unasked + 1 >= ANSWER_EVERY_FRAMES or self._frames.empty()
        header = HEADER.pack(self._sequence, len(pages), len(zeros), look.first, ask, checksum)
        if not self._sent:
            self._progress_at_s = self._loop.time()
        self._sent.append(Shipment(self._sequence, pages, zeros, checksum, size_bytes))
        self._sequence += 1
        self._unasked = 0 if ask else self._unasked + 1  # after, for the sake of `quiet`
        assert self._connection is not None
        direct_wire.send_all(self._connection, [header + look.indices, *look.views])

    def _look(self, pages: Indices, zeros: Indices, in_place: bool) -> _Look:
        """Name and hash pages, where they lie or copied.

        Zeros are looked for right after the hashing, while the pages are in the processor's cache.
        """
        runs = direct_wire.runs_of(pages)
        first = runs[0][0] if len(runs) == 1 else SCATTERED
        indices = _packed(zeros) if first != SCATTERED else _packed(pages) + _packed(zeros)
        if in_place and len(runs) <= direct_wire.RUNS_MAX:
            views = direct_wire.views_of(self._flat, runs)
        else:
            # Any mode but "raise" lets NumPy write into `out` without a buffer between.
            np.take(self._pages, pages, axis=0, out=self._gathered[: len(pages)], mode="clip")
            views = [self._gathered[: len(pages)].data.cast("B")] if len(pages) else []
        checksum = direct_wire.checksum_of(first, len(pages), indices, views)
        run = slice(first, first + len(pages))
        heads = self._words[pages if first == SCATTERED else run, 0]
        if heads.all():
            return _Look(first, indices, views, None, checksum)
        zero_rows: NDArray[np.bool_] = heads == 0
        zero_rows[zero_rows] = (self._words[pages[zero_rows]] == 0).all(axis=1)
        return _Look(first, indices, views, zero_rows if zero_rows.any() else None, checksum)

    # --- on the event loop ----------------------------------------------------------------------------

    def _thread_ended(self, work: "asyncio.Future[None]") -> None:
        error = None if work.cancelled() else work.exception()
        if isinstance(error, FerryError):
            self._on_death(error.refusal)
        elif isinstance(error, BlockingIOError):
            what = f"{self._target} took nothing of lane {self.number} for {protocol.ANSWER_S_MAX:.0f} s"
            self._on_death(failed(what, "see whether its agent runs and the network works"))
        elif error is not None:
            self._on_death(self._ended(error))

    def _read_answers(self) -> None:
        assert self._connection is not None
        try:
            part = self._connection.recv(ANSWER.size * WINDOW_FRAMES_MAX, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            part, reason = b"", self._ended(error)
        else:
            reason = failed(f"{self._target} ended the migration's streams")
        if not part:
            self._loop.remove_reader(self._connection)
            self._on_death(reason)
            return
        self._answers += part
        while len(self._answers) >= ANSWER.size:
            sequence, verdict = ANSWER.unpack_from(self._answers)
            del self._answers[: ANSWER.size]
            self._take_answer(sequence, verdict)

    def _take_answer(self, sequence: int, verdict: int) -> None:
        due = range(self._sent[0].sequence, self._sent[-1].sequence + 1) if self._sent else ()
        if sequence not in due or verdict not in (Verdict.GOOD, Verdict.TORN):
            self._on_death(failed(f"{self._target} answered what was not asked, on lane {self.number}"))
            return
        self._progress_at_s = self._loop.time()
        while (shipment := self._sent.popleft()).sequence != sequence:
            self._on_answer(shipment, Verdict.GOOD)
        self._on_answer(shipment, Verdict(verdict))

    def _ended(self, error: BaseException) -> Refusal:
        return failed(f"lane {self.number} to {self._target} broke: {error}", "see whether its agent runs")


def _packed(indices: Indices) -> bytes:
    return indices.astype("<u4").tobytes() if len(indices) else b""
