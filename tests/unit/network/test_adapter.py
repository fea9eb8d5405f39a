"""Tasks and threads that wait on NICs, in real time."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from tests.unit.network.traffic import member

from ferry_agent.network.adapter import Adapter, Passed
from ferry_agent.network.delay import DELAYED_ITEMS_MAX, DelayLine
from ferry_agent.network.wire import Wire
from ferry_host.shaping.lane import BURST_S
from ferry_host.shaping.policies import ClassPolicy
from ferry_types.errors import ErrorCode, FerryError
from ferry_types.links import TrafficClass, goodput_bytes_per_s

MIGRATION = TrafficClass.MIGRATION
RATE = 50e6
GOODPUT = goodput_bytes_per_s(RATE, 1500)
FRAME = 2**21
RUN_S = 1.0
TRIES = 3
"""The best of so many counts where a bound from above is close: the machine may be busy."""


def nic(rate: float = RATE, latency_s: float = 0.0) -> Adapter:
    return Adapter("nic1", [member("nic1", rate, latency_s)], {})


def team(*rates: float) -> Adapter:
    members = tuple(member(f"nic{number}", rate) for number, rate in enumerate(rates, start=1))
    return Adapter("team1", members, {})


def sent_bytes(link: Adapter) -> int:
    return sum(one.sent_bytes for one in link.passed())


async def saturate(link: Adapter, run_s: float) -> float:
    """Three tasks and two threads, each with a wire of its own; payload bytes a second of all of them."""
    began_s = time.monotonic()

    async def task(wire: Wire) -> None:
        while time.monotonic() - began_s < run_s:
            await wire.pass_bytes(FRAME)

    def thread(wire: Wire) -> None:
        while time.monotonic() - began_s < run_s:
            wire.pass_bytes_blocking(FRAME)

    wires = [link.sending(f"flow {number}", MIGRATION) for number in range(5)]
    await asyncio.gather(
        *(task(wire) for wire in wires[:3]), *(asyncio.to_thread(thread, wire) for wire in wires[3:])
    )
    took_s = time.monotonic() - began_s
    return sent_bytes(link) / took_s


async def test_tasks_and_threads_on_one_nic_get_its_rate_together() -> None:
    """Five frames that wait at any time are 0.2 s of work: a machine that stands still takes nothing away."""
    assert await saturate(nic(), RUN_S) == pytest.approx(GOODPUT, rel=0.04)


async def test_waiting_costs_hardly_any_processor_time() -> None:
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    await saturate(nic(), RUN_S / 2)
    assert time.process_time() - began_cpu_s < 0.25 * (time.monotonic() - began_s)


async def test_a_frame_takes_its_time_on_a_loop_and_in_a_thread() -> None:
    wire, size_bytes = nic().sending("a", MIGRATION), round(0.1 * GOODPUT)
    began_s = time.monotonic()
    await wire.pass_bytes(size_bytes)
    assert time.monotonic() - began_s >= 0.099
    wire.rest()
    began_s = time.monotonic()
    await asyncio.to_thread(wire.pass_bytes_blocking, size_bytes)
    assert time.monotonic() - began_s >= 0.099


async def test_both_directions_have_the_whole_rate() -> None:
    link, size_bytes = nic(), round(0.2 * GOODPUT)
    out, into = link.sending("a", MIGRATION), link.receiving("b", MIGRATION)
    await into.pass_bytes(size_bytes)  # was on the wire until now
    took_s = []
    for _ in range(TRIES):
        began_s = time.monotonic()
        await asyncio.gather(out.pass_bytes(size_bytes), into.pass_bytes(size_bytes))
        took_s.append(time.monotonic() - began_s)
    assert 0.2 - BURST_S - 0.001 <= min(took_s) < 0.35  # one after the other they would take 0.35 s at least


async def test_an_unshaped_nic_passes_at_once_and_counts() -> None:
    link = nic(0)
    wire = link.sending("a", MIGRATION)
    for _ in range(3):
        await wire.pass_bytes(2**30)
    link.receiving("b", TrafficClass.CSV).pass_bytes_blocking(5)
    assert list(link.passed()) == [Passed("nic1", 3 * 2**30, 5, 0.0, 0.0)]


def test_frames_take_eight_milliseconds_on_the_wire() -> None:
    fast, slow, unshaped = (nic(rate).sending("a", MIGRATION).frame_bytes for rate in (RATE, 1000, 0))
    assert (fast, slow, unshaped) == (int(0.008 * GOODPUT), 4096, 4 * 2**20)


async def test_a_limited_class_waits_where_others_do_not() -> None:
    link = Adapter("nic1", [member("nic1")], {MIGRATION: ClassPolicy(limit_bytes_per_s=RATE)})
    began_s = time.monotonic()
    await link.sending("a", TrafficClass.CSV).pass_bytes(2**30)
    assert time.monotonic() - began_s < 5  # at the limit it would take 21 s
    began_s = time.monotonic()
    await link.sending("b", MIGRATION).pass_bytes(round(0.1 * GOODPUT))
    assert time.monotonic() - began_s >= 0.099


async def test_what_passed_is_counted_by_member() -> None:
    link = team(RATE, RATE)
    await link.sending("a", MIGRATION).pass_bytes(FRAME)
    await link.receiving("a", TrafficClass.CLUSTER).pass_bytes(1000)
    told = list(link.passed())
    assert [one.nic for one in told] == ["nic1", "nic2"]
    assert sorted(one.sent_bytes for one in told) == [0, FRAME]
    assert sorted(one.received_bytes for one in told) == [0, 1000]
    assert sum(one.sending_s for one in told) == pytest.approx(FRAME / GOODPUT)


# --- failing ----------------------------------------------------------------------------------------------


def is_waited_for(link: Adapter) -> bool:
    """Whether the first pieces of two flows have been granted, so that both wait for the rest."""
    return sent_bytes(link) > 0


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - with a deadline
            await asyncio.sleep(0.002)


async def test_who_waits_on_a_nic_that_goes_down_is_told_at_once() -> None:
    link = nic(1000)
    await link.receiving("c", MIGRATION).pass_bytes(1000)  # was on the wire until now; what follows is not
    waiting = [
        asyncio.create_task(link.sending("a", MIGRATION).pass_bytes(FRAME)),
        asyncio.create_task(asyncio.to_thread(link.sending("b", MIGRATION).pass_bytes_blocking, FRAME)),
        asyncio.create_task(link.receiving("c", MIGRATION).pass_bytes(2**30)),
        asyncio.create_task(asyncio.to_thread(link.receiving("d", MIGRATION).pass_bytes_blocking, 2**30)),
    ]
    await until(lambda: is_waited_for(link) and all(side_is_waited_for(link)))
    began_s = time.monotonic()
    link.down()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert time.monotonic() - began_s < 5
    for outcome in outcomes:
        assert isinstance(outcome, FerryError)
        assert outcome.refusal.code is ErrorCode.UNREACHABLE
        assert outcome.refusal.message == "NIC nic1 is down"
        assert outcome.refusal.hint


def side_is_waited_for(link: Adapter) -> list[bool]:
    return [len(side._wakers) == 2 for side in (link._sending, link._receiving)]


@pytest.mark.parametrize("rate", [0, RATE])
async def test_a_nic_that_is_down_passes_nothing_until_it_is_up(rate: float) -> None:
    link = nic(rate)
    wire = link.sending("a", MIGRATION)
    link.down()
    with pytest.raises(FerryError, match="NIC nic1 is down"):
        await wire.pass_bytes(1)
    with pytest.raises(FerryError, match="NIC nic1 is down"):
        await asyncio.to_thread(wire.pass_bytes_blocking, 1)
    assert sent_bytes(link) == 0
    link.up()
    await wire.pass_bytes(1)
    assert sent_bytes(link) == 1


async def test_a_team_loses_a_member_and_goes_on() -> None:
    link = team(RATE, RATE)
    wire = link.sending("a", MIGRATION)
    passing = asyncio.create_task(wire.pass_bytes(round(0.2 * GOODPUT)))
    await until(lambda: is_waited_for(link))
    (carrier,) = [one.nic for one in link.passed() if one.sent_bytes]
    link.down(carrier)
    await passing
    assert all(one.sent_bytes for one in link.passed())


async def test_an_unknown_member_is_not_found() -> None:
    with pytest.raises(FerryError, match="team1 has no NIC 'nic3'") as caught:
        team(RATE, RATE).down("nic3")
    assert caught.value.refusal.code is ErrorCode.NOT_FOUND


async def test_what_is_cancelled_leaves_the_wire_to_others() -> None:
    link = nic(1_000_000)
    endless = asyncio.create_task(link.sending("a", MIGRATION).pass_bytes(2**40))
    await until(lambda: is_waited_for(link))
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless
    assert not link._sending._wakers
    passed_bytes = sent_bytes(link)
    await link.sending("b", MIGRATION).pass_bytes(1000)
    assert sent_bytes(link) == passed_bytes + 1000


async def test_who_waits_behind_what_is_cancelled_does_not_sleep_on() -> None:
    link = nic(1_000_000)
    endless = asyncio.create_task(link.sending("a", MIGRATION).pass_bytes(2**40))
    await until(lambda: is_waited_for(link))
    thread = threading.Thread(target=link.sending("b", MIGRATION).pass_bytes_blocking, args=(1_000_000,))
    began_s = time.monotonic()
    thread.start()
    await until(lambda: len(link._sending._wakers) == 2)
    endless.cancel()
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    assert time.monotonic() - began_s < 1.7  # beside the other it would have taken 2.1 s


def test_nothing_less_than_nothing_passes() -> None:
    with pytest.raises(ValueError, match="-1 bytes"):
        nic().sending("a", MIGRATION).pass_bytes_blocking(-1)


# --- latency ----------------------------------------------------------------------------------------------


async def test_latency_is_the_receiving_nics_and_holds_nothing_up() -> None:
    link = nic(latency_s=0.1)
    assert (link.sending("a", MIGRATION).latency_s, link.receiving("a", MIGRATION).latency_s) == (0.0, 0.1)
    line: DelayLine[int] = DelayLine(0.1)
    began_s = time.monotonic()
    for number in range(50):
        await line.put(number)
    assert await line.get() == 0
    assert time.monotonic() - began_s >= 0.099
    assert [await line.get() for _ in range(49)] == list(range(1, 50))
    assert time.monotonic() - began_s < 2  # one after the other they would take 5 s


async def test_a_delay_line_is_bounded() -> None:
    line: DelayLine[int] = DelayLine(0.0)
    for number in range(DELAYED_ITEMS_MAX):
        await line.put(number)
    surplus = asyncio.create_task(line.put(0))
    assert await asyncio.wait({surplus}, timeout=0.02) == (set(), {surplus})
    await line.get()
    await surplus
