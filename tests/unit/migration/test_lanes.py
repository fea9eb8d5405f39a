"""Option smb: lanes that die at any point, on either side, cost time and nothing else."""

import asyncio
import random
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tests.chaos.faulty_link import FaultyLink
from tests.unit.migration.ends import (
    DEADLINE_S,
    MOVE,
    Ends,
    Target,
    assert_equal,
    guest_writes,
    random_memory,
    two_ends,
)

from ferry_agent.migration import protocol, source
from ferry_agent.migration.ports import MoveFailed, UnshapedWire, WireOf
from ferry_agent.migration.receiver import ArrivingLane, Receiver
from ferry_agent.migration.target import MigrationServicer
from ferry_agent.migration.transports.grpc_lane import GrpcLane
from ferry_agent.migration.transports.lanes import plan_lanes
from ferry_types.errors import FerryError, failed
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE
from ferry_types.messages import Route
from ferry_types.migrations import LANES_MAX, TransportOption

PAGES = 6 * FRAME_PAGES_MAX + 7
NICS = ("a", "b", "c")
NEVER = 10**6


def routes(address: str, *nics: str) -> tuple[Route, ...]:
    return tuple(Route(nic, nic, address) for nic in nics)


class DyingWire(UnshapedWire):
    """A NIC that goes down at the frame of that number, counted over all its lanes."""

    def __init__(self, dies_at: int) -> None:
        self.left = dies_at
        self.used = threading.Event()

    async def pass_bytes(self, size_bytes: int) -> None:
        self.pass_bytes_blocking(size_bytes)

    def pass_bytes_blocking(self, size_bytes: int) -> None:
        assert size_bytes > 0
        self.used.set()
        self.left -= 1
        if self.left < 0:
            raise FerryError(failed("the NIC is down"))


def dying(deaths: dict[str, int]) -> WireOf:
    wires = {nic: DyingWire(at) for nic, at in deaths.items()}
    return lambda nic, _mtu: wires[nic]


def deaths(draw: random.Random) -> dict[str, int]:
    return {nic: draw.choice((NEVER, draw.randrange(15))) for nic in NICS}


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_lanes_die_the_memory_arrives_or_the_guest_runs_on(seed: int) -> None:
    draw = random.Random(seed)
    at_source, at_target = deaths(draw), deaths(draw)
    memory = random_memory(PAGES)
    guest_writes(memory, 1, 1)
    async with two_ends(
        memory,
        option=TransportOption.SMB,
        source_wire_of=dying(at_source),
        target_wire_of=dying(at_target),
    ) as ends:

        def write() -> None:
            number = ends.source.reached.count("source.copying")
            for page in range(0, PAGES, 3):
                memory.pages[page] = number  # every frame has pages of both kinds
            memory.mark_written(np.arange(0, PAGES, 3))

        ends.source.hooks["source.copying"] = write
        safe = [nic for nic in NICS if at_source[nic] == at_target[nic] == NEVER]
        try:
            await ends.move(pass_limit=3, routes=routes(ends.address, *NICS))
        except MoveFailed:
            assert not safe, "a lane was left"
            assert 1 in memory.dirty.take()
            return
        await ends.target.device_state()
        assert_equal(ends)


async def test_the_only_lane_of_tcpip_is_the_attempts_life() -> None:
    wires = dying({"a": 3})
    async with two_ends(random_memory(PAGES), source_wire_of=wires) as ends:
        with pytest.raises(MoveFailed, match="the NIC is down"):
            await ends.move(routes=routes(ends.address, "a"))
        await ends.target.refusal()


@pytest.fixture(autouse=True)
def _progress_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PROGRESS_INTERVAL_S", 0.0)


@pytest.fixture
def links() -> Iterator[list[FaultyLink]]:
    made = [FaultyLink(), FaultyLink()]
    yield made
    for link in made:
        link.close()


def cut_once(ends: Ends, cut: Callable[[], None]) -> None:
    """In the middle of the first pass."""

    def on_report(_progress: object) -> None:
        ends.source.on_report = lambda _progress: None
        cut()

    ends.source.on_report = on_report


async def test_cut_connections_are_replaced_by_the_others(links: list[FaultyLink]) -> None:
    memory = random_memory(PAGES)
    async with two_ends(memory, option=TransportOption.SMB) as ends:
        for link in links:
            link.lead_to(ends.address)
        cut_once(ends, lambda: links[0].heal(broken=True))
        ways = tuple(Route("", "", link.address) for link in links)
        awaiting = await ends.move(routes=ways)
        await ends.target.device_state()
        assert_equal(ends)
        assert awaiting.figures(1.0).verified
        assert len(awaiting._transport._lanes) < 4, "nothing was cut"  # type: ignore[attr-defined]


async def test_a_lane_that_does_not_open_is_given_up_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive_nothing(*_arguments: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(protocol, "OPENING_S_MAX", 1.0)
    monkeypatch.setattr(MigrationServicer, "_receive", receive_nothing)
    async with two_ends(random_memory(PAGES)) as ends:
        with pytest.raises(MoveFailed, match="gave no answer for 1 s"):
            await ends.move()


async def test_a_silent_lane_is_given_up(links: list[FaultyLink], monkeypatch: pytest.MonkeyPatch) -> None:
    memory = random_memory(PAGES)
    last_at_s = GrpcLane.overdue_at_s.fget  # type: ignore[attr-defined]  # of a property

    def overdue_at_s(lane: GrpcLane) -> float:
        """Of the silent link's lanes alone: on a busy machine the others may be silent for as long."""
        at_s: float = last_at_s(lane)
        return at_s - protocol.ANSWER_S_MAX + 0.5 if lane._plan.address == links[0].address else at_s

    async with two_ends(memory, option=TransportOption.SMB) as ends:
        for link in links:
            link.lead_to(ends.address)

        def fall_silent() -> None:
            monkeypatch.setattr(GrpcLane, "overdue_at_s", property(overdue_at_s))
            links[0].cut("there", "back")
            memory.mark_written(slice(None))

        ends.source.hooks["source.copying"] = lambda: (
            fall_silent() if ends.source.reached.count("source.copying") == 1 else None
        )
        await ends.move(routes=tuple(Route("", "", link.address) for link in links))
        await ends.target.device_state()
        assert_equal(ends)


async def test_when_all_are_cut_the_guest_runs_on(links: list[FaultyLink]) -> None:
    memory = random_memory(PAGES)
    guest_writes(memory, 3, 1)
    async with two_ends(memory, option=TransportOption.SMB) as ends:
        for link in links:
            link.lead_to(ends.address)

        async def cut_all() -> None:
            for link in links:
                link.heal(broken=True)
            await asyncio.Event().wait()

        ends.source.hooks["source.copying"] = cut_all
        with pytest.raises(MoveFailed):
            await ends.move(routes=tuple(Route("", "", link.address) for link in links))
        await ends.target.refusal()
        assert not ends.source.past_return
        assert 3 in memory.dirty.take()


async def test_a_lane_that_dies_after_the_final_copy_costs_nothing(links: list[FaultyLink]) -> None:
    memory = random_memory(PAGES)
    async with two_ends(memory, option=TransportOption.SMB) as ends:
        for link in links:
            link.lead_to(ends.address)
        held, release = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            held.set()
            await release.wait()

        ends.target.hooks["target.before_ready"] = hold
        awaiting = await ends.move(routes=tuple(Route("", "", link.address) for link in links))
        await asyncio.wait_for(held.wait(), DEADLINE_S)
        links[0].heal(broken=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(awaiting.lost(), 0.1)
        release.set()
        await ends.target.device_state()
        assert_equal(ends)


async def test_a_lane_is_closed_only_once_its_handler_has_ended() -> None:
    target = Target(8)
    lanes = [ArrivingLane(number, "", UnshapedWire()) for number in range(2)]
    receiver = Receiver(MOVE, target.slot, target, verify=False, option=TransportOption.SMB, lanes=lanes)
    lanes[1].joined = True
    closing = asyncio.create_task(receiver.close_lane(1))
    with pytest.raises(TimeoutError):  # it may still be writing a frame
        await asyncio.wait_for(asyncio.shield(closing), 0.05)
    assert lanes[1].close_wanted.done()
    lanes[1].count(5, 6)
    receiver.lane_ended(lanes[1], failed("closed"))
    assert await closing == 1
    assert not target.outcome.done()
    target.memory.close()


def test_lanes_take_turns_over_the_routes_and_are_bounded() -> None:
    way = [Route(f"s{number}", f"t{number}", f"h:{number}") for number in range(6)]
    assert [lane.address for lane in plan_lanes(TransportOption.TCPIP, way, "x:1")] == ["h:0"]
    two = plan_lanes(TransportOption.SMB, way[:2], "x:1")
    assert [(lane.number, lane.target_nic) for lane in two] == [(0, "t0"), (1, "t1"), (2, "t0"), (3, "t1")]
    assert len(plan_lanes(TransportOption.SMB, way, "x:1")) == LANES_MAX
    assert [lane.address for lane in plan_lanes(TransportOption.DIRECT, way, "x:1")] == ["h:0", "h:1"]
    assert [lane.address for lane in plan_lanes(TransportOption.DIRECT, (), "x:1")] == ["x:1"]


def test_an_acknowledgement_is_due_before_the_window_is_full() -> None:
    """Else both would wait for each other: the window is over all lanes, the target counts by lane."""
    for lanes in range(1, LANES_MAX + 1):
        held_back = max(1, protocol.ACK_EVERY_FRAMES // lanes) - 1
        assert lanes * held_back < protocol.IN_FLIGHT_FRAMES_MAX
    assert protocol.IN_FLIGHT_FRAMES_MAX * FRAME_PAGES_MAX * PAGE_SIZE == 24 * 2**20
