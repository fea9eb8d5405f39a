"""The engine between two processes: a target of its own process, and a source whose guest really writes.

Run as a program, this file is the target: it prints its address, then one line for what became of the move.
"""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from ferry.v1 import migration_pb2
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration import compression, protocol
from ferry_agent.migration.digest import memory_digest
from ferry_agent.migration.ports import IncomingSlot, MoveFailed
from ferry_agent.migration.processors import ProcessorMeter
from ferry_agent.migration.source import OutgoingMove
from ferry_agent.migration.target import MigrationServicer
from ferry_types.errors import FerryError, Refusal
from ferry_types.limits import PAGE_SIZE
from ferry_types.messages import BeginOutgoing, MigrationProgress
from ferry_types.migrations import MigrationOptions, TransportOption
from ferry_wire.channels import IdleChannels
from ferry_wire.servers import create_server

MIB = 2**20
MEMORY_BYTES = 64 * MIB
MOVE, TOKEN, VM, EPOCH = "move-1", "a-token", "vm1", 7
DEADLINE_S = 30.0


# --- the target's process -----------------------------------------------------------------------------


class OneSlot:
    """A target host that tells its parent what happens."""

    def __init__(self) -> None:
        self._slot = IncomingSlot(TOKEN, VM, EPOCH, GuestMemory(MEMORY_BYTES))

    def incoming(self, migration_id: str) -> IncomingSlot:
        assert migration_id == MOVE
        return self._slot

    async def rouse(self) -> None:
        pass

    def ready(self, migration_id: str, device_state: bytes) -> None:
        ready_at_s = time.monotonic()
        _say(f"ready {ready_at_s} {device_state.hex()} {memory_digest(self._slot.memory.pages).hex()}")

    def failed(self, migration_id: str, refusal: Refusal) -> None:
        _say(f"failed {refusal.message}")

    async def reach(self, name: str) -> None:
        """No failpoints here."""


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def serve() -> None:
    server = create_server("127.0.0.1:0", [migration_pb2.DESCRIPTOR])
    MigrationServicer(OneSlot()).add_to(server.grpc)
    await server.start()
    _say(server.address)
    await asyncio.to_thread(sys.stdin.read)  # until the parent closes it, or dies
    await server.stop(0)


# --- the source ---------------------------------------------------------------------------------------


@dataclass
class TargetProcess:
    process: "subprocess.Popen[str]"
    address: str

    async def outcome(self) -> list[str]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(self.process.stdout.readline), DEADLINE_S)
        return line.split()


@pytest.fixture
def target() -> Iterator[TargetProcess]:
    command = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            yield TargetProcess(process, process.stdout.readline().strip())
        finally:
            process.kill()


class WritingGuest:
    """A thread that writes pages as fast as told, until it is paused."""

    def __init__(self, memory: GuestMemory, pages_per_ms: int, working_set_pages: int) -> None:
        self._memory = memory
        self._pages_per_ms = pages_per_ms
        self._working_set_pages = working_set_pages
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.pages_written = 0
        self.paused = False
        self.past_return = False
        self.state = b"registers"
        self.throttles: list[int] = []
        self._thread.start()

    def _run(self) -> None:
        draw = np.random.default_rng(5)
        while not self._stop.wait(0.001):
            pages = draw.integers(0, self._working_set_pages, self._pages_per_ms)
            rows = draw.integers(0, 256, (self._pages_per_ms, PAGE_SIZE), np.uint8)
            self._memory.write(pages, rows)
            self.pages_written += self._pages_per_ms

    # SourceHost:

    def report(self, progress: MigrationProgress) -> None:
        assert progress.pages_done <= progress.pages_total

    def opened(self) -> None:
        """Nobody estimates."""

    async def arm(self, migration_id: str) -> None:
        assert not self.paused

    async def pause(self) -> float:
        self._stop.set()
        await asyncio.to_thread(self._thread.join)
        self.paused = True
        return time.monotonic()

    def throttle(self, percent: int) -> None:
        self.throttles.append(percent)

    def device_state(self) -> bytes:
        assert self.paused
        return self.state

    def point_of_no_return(self) -> None:
        self.past_return = True

    async def reach(self, name: str) -> None:
        """No failpoints here."""

    def give_up(self, _reason: Refusal) -> None:
        """Nobody needs to know."""

    def is_set(self, _failpoint: str) -> bool:
        return False


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    memory = GuestMemory(MEMORY_BYTES)
    memory.pages[:] = np.random.default_rng(6).integers(0, 256, memory.pages.shape, np.uint8)
    memory.touched[:] = True
    yield memory
    memory.close()


def order_to(target: TargetProcess, **options: float | TransportOption) -> BeginOutgoing:
    chosen = MigrationOptions(verify=True, **options)  # type: ignore[arg-type]
    return BeginOutgoing(MOVE, TOKEN, VM, EPOCH, "node2", target.address, chosen)


def fill_with_text(memory: GuestMemory) -> None:
    """All but the first 32 MiB, which stay random."""
    text = b"".join(b"line %08d of what LZ4 is good at\n" % number for number in range(2**20))
    memory.pages[8192:].reshape(-1)[:] = np.frombuffer(text, np.uint8)[: 32 * MIB]


@pytest.mark.parametrize("option", TransportOption)
async def test_a_busy_guest_arrives_whole_in_another_process(
    target: TargetProcess, memory: GuestMemory, option: TransportOption, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the machine's load decides.
    monkeypatch.setattr(ProcessorMeter, "idle_s", lambda _self: 100.0)
    monkeypatch.setattr(compression, "PATIENCE_S", DEADLINE_S)
    fill_with_text(memory)
    guest = WritingGuest(memory, pages_per_ms=10, working_set_pages=2048)
    order = order_to(target, blackout_allowed_s=0.02, option=option)
    awaiting = await OutgoingMove(
        order, memory, guest, least_recently_used_first=True, channels=IdleChannels(0)
    ).run()
    outcome = await target.outcome()
    assert outcome[0] == "ready", outcome
    ready_at_s, state, digest = float(outcome[1]), outcome[2], outcome[3]
    assert bytes.fromhex(state) == b"registers"
    assert bytes.fromhex(digest) == memory_digest(memory.pages)
    assert guest.pages_written > 0
    figures = awaiting.figures(ready_at_s)
    await awaiting.close()
    assert figures.passes[0].pages_sent == memory.n_pages
    # Random pages never travel compressed.
    assert 0 <= figures.passes[0].compressed_pages <= memory.n_pages // 2
    assert (figures.passes[0].compressed_pages > 0) == (option is TransportOption.COMPRESSION)
    assert figures.verified
    assert len(figures.passes) <= order.options.pass_limit
    assert figures.explanation.startswith("switched ")
    # One machine, one clock: the black-out is the time between the pause and the other process's READY.
    assert figures.blackout_s is not None
    assert 0 < figures.blackout_s < DEADLINE_S


@pytest.mark.parametrize("option", TransportOption)
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_target_killed_or_frozen_while_pages_are_copied_costs_the_guest_nothing(
    target: TargetProcess,
    memory: GuestMemory,
    blow: signal.Signals,
    option: TransportOption,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "ANSWER_S_MAX", 0.5)
    guest = WritingGuest(memory, pages_per_ms=10, working_set_pages=2048)
    order = order_to(target, blackout_allowed_s=0.0, pass_limit=100, option=option)
    move = OutgoingMove(order, memory, guest, least_recently_used_first=True, channels=IdleChannels(0))
    struck = False

    async def strike(name: str) -> None:
        nonlocal struck
        if name == "source.copying" and not struck:
            struck = True
            target.process.send_signal(blow)

    guest.reach = strike  # type: ignore[method-assign]
    with pytest.raises(MoveFailed):
        await asyncio.wait_for(move.run(), DEADLINE_S)
    assert struck
    assert not guest.past_return
    if not guest.paused:
        await guest.pause()
    assert memory.dirty.count() > 0


async def test_a_source_that_gives_up_makes_the_target_drop_the_attempt(
    target: TargetProcess, memory: GuestMemory
) -> None:
    guest = WritingGuest(memory, pages_per_ms=1, working_set_pages=64)
    reached = asyncio.Event()

    async def hold(name: str) -> None:
        if name == "source.paused":
            reached.set()
            await asyncio.Event().wait()

    guest.reach = hold  # type: ignore[method-assign]
    move = OutgoingMove(
        order_to(target), memory, guest, least_recently_used_first=True, channels=IdleChannels(0)
    )
    task = asyncio.create_task(move.run())
    await asyncio.wait_for(reached.wait(), DEADLINE_S)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, FerryError):
        await task
    assert (await target.outcome())[0] == "failed"


if __name__ == "__main__":
    asyncio.run(serve())
