"""Two ends of a migration on one event loop, with hosts that tests can steer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from ferry.v1 import migration_pb2
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.ports import IncomingSlot, WireOf, unshaped
from ferry_agent.migration.source import AwaitingOutcome, OutgoingMove
from ferry_agent.migration.target import MigrationServicer
from ferry_host.scale import UNSCALED, Scale
from ferry_types.errors import FerryError, Refusal, not_found
from ferry_types.limits import PAGE_SIZE
from ferry_types.messages import BeginOutgoing, MigrationProgress, Route
from ferry_types.migrations import MigrationOptions, TransportOption
from ferry_wire.channels import IdleChannels
from ferry_wire.servers import create_server

MOVE, TOKEN, VM, EPOCH = "move-1", "a-token", "vm1", 7
DEADLINE_S = 10.0

Hook = Callable[[], Awaitable[None] | None]


def random_memory(pages: int, seed: int = 1) -> GuestMemory:
    """All pages random and touched, none marked."""
    memory = GuestMemory(pages * PAGE_SIZE)
    memory.pages[:] = np.random.default_rng(seed).integers(0, 256, (pages, PAGE_SIZE), np.uint8)
    memory.touched[:] = True
    return memory


def guest_writes(memory: GuestMemory, page: int, value: int) -> None:
    """Write, then mark."""
    memory.write(np.array([page]), np.full((1, PAGE_SIZE), value, np.uint8))


class Failpoints:
    """Hooks by failpoint; each failpoint that was passed is noted."""

    def __init__(self) -> None:
        self.reached: list[str] = []
        self.hooks: dict[str, Hook] = {}

    async def reach(self, name: str) -> None:
        self.reached.append(name)
        hook = self.hooks.get(name)
        if hook is not None and (waiting := hook()) is not None:
            await waiting

    def is_set(self, failpoint: str) -> bool:
        return failpoint in self.hooks


class Source(Failpoints):
    """A host whose guest writes only where a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[MigrationProgress] = []
        self.on_report: Callable[[MigrationProgress], None] = lambda _progress: None
        self.on_pause: Callable[[], None] = lambda: None
        self.state = b"registers"
        self.throttles: list[int] = []
        self.return_refused: Refusal | None = None
        self.paused = False
        self.past_return = False
        self.given_up: list[Refusal] = []
        self.on_give_up: Callable[[], None] = lambda: None

    def report(self, progress: MigrationProgress) -> None:
        self.reports.append(progress)
        self.on_report(progress)

    def opened(self) -> None:
        self.reached.append("opened")

    async def arm(self, migration_id: str) -> None:
        assert migration_id == MOVE
        assert not self.paused

    async def pause(self) -> float:
        await asyncio.sleep(0)
        self.on_pause()
        self.paused = True
        return asyncio.get_running_loop().time()

    def throttle(self, percent: int) -> None:
        self.throttles.append(percent)

    def device_state(self) -> bytes:
        assert self.paused
        return self.state

    def point_of_no_return(self) -> None:
        if self.return_refused is not None:
            raise FerryError(self.return_refused)
        self.past_return = True

    def give_up(self, reason: Refusal) -> None:
        self.given_up.append(reason)
        self.on_give_up()


class Target(Failpoints):
    """A host with at most one slot."""

    def __init__(self, pages: int) -> None:
        super().__init__()
        self.memory = GuestMemory(pages * PAGE_SIZE)
        self.slot = IncomingSlot(TOKEN, VM, EPOCH, self.memory)
        self.rouse_s = 0.0
        self.rouses: list[str] = []
        self.outcome: asyncio.Future[bytes | Refusal] = asyncio.get_running_loop().create_future()

    def incoming(self, migration_id: str) -> IncomingSlot:
        if migration_id != MOVE:
            raise FerryError(not_found(f"no move {migration_id} is expected here"))
        return self.slot

    async def rouse(self) -> None:
        self.rouses.append("begun")
        await asyncio.sleep(self.rouse_s)
        self.rouses.append("done")

    def ready(self, migration_id: str, device_state: bytes) -> None:
        assert migration_id == MOVE
        self.outcome.set_result(device_state)  # a second outcome raises

    def failed(self, migration_id: str, refusal: Refusal) -> None:
        assert migration_id == MOVE
        self.outcome.set_result(refusal)

    async def device_state(self) -> bytes:
        """What READY brought."""
        outcome = await asyncio.wait_for(asyncio.shield(self.outcome), DEADLINE_S)
        assert isinstance(outcome, bytes), outcome
        return outcome

    async def refusal(self) -> Refusal:
        """Why the attempt failed here."""
        outcome = await asyncio.wait_for(asyncio.shield(self.outcome), DEADLINE_S)
        assert isinstance(outcome, Refusal), outcome
        return outcome


@dataclass
class Ends:
    """A source's memory and host, and a target that serves on a free port."""

    memory: GuestMemory
    source: Source
    target: Target
    servicer: MigrationServicer
    address: str
    stop_target: Callable[[], Awaitable[None]]
    option: TransportOption = TransportOption.TCPIP
    wire_of: WireOf = unshaped
    """Of the source, as is ``scale``."""
    scale: Scale = UNSCALED
    channels: IdleChannels = field(default_factory=lambda: IdleChannels(4))
    awaiting: list[AwaitingOutcome] = field(default_factory=list)

    async def streams_ended(self) -> None:
        """Wait until the target serves no stream any more."""
        async with asyncio.timeout(DEADLINE_S):
            while self.servicer._receivers:  # noqa: ASYNC110 - there is nothing else to wait for
                await asyncio.sleep(0.005)

    async def move(
        self,
        *,
        verify: bool = True,
        pass_limit: int = 10,
        blackout_allowed_s: float = 0.0,
        token: str = TOKEN,
        migration_id: str = MOVE,
        epoch: int = EPOCH,
        boot_id: str | None = None,
        routes: tuple[Route, ...] = (),
    ) -> AwaitingOutcome:
        """Run one attempt up to the end of its final copy; with no black-out allowed it chases every mark."""
        options = MigrationOptions(
            option=self.option, verify=verify, pass_limit=pass_limit, blackout_allowed_s=blackout_allowed_s
        )
        order = BeginOutgoing(migration_id, token, VM, epoch, "node2", self.address, options, routes)
        move = OutgoingMove(
            order,
            self.memory,
            self.source,
            least_recently_used_first=True,
            boot_id=boot_id,
            channels=self.channels,
            wire_of=self.wire_of,
            scale=self.scale,
        )
        awaiting = await asyncio.wait_for(move.run(), DEADLINE_S)
        self.awaiting.append(awaiting)
        return awaiting


@asynccontextmanager
async def two_ends(
    memory: GuestMemory,
    target_pages: int | None = None,
    option: TransportOption = TransportOption.TCPIP,
    source_wire_of: WireOf = unshaped,
    target_wire_of: WireOf = unshaped,
) -> AsyncIterator[Ends]:
    """Serve a target with as much memory, and take everything down afterwards."""
    target = Target(memory.n_pages if target_pages is None else target_pages)
    servicer = MigrationServicer(target, wire_of=target_wire_of)
    server = create_server("127.0.0.1:0", [migration_pb2.DESCRIPTOR])
    servicer.add_to(server.grpc)
    await server.start()
    stops: list[asyncio.Task[None]] = []

    async def stop_once() -> None:
        # In a task of its own: gRPC does not bear a stop that is cancelled half-way.
        stops.append(stops[0] if stops else asyncio.create_task(server.stop(0)))
        await asyncio.shield(stops[0])

    ends = Ends(memory, Source(), target, servicer, server.address, stop_once, option, source_wire_of)
    try:
        yield ends
    finally:
        for awaiting in ends.awaiting:
            await awaiting.close()
        await ends.channels.close()
        await stop_once()
        memory.close()
        target.memory.close()


def assert_equal(ends: Ends) -> None:
    """The target's memory is the source's."""
    different = np.flatnonzero((ends.memory.pages != ends.target.memory.pages).any(axis=1))
    assert different.tolist() == []
