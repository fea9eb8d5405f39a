"""The rounds of a bench: our own moves and the peers', in turn, on the same bytes."""

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from ferry_cli.bench import own
from ferry_cli.bench.arena import Arena, Progress
from ferry_cli.bench.contents import Contents
from ferry_cli.bench.document import OwnRun, PeerRuns, Question
from ferry_cli.bench.floor import Floor, FloorMeter, floor_meter
from ferry_cli.bench.memory import FreeMemory, settle
from ferry_cli.bench.peers import Peer, PeerRun
from ferry_types.errors import FerryError
from ferry_types.workloads import Fill

_Run = TypeVar("_Run", OwnRun, PeerRun)

_HURRIED_BYTES_MIN = 256 * 2**20
_HURRIED_RATE_BYTES_PER_S_MIN = 250_000_000
"""Behind a slower wire the processors are idle for most of a move, whatever else they have to do."""

_STOLEN_SHARE_MAX, _STOLEN_S_MAX = 0.05, 0.01
"""A run is made again if the hypervisor took more of it than both, in seconds of a processor; /proc/stat
counts in steps of 10 ms."""

TRIES_MAX = 3
"""Of a run whose time is compared with others'. The last try counts, whatever was taken of it."""

_TOLD_RUNS_MAX, _TOLD_EVERY = 20, 10
"""Of more runs than these, people hear of every tenth."""


@dataclass(frozen=True, slots=True)
class Measured:
    """``own``: the runs of each question, in their order. ``set_aside``: runs that do not count."""

    own: tuple[tuple[OwnRun, ...], ...]
    floor: Floor
    peers: tuple[PeerRuns, ...]
    set_aside: int


async def in_turn(
    arena: Arena,
    questions: Sequence[Question],
    contents: Contents,
    peers: Sequence[Peer],
    runs: int,
    progress: Progress,
    *,
    warm_up: bool = True,
    compared: bool = False,
) -> Measured:
    """One run of each question and of each peer, so many times over. Raises FerryError.

    ``questions`` differ in nothing but the option. ``warm_up``: let each move once before what counts, so
    that interpreters, allocators and connections are warm. ``compared``: times will be, even without peers.
    """
    first = questions[0]
    try:
        theirs = [await _prepare(arena, peer, contents.path, first.memory_bytes) for peer in peers]
        await own.create(arena, first, contents)
        if warm_up:
            for question in questions:
                await own.move(arena, question, FreeMemory.AS_IS)
        with tempfile.TemporaryDirectory(dir=arena.directory) as directory:
            addresses = (arena.host_address, arena.coordinator_address)
            async with floor_meter(*addresses, Path(directory)) as meter:
                rounds = _Rounds(
                    arena, questions, contents, peers, meter, theirs, compared=bool(peers) or compared
                )
                for number in range(1, runs + 1):
                    said = ", ".join(await rounds.next(runs))
                    if runs <= _TOLD_RUNS_MAX or number % _TOLD_EVERY == 0:
                        progress(f"run {number} of {runs}: {said}")
        await own.remove(arena)
        return rounds.measured()
    finally:
        for peer in peers:
            await peer.close()


class _Rounds:
    def __init__(
        self,
        arena: Arena,
        questions: Sequence[Question],
        contents: Contents,
        peers: Sequence[Peer],
        meter: FloorMeter,
        theirs: Sequence[PeerRuns],
        *,
        compared: bool,
    ) -> None:
        self._arena, self._questions, self._contents = arena, questions, contents
        self._peers, self._meter = peers, meter
        self._ours: list[list[OwnRun]] = [[] for _ in questions]
        self._theirs = list(theirs)
        self._free_memory = free_memory(questions[0], compared=compared)
        self._is_hurried = is_hurried(questions[0])
        self._tries_max = TRIES_MAX if compared else 1
        self._set_aside = 0

    async def next(self, runs: int) -> list[str]:
        """One round of so many; what came of it, in words."""
        said = []
        for question, ours in zip(self._questions, self._ours, strict=True):
            await self._meter.sample(runs * len(self._questions))
            run = await self._undisturbed(partial(self._move, question))
            ours.append(run)
            blackout = f"black-out {run.blackout_s * 1000:.2f} ms"
            said.append(f"{question.option} {run.total_s:.3f} s ({blackout})")
        for index, peer in enumerate(self._peers):
            runs_of = self._theirs[index] = await self._run_peer(peer, self._theirs[index])
            if runs_of.runs and not runs_of.problem:
                said.append(f"{peer.name} {runs_of.runs[-1].total_s:.3f} s")
        return said

    async def _move(self, question: Question) -> OwnRun:
        await own.boot_anew(self._arena, question, self._contents)
        return await own.move(self._arena, question, self._free_memory)

    async def _run_peer(self, peer: Peer, sofar: PeerRuns) -> PeerRuns:
        """One more run, unless the peer has failed before: a bench of one peer less is better than none."""
        if sofar.problem:
            return sofar
        try:
            run = await self._undisturbed(partial(peer.run_once, self._free_memory))
        except FerryError as problem:
            return replace(sofar, problem=problem.refusal.message)
        return replace(sofar, runs=(*sofar.runs, run))

    async def _undisturbed(self, run_once: Callable[[], Awaitable[_Run]]) -> _Run:
        if not self._is_hurried:
            return await run_once()
        run, set_aside = await undisturbed(run_once, self._quieten, self._tries_max)
        self._set_aside += set_aside
        return run

    async def _quieten(self) -> None:
        """Have a run be prepared on a quiet machine, unless warming free memory quietens it later by itself.

        Black-outs need that too: a disk may answer 200 ms late while its hypervisor takes memory back.
        """
        if self._free_memory is not FreeMemory.WARM_AND_SETTLED:
            await settle()

    def measured(self) -> Measured:
        ours = tuple(map(tuple, self._ours))
        return Measured(ours, self._meter.floor(), tuple(self._theirs), self._set_aside)


async def undisturbed(
    run_once: Callable[[], Awaitable[_Run]], quieten: Callable[[], Awaitable[None]], tries_max: int
) -> tuple[_Run, int]:
    """A run of which the hypervisor has taken next to nothing, and how many were set aside before it."""
    set_aside = 0
    while True:
        await quieten()
        run = await run_once()
        is_disturbed = run.stolen_s > max(_STOLEN_S_MAX, _STOLEN_SHARE_MAX * run.total_s)
        if not is_disturbed or set_aside + 1 == tries_max:
            return run, set_aside
        set_aside += 1


def free_memory(question: Question, *, compared: bool) -> FreeMemory:
    """What to do about free memory right before each run, of ours and of the peers' alike.

    Zeros touch none at the target. Of little memory a first touch is short, and a slow wire hides it. A move
    that is not ``compared`` with others needs not be fair to anybody.
    """
    if question.fill == Fill.ZERO:
        return FreeMemory.AS_IS
    if compared and is_hurried(question):
        return FreeMemory.WARM_AND_SETTLED
    return FreeMemory.WARM


def is_hurried(question: Question) -> bool:
    """Whether a run may take twice as long if the machine is not quiet when it begins."""
    rate = question.rate_bytes_per_s
    is_fast = rate is None or rate >= _HURRIED_RATE_BYTES_PER_S_MIN
    return is_fast and question.memory_bytes >= _HURRIED_BYTES_MIN


async def _prepare(arena: Arena, peer: Peer, contents: Path, memory_bytes: int) -> PeerRuns:
    if arena.problem:
        return PeerRuns(peer.name, "", (), arena.problem)
    try:
        await peer.prepare(contents, memory_bytes, arena.behind)
    except FerryError as problem:
        return PeerRuns(peer.name, "", (), problem.refusal.message)
    return PeerRuns(peer.name, peer.command, ())
