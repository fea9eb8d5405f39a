"""What option ``direct`` puts on its raw sockets. All numbers are little-endian.

::

    source                                      target
    OPENING (magic, lane, secret)
                                                ANSWER (0, JOINED)
    HEADER (sequence, pages, zero pages, first page, whether an answer is wanted, checksum)
    indices of pages if the first is SCATTERED, of zero pages, uint32 each; the pages' contents
                                                ANSWER (sequence, GOOD): all up to this frame are whole
                                                ANSWER (sequence, TORN): all before it are, this one is not

Pages that are a run, as most are in a first pass, are named by the first of them: the target then has no
numbers to receive and to look at, one by one.

A torn frame is answered at once, a good one if its header wants that: the source asks after every few frames,
and whenever it has no more to send for the moment.

The checksum is XXH3-64 of the contents, seeded with XXH3-64 of first page and pages as in the header, and of
the indices that follow it. A guest may write to pages while they are hashed and sent, so a frame whose
checksum does not match need not be a bad one: it is TORN, counts for nothing, and whether that may be is for
the source to say.
"""

import socket
import struct
from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import xxhash
from numpy.typing import NDArray

from ferry_agent.migration.frames import run_of
from ferry_types.limits import PAGE_SIZE

MAGIC = b"ferry-d2"
SECRET_BYTES = 32

OPENING = struct.Struct("<8sI32s")
HEADER = struct.Struct("<QIII?Q")
ANSWER = struct.Struct("<QQ")

SCATTERED = 2**32 - 1
"""In place of the first page: the pages are no run, and their numbers follow."""

RUNS_MAX = 64
"""A frame of more runs than this is gathered into one buffer, and scattered from one: 2 MiB are copied in the
time in which Python handles a hundred pieces. Far below what one call takes (IOV_MAX: 1024)."""

PIECE_BYTES = 512 * 2**10
"""A thread that waits for a run of pages is woken up by so much of it, not by each of the kernel's segments
of 64 KiB: the sender pays for waking it, and that takes longer than to copy a segment. What has come is
hashed piece by piece, out of the processor's own cache, four times as fast as from memory. Over loopback the
one takes an eighth off a move of 1 GiB, the other a twentieth. Half as much does about as well on a Xeon; of
bare processes on an EPYC it costs a tenth more processor time."""

_NAMES = struct.Struct("<II")
_TIMEVAL = struct.Struct("ll")

Indices = NDArray[np.int64] | NDArray[np.uint32]


class Verdict(IntEnum):
    """What the target says of a frame, or of the opening."""

    GOOD = 0
    TORN = 1
    JOINED = 2


def runs_of(indices: Indices) -> list[tuple[int, int]]:
    """Stretches of pages that rise by one each, as (first, number of pages), in the given order."""
    run = run_of(indices)
    if run is not None:
        return [(run.start, len(indices))]
    if len(indices) == 0:
        return []
    numbers = indices.astype(np.int64, copy=False)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(numbers) != 1) + 1))
    counts = np.diff(np.append(starts, len(numbers)))
    return list(zip(numbers[starts].tolist(), counts.tolist(), strict=True))


def views_of(memory: memoryview, runs: Sequence[tuple[int, int]]) -> list[memoryview]:
    """The runs' contents, in place."""
    return [memory[first * PAGE_SIZE : (first + count) * PAGE_SIZE] for first, count in runs]


def begin_checksum(first: int, page_count: int, indices: bytes | memoryview) -> xxhash.xxh3_64:
    """A frame's checksum, to which its contents are still to be added; ``indices``: all that are sent."""
    seed = xxhash.xxh3_64_intdigest(b"".join((_NAMES.pack(first, page_count), indices)))
    return xxhash.xxh3_64(seed=seed)


def checksum_of(first: int, page_count: int, indices: bytes | memoryview, views: Sequence[memoryview]) -> int:
    """A frame's checksum, over contents that lie in pieces."""
    checksum = begin_checksum(first, page_count, indices)
    for view in views:
        checksum.update(view)  # lets go of the interpreter
    return checksum.intdigest()


def set_timeout(connection: socket.socket, option: int, timeout_s: float) -> None:
    """Bound single calls of a blocking socket, by SO_SNDTIMEO or SO_RCVTIMEO (man 7 socket).

    Python's own time-outs would make it non-blocking: a call for each part that fits into the buffer.
    """
    seconds = int(timeout_s)
    microseconds = max(1, int((timeout_s - seconds) * 1e6))
    connection.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(seconds, microseconds))


def send_all(connection: socket.socket, parts: Sequence[bytes | memoryview]) -> None:
    """Send pieces as they lie. Raises OSError, BlockingIOError if the peer takes nothing for too long."""
    rest = [part for part in parts if len(part)]
    while rest:
        sent = connection.sendmsg(rest)
        while rest and sent >= len(rest[0]):
            sent -= len(rest.pop(0))
        if sent:
            rest[0] = memoryview(rest[0])[sent:]


def receive_all(connection: socket.socket, views: Sequence[memoryview]) -> bool:
    """Fill the pieces; False if the stream ended before. Raises OSError, BlockingIOError for silence."""
    rest = [view for view in views if len(view)]
    while rest:
        received = connection.recvmsg_into(rest, 0, socket.MSG_WAITALL)[0]
        if not received:
            return False
        while rest and received >= len(rest[0]):
            received -= len(rest.pop(0))
        if received:
            rest[0] = rest[0][received:]
    return True


def receive_run(connection: socket.socket, view: memoryview, checksum: xxhash.xxh3_64) -> bool:
    """``receive_all`` for one run, hashed as it comes, with fewer wake-ups (SO_RCVLOWAT, man 7 socket).

    A piece is waited for like this only if another whole one follows it: of what follows the last, none may
    ever come, and a thread that had taken half a piece would wait for a whole one more.
    """
    rest = view
    if len(rest) >= 2 * PIECE_BYTES:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, PIECE_BYTES)
        while len(rest) >= 2 * PIECE_BYTES:
            piece, rest = rest[:PIECE_BYTES], rest[PIECE_BYTES:]
            if not receive_all(connection, [piece]):
                return False
            checksum.update(piece)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    if not receive_all(connection, [rest]):
        return False
    checksum.update(rest)
    return True
