"""Option ``compression``: one gRPC bulk stream; what shrinks is compressed, where processors have time."""

from ferry_agent.migration.compression import BATCH_PAGES_MIN, Batch, Compressor
from ferry_agent.migration.frames import NO_PAGES, EncodedFrame
from ferry_agent.migration.transports.tcpip import OneLane
from ferry_agent.migration.transports.transport import AttemptParts, Indices, PassKind
from ferry_types.limits import FRAME_PAGES_MAX

FIRST_BATCH_PAGES = 32
"""A pass begins with small batches, each twice as large as the one before: a whole one takes some 5 ms until
its frame leaves, for which the wire would have nothing to do."""


class CompressedTransport(OneLane):
    """Implements ``FrameLink`` for its compressor."""

    def __init__(self, parts: AttemptParts) -> None:
        super().__init__(parts)
        self._lane = self._lanes[0]
        self._compressor = Compressor(self)
        self._batch_pages = FIRST_BATCH_PAGES

    @property
    def frame_pages(self) -> int:
        """Few at the start of a pass, but enough to be compressed, also for a NIC so slow that a page or two
        keep it busy for long enough."""
        return min(max(super().frame_pages, BATCH_PAGES_MIN), self._batch_pages)

    @property
    def frames_sent(self) -> int:
        """The number of the next frame."""
        return self._lane.frames_posted

    @property
    def frames_acked(self) -> int:
        """Frames that the target has checked and written."""
        return self._lane.frames_posted - len(self._lane.in_flight)

    async def send_frame(self, frame: EncodedFrame) -> None:
        """Take frame number ``frames_sent`` as soon as the window allows. Raises FerryError."""
        lane = await self._free_lane()
        lane.post(frame, NO_PAGES, NO_PAGES)

    def begin_pass(self, kind: PassKind) -> None:
        """In the pause nothing waits for a processor."""
        super().begin_pass(kind)
        self._compressor.in_pause = kind is PassKind.LAST
        self._batch_pages = FIRST_BATCH_PAGES

    async def send(self, pages: Indices, zeros: Indices = NO_PAGES) -> None:
        """Have a frame compressed, or send it as it is. Raises FerryError."""
        self._batch_pages = min(2 * self._batch_pages, FRAME_PAGES_MAX)
        if not await self._compressor.takes(len(pages)):
            await super().send(pages, zeros)
            return
        rows, zero_rows = self._builder.gather(pages)
        if zero_rows.any():
            pages, zeros = self._sent_pages.sift(pages, zeros, zero_rows)
            rows = rows[~zero_rows]
        self._sent_pages.note(pages, zeros)
        self._compressor.submit(Batch(pages, zeros, rows))

    async def settle(self) -> None:
        """Wait until everything was compressed, checked and written. Raises FerryError."""
        await self._compressor.flush()
        await super().settle()

    async def settle_last(self) -> None:
        """What was handed over arrives, or the attempt ends."""
        await self._compressor.flush()

    def explanation(self) -> str:
        """How much was compressed and why the rest was not, in words."""
        return self._compressor.explanation()

    async def close(self) -> None:
        """End the lane, and let the threads end."""
        self._compressor.close()
        await super().close()
