"""One raw connection of option ``direct`` at the source: a thread sends, the event loop takes the answers."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration import direct_wire, protocol
from ferry_agent.migration.direct_wire import ANSWER, HEADER, OPENING, Verdict
from ferry_agent.migration.ports import Wire
from ferry_agent.migration.transports.lanes import LanePlan
from ferry_agent.migration.transports.transport import Indices, SentPages
from ferry_types.errors import FerryError, Refusal, failed
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE
from ferry_wire.addresses import parse_address


@dataclass(frozen=True, slots=True)
class Shipment:
    """A frame that was sent."""

    sequence: int
    page_indices: Indices
    zero_indices: Indices
    checksum: int
    size_bytes: int

    @property
    def pages(self) -> int:
        """Pages that it names, zero ones too."""
        return len(self.page_indices) + len(self.zero_indices)


class DirectLane:
    """Frames go out in the order in which they are given; each is answered.

    ``on_answer`` is told what the target says of a frame, ``on_nothing`` that a frame had nothing in it that
    was worth sending, ``on_death`` that the lane has ended or misbehaves; all on the event loop.
    """

    def __init__(
        self,
        plan: LanePlan,
        target: str,
        memory: GuestMemory,
        sent_pages: SentPages,
        wire: Wire,
        on_answer: Callable[[Shipment, Verdict], None],
        on_nothing: Callable[[], None],
        on_death: Callable[[Refusal], None],
    ) -> None:
        self.number = plan.number
        self.unanswered = 0
        """Frames that were given and not answered."""
        self.progress_at_s = 0.0
        """By the loop's clock: when it last had nothing unanswered, or was answered."""
        self._plan = plan
        self._target = target
        self._pages = memory.pages
        self._words = memory.words
        self._flat = memory.pages.data.cast("B")
        self._sent_pages = sent_pages
        self.wire = wire
        self._on_answer = on_answer
        self._on_nothing = on_nothing
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"lane {plan.number}")
        self._gathered: NDArray[np.uint8] = np.empty((FRAME_PAGES_MAX, PAGE_SIZE), np.uint8)
        self._sequence = 0
        self._sent: deque[Shipment] = deque()
        self._answers = bytearray()
        self._connection: socket.socket | None = None

    async def open(self, port: int, secret: bytes) -> None:
        """Connect to a port of the route's host, and prove the secret. Raises FerryError, OSError."""
        host = parse_address(self._plan.address).host
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
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

    def give(self, pages: Indices, zeros: Indices, *, in_place: bool) -> None:
        """Send a frame next. ``in_place``: without copying the pages, which may be torn then."""
        if not self.unanswered:
            self.progress_at_s = self._loop.time()
        self.unanswered += 1
        work = self._loop.run_in_executor(self._executor, self._ship, pages, zeros, in_place)
        work.add_done_callback(self._shipped)

    async def close(self) -> None:
        """End the connection and the thread, which reads guest memory no more then."""
        connection = self._connection
        if connection is not None and connection.fileno() >= 0:
            self._loop.remove_reader(connection)
            with contextlib.suppress(OSError):  # it was never connected, or has ended
                connection.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)
        if connection is not None:
            connection.close()

    # --- in the lane's thread -------------------------------------------------------------------------

    def _ship(self, pages: Indices, zeros: Indices, in_place: bool) -> Shipment | None:
        """Hash a frame and send it; None if all its pages were zero, and nobody needs to know.

        Raises OSError, FerryError.
        """
        views, zero_rows, checksum = self._look(pages, zeros, in_place)
        if zero_rows.any():
            pages, zeros = self._sent_pages.sift(pages, zeros, zero_rows)
            views, _, checksum = self._look(pages, zeros, in_place)
        if not len(pages) and not len(zeros):
            return None
        self._sent_pages.note(pages, zeros)
        page_bytes, zero_bytes = _packed(pages), _packed(zeros)
        header = HEADER.pack(self._sequence, len(pages), len(zeros), checksum)
        size_bytes = len(header) + len(page_bytes) + len(zero_bytes) + len(pages) * PAGE_SIZE
        shipment = Shipment(self._sequence, pages, zeros, checksum, size_bytes)
        self.wire.pass_bytes_blocking(size_bytes)
        self._sequence += 1
        self._sent.append(shipment)  # before its answer can be there
        assert self._connection is not None
        direct_wire.send_all(self._connection, [header, page_bytes, zero_bytes, *views])
        return shipment

    def _look(
        self, pages: Indices, zeros: Indices, in_place: bool
    ) -> tuple[list[memoryview], NDArray[np.bool_], int]:
        """The contents where they lie, which pages are zero, and the checksum.

        Zeros are looked for right after the hashing, while the pages are in the processor's cache.
        """
        runs = direct_wire.runs_of(pages)
        if in_place and len(runs) <= direct_wire.RUNS_MAX:
            views = direct_wire.views_of(self._flat, runs)
        else:
            # Any mode but "raise" lets NumPy write into `out` without a buffer between.
            np.take(self._pages, pages, axis=0, out=self._gathered[: len(pages)], mode="clip")
            views = [self._gathered[: len(pages)].data.cast("B")] if len(pages) else []
        checksum = direct_wire.checksum_of(_packed(pages), _packed(zeros), views)
        zero_rows: NDArray[np.bool_] = self._words[pages, 0] == 0
        zero_rows[zero_rows] = (self._words[pages[zero_rows]] == 0).all(axis=1)
        return views, zero_rows, checksum

    # --- on the event loop ----------------------------------------------------------------------------

    def _shipped(self, work: "asyncio.Future[Shipment | None]") -> None:
        if work.cancelled():
            return
        error = work.exception()
        if isinstance(error, FerryError):
            self._on_death(error.refusal)
        elif isinstance(error, BlockingIOError):
            what = f"{self._target} took nothing of lane {self.number} for {protocol.ANSWER_S_MAX:.0f} s"
            self._on_death(failed(what, "see whether its agent runs and the network works"))
        elif error is not None:
            self._on_death(self._ended(error))
        elif work.result() is None:
            self.unanswered -= 1
            self._on_nothing()

    def _read_answers(self) -> None:
        assert self._connection is not None
        try:
            part = self._connection.recv(ANSWER.size * protocol.IN_FLIGHT_FRAMES_MAX, socket.MSG_DONTWAIT)
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
        due = self._sent[0].sequence if self._sent else None
        if sequence != due or verdict not in (Verdict.GOOD, Verdict.TORN):
            self._on_death(failed(f"{self._target} answered what was not asked, on lane {self.number}"))
            return
        self.unanswered -= 1
        self.progress_at_s = self._loop.time()
        self._on_answer(self._sent.popleft(), Verdict(verdict))

    def _ended(self, error: BaseException) -> Refusal:
        return failed(f"lane {self.number} to {self._target} broke: {error}", "see whether its agent runs")


def _packed(indices: Indices) -> bytes:
    return indices.astype("<u4").tobytes()
