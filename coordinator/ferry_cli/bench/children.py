"""Processes that the bench starts, talks to in lines over their standard streams, and never leaves behind."""

from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from ferry_types.errors import FerryError, failed

_LINE_BYTES_MAX = 2**20


class Child:
    """A running process; `name` is what people call it."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process

    @property
    def pid(self) -> int:
        """Of the process itself."""
        return self._process.pid

    async def say(self, line: str) -> None:
        """Write a line to its standard input. Raises FerryError if it has ended."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise await self._ended() from error

    async def hear(self) -> str:
        """The next line of its standard output. Raises FerryError if it has ended."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise await self._ended()
        return line.decode()

    async def end(self) -> None:
        """Kill it, if it still runs, and wait until it is gone."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _ended(self) -> FerryError:
        assert self._process.stderr is not None
        await self.end()
        said = (await self._process.stderr.read()).decode(errors="replace").strip().splitlines()
        last_words = said[-1] if said else "it said nothing"
        return FerryError(failed(f"the bench's {self.name} has ended early: {last_words}"))


@asynccontextmanager
async def child(name: str, argv: Sequence[str]) -> AsyncIterator[Child]:
    """Start a process; however the block is left, it is killed. Raises OSError if it cannot be started."""
    process = await create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LINE_BYTES_MAX)
    running = Child(name, process)
    try:
        yield running
    finally:
        await running.end()
