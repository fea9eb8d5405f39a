"""The peers `grpc` and `grpc-N`: one or N bare streams of the same frames as a migration's bulk streams.

No negotiation, no dirty log, no test for zero pages, one pass: what one gRPC stream between two Python
processes can carry when every frame is checksummed on one side, and checked and written into memory on the
other. Several streams have a connection each, share the memory, and take turns frame by frame.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import grpc
import numpy as np

from ferry.v1.migration_pb2 import BulkAck, PageFrame
from ferry_cli.bench.frames import BadFrame, decode_frame, encode_frame, frame_checksum
from ferry_cli.bench.memory import Pages, load_pages, map_pages
from ferry_cli.bench.pair import (
    WARM_UP_PAGES,
    SourceArguments,
    TargetArguments,
    begin,
    say,
    wait_for_bench,
    wait_for_go,
)
from ferry_types.limits import FRAME_PAGES_MAX, MESSAGE_BYTES_MAX, PAGE_SIZE

GRPC_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.use_local_subchannel_pool", 1),  # else several streams would share a connection
)
"""Of both ends. Sizes of buffers and of HTTP/2 frames made no difference beyond the noise."""

FRAMES_IN_FLIGHT_MAX = 16
FRAMES_PER_ACK = 4

_SERVICE, _METHOD = "ferry.v1.Migration", "Bulk"


class _Target:
    """Writes each move, of so many streams, into new memory, which it keeps until the next one."""

    def __init__(self, memory_bytes: int, streams: int) -> None:
        self._memory_bytes = memory_bytes
        self._streams = streams
        self._begun = self._ended = self._page_count = 0
        self._pages = map_pages(PAGE_SIZE)

    async def bulk(
        self, messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> AsyncIterator[bytes]:
        """The servicer's side of `Bulk`."""
        if self._begun % self._streams == 0:
            self._pages = map_pages(self._memory_bytes)
            self._page_count = 0
        self._begun += 1
        frames = 0
        try:
            async for message in messages:
                self._page_count += write_frame(self._pages, message, frames)
                frames += 1
                if frames % FRAMES_PER_ACK == 0:
                    yield BulkAck(frames=frames).SerializeToString()
        except BadFrame as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        yield BulkAck(frames=frames).SerializeToString()
        self._ended += 1
        if self._ended % self._streams == 0:
            say("received", self._page_count)


def write_frame(pages: Pages, message: bytes, sequence: int) -> int:
    """Check a frame and write its pages; how many they were. Raises BadFrame."""
    head, payload = decode_frame(message)
    if head.sequence != sequence or head.zero_indices:
        raise BadFrame(f"frame {sequence} is missing, or names zero pages")
    if len(head.page_indices) % 4 or not 0 < len(head.page_indices) <= 4 * FRAME_PAGES_MAX:
        raise BadFrame(f"frame {sequence} has {len(head.page_indices)} bytes of page indices")
    indices = np.frombuffer(head.page_indices, dtype="<u4")
    if len(payload) != len(indices) * PAGE_SIZE or int(indices.max()) >= len(pages):
        raise BadFrame(f"frame {sequence} is out of bounds")
    if frame_checksum(head.page_indices, payload) != head.checksum:
        raise BadFrame(f"the checksum of frame {sequence} is wrong")
    received = np.frombuffer(payload, dtype=np.uint8).reshape(-1, PAGE_SIZE)
    first = int(indices[0])
    if np.array_equal(indices, np.arange(first, first + len(indices), dtype=np.uint32)):
        pages[first : first + len(indices)] = received
    else:
        pages[indices] = received
    return len(indices)


def read_frame(pages: Pages, sequence: int, block: int, page_count: int) -> bytes:
    """That block of the first pages, as the frame of that number in its stream."""
    first = block * FRAME_PAGES_MAX
    last = min(first + FRAME_PAGES_MAX, page_count)
    payload = pages[first:last].data.cast("B")
    indices = np.arange(first, last, dtype="<u4").tobytes()
    head = PageFrame(sequence=sequence, page_indices=indices, checksum=frame_checksum(indices, payload))
    return encode_frame(head, payload)


async def _send_pages(channels: Sequence[grpc.aio.Channel], pages: Pages, page_count: int) -> None:
    """Move the first pages in streams of their own and wait for the last acknowledgements."""
    block_count = -(-page_count // FRAME_PAGES_MAX)
    async with asyncio.TaskGroup() as group:
        for number, channel in enumerate(channels):
            blocks = range(number, block_count, len(channels))
            group.create_task(_send_blocks(channel, pages, blocks, page_count, len(channels)))


async def _send_blocks(
    channel: grpc.aio.Channel, pages: Pages, blocks: range, page_count: int, streams: int
) -> None:
    call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(f"/{_SERVICE}/{_METHOD}")()
    slots = asyncio.Semaphore(FRAMES_IN_FLIGHT_MAX // streams)

    async def take_acks() -> int:
        acked = 0
        async for message in call:
            frames = BulkAck.FromString(message).frames
            for _ in range(acked, frames):
                slots.release()
            acked = frames
        return acked

    async with asyncio.TaskGroup() as group:
        acks = group.create_task(take_acks())
        for sequence, block in enumerate(blocks):
            await slots.acquire()
            await call.write(read_frame(pages, sequence, block, page_count))
        await call.done_writing()
    if acks.result() != len(blocks):
        sys.exit(f"the target has got {acks.result()} of {len(blocks)} frames")


async def _source(arguments: SourceArguments) -> None:
    pages = load_pages(arguments.contents, arguments.memory_bytes)
    async with AsyncExitStack() as stack:
        address = f"127.0.0.1:{arguments.port}"
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(address, options=GRPC_OPTIONS))
            for _ in range(arguments.streams)
        ]
        await _send_pages(channels, pages, min(WARM_UP_PAGES, len(pages)))
        say("ready")
        await asyncio.to_thread(wait_for_go)
        await _send_pages(channels, pages, len(pages))
        say("sent")
        await asyncio.to_thread(wait_for_bench)


async def _target(arguments: TargetArguments) -> None:
    bulk = _Target(arguments.memory_bytes, arguments.streams).bulk
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(bulk)
    server = grpc.aio.server(options=GRPC_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    say("listening", port)
    await asyncio.to_thread(wait_for_bench)
    await server.stop(grace=None)


if __name__ == "__main__":
    match begin():
        case SourceArguments() as arguments:
            asyncio.run(_source(arguments))
        case TargetArguments() as arguments:
            asyncio.run(_target(arguments))
