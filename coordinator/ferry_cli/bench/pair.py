"""Peers that are two processes of this interpreter: both sides of their conversation with the bench.

Both are one module, started as `python -m MODULE target MEMORY_BYTES [STREAMS]` and
`python -m MODULE source MEMORY_BYTES CONTENTS PORT [STREAMS]`. They talk in lines:

    target                                      source
    `listening PORT`
                                                loads its memory, connects, moves the first pages as a warm-up
    `received PAGES`                            `ready`
                                                hears `go`, moves everything
    `received PAGES` (checked and written)      `sent` (the last acknowledgement is here)

The warm-up makes interpreter, allocator and connection what they are in an agent that has run for a while.
"""

import asyncio
import shlex
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from ferry_cli.bench.children import Child, child
from ferry_cli.bench.memory import FreeMemory, warm_free_memory
from ferry_cli.bench.peers import PeerRun, run_deadline_s
from ferry_cli.bench.stopwatch import Stopwatch
from ferry_types.errors import FerryError, failed
from ferry_types.limits import PAGE_SIZE
from ferry_wire.buffers import keep_freed_buffers

WARM_UP_PAGES = 64 * 256
"""64 MiB: after that the allocator holds all buffers that a run needs."""


class PairPeer:
    """Source and target as two processes of one module.

    Inside the stopwatch: from writing `go` to the source until both have said that they are done. The target
    has then checked every frame and written it to memory that it mapped when the stream began, and the source
    knows it.
    """

    def __init__(self, name: str, module: str, *, streams: int = 1) -> None:
        """``streams``: over how many connections a module that can do so moves the memory."""
        self.name = name
        self._streams = (str(streams),) if streams > 1 else ()
        self._module = module
        self._behind: tuple[str, ...] = ()
        self._contents = Path("CONTENTS")
        self._memory_bytes = 0

    @property
    def command(self) -> str:
        """Both command lines, of any Python that has Hyperferry."""
        target, source = self._target_words(), self._source_words("PORT")
        return "\n".join(shlex.join((*self._behind, "python", *words)) for words in (target, source))

    async def prepare(self, contents: Path, memory_bytes: int, behind: tuple[str, ...] = ()) -> None:
        """Nothing but to remember what to move, and over which link."""
        self._contents, self._memory_bytes, self._behind = contents, memory_bytes, behind

    async def run_once(self, free_memory: FreeMemory = FreeMemory.WARM) -> PeerRun:
        """Two new processes, a warm-up, a measured move. Raises FerryError."""
        try:
            async with asyncio.timeout(run_deadline_s(self._memory_bytes)), AsyncExitStack() as stack:
                target_argv = self._argv(self._target_words())
                target = await stack.enter_async_context(child(f"{self.name} target", target_argv))
                port = await _expect(target, "listening")
                source_argv = self._argv(self._source_words(port))
                source = await stack.enter_async_context(child(f"{self.name} source", source_argv))
                await _expect(source, "ready")
                await _expect(target, "received")
                await warm_free_memory(self._memory_bytes, free_memory)
                return await self._measure(source, target)
        except TimeoutError as error:
            raise FerryError(failed(f"peer {self.name} did not finish in time")) from error

    async def _measure(self, source: Child, target: Child) -> PeerRun:
        stopwatch = Stopwatch()
        await source.say("go")
        await _expect(source, "sent")
        pages = int(await _expect(target, "received"))
        run = PeerRun.of(stopwatch.stop(), self._memory_bytes, target.pid)
        if pages != self._memory_bytes // PAGE_SIZE:
            raise FerryError(failed(f"peer {self.name} moved {pages} pages, which is not all"))
        return run

    async def close(self) -> None:
        """Nothing outlives a run."""

    def _argv(self, words: tuple[str, ...]) -> tuple[str, ...]:
        return (*self._behind, sys.executable, *words)

    def _target_words(self) -> tuple[str, ...]:
        return ("-m", self._module, "target", str(self._memory_bytes), *self._streams)

    def _source_words(self, port: str) -> tuple[str, ...]:
        moved = (str(self._memory_bytes), str(self._contents), port)
        return ("-m", self._module, "source", *moved, *self._streams)


async def _expect(process: Child, word: str) -> str:
    """The rest of a line that begins with this word. Raises FerryError."""
    heard, _, rest = (await process.hear()).strip().partition(" ")
    if heard != word:
        raise FerryError(failed(f"the bench's {process.name} said {heard!r} instead of {word!r}"))
    return rest


class TargetArguments(NamedTuple):
    """Command line of a target."""

    memory_bytes: int
    streams: int = 1


class SourceArguments(NamedTuple):
    """Command line of a source."""

    memory_bytes: int
    contents: Path
    port: int
    streams: int = 1


def begin() -> TargetArguments | SourceArguments:
    """First call of a peer's process: reads its command line. Ctrl-C is the bench's to act on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_freed_buffers()
    match sys.argv[1:]:
        case ["target", memory_bytes, *streams] if len(streams) <= 1:
            return TargetArguments(int(memory_bytes), *map(int, streams))
        case ["source", memory_bytes, contents, port, *streams] if len(streams) <= 1:
            return SourceArguments(int(memory_bytes), Path(contents), int(port), *map(int, streams))
        case _:
            sys.exit("usage: target MEMORY_BYTES [STREAMS] | source MEMORY_BYTES CONTENTS PORT [STREAMS]")


def say(*words: object) -> None:
    """A line to the bench."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def wait_for_go() -> None:
    """Block until the bench says so. Exits if the bench is gone."""
    if sys.stdin.readline() != "go\n":
        sys.exit("the bench is gone")


def wait_for_bench() -> None:
    """Block until the bench is gone."""
    sys.stdin.read()
