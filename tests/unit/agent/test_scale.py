"""An agent at scale: what it holds and lets pass is an Nth of all that it says."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.migration.ends import EPOCH, MOVE, TOKEN, VM, two_ends

from ferry_agent.estimates import estimate_move
from ferry_agent.gate import LeaseGate
from ferry_agent.migration.source import OutgoingMove
from ferry_agent.network.adapters import Adapters
from ferry_agent.network.nics import Nics
from ferry_agent.rack import Image, Rack
from ferry_agent.settings import load_settings
from ferry_agent.telemetry import _vm_telemetry
from ferry_host.scale import Scale
from ferry_host.shaping.lane import UNIT_S
from ferry_types.eras import RULES, Era
from ferry_types.errors import FerryError
from ferry_types.limits import PAGE_SIZE
from ferry_types.links import MTU_STANDARD, goodput_bytes_per_s
from ferry_types.messages import BeginOutgoing
from ferry_types.migrations import MigrationOptions, WireFigures
from ferry_types.networks import Nic
from ferry_types.units import parse_rate
from ferry_types.vms import VmSpec
from ferry_types.workloads import Fill, FillSpec, books_pages, resolve

MIB, GIB = 2**20, 2**30
N = 64
MEMORY_BYTES = 512 * MIB
WRITE_BYTES_PER_S = 64 * MIB


def make_spec(memory_bytes: int = MEMORY_BYTES) -> VmSpec:
    workload = resolve(
        "sql", memory_bytes, write_rate_bytes_per_s=WRITE_BYTES_PER_S, working_set_bytes=64 * MIB
    )
    return VmSpec(VM, memory_bytes, workload, FillSpec(Fill.RANDOM))


def make_rack(scale: int = N) -> Rack:
    gate = LeaseGate()
    gate.deadline_s = time.monotonic() + 600
    crashed: list[Any] = []
    return Rack(gate, None, lambda *_: None, lambda *what: crashed.append(what), Scale(scale))


@pytest.fixture
async def image() -> AsyncIterator[Image]:
    """A guest that runs, of 512 MiB at scale 64."""
    rack = make_rack()
    booted = await rack.boot(make_spec(), EPOCH)
    rack.add(booted)
    booted.run(EPOCH)
    yield booted
    await rack.close()


async def measured(image: Image) -> float:
    async with asyncio.timeout(10):
        while True:
            if (writes_per_s := image.writes_per_s) is not None and image.write_bytes_per_s:
                return writes_per_s
            await asyncio.sleep(0.05)


async def test_memory_is_an_nth_and_what_is_said_of_it_is_not(image: Image) -> None:
    assert image.memory.memory_bytes == MEMORY_BYTES // N
    assert image.spec == make_spec()
    writes_per_s = await measured(image)
    assert writes_per_s * PAGE_SIZE == pytest.approx(WRITE_BYTES_PER_S, rel=0.15)
    told: dict[str, Any] = _vm_telemetry(image, "node1")
    assert told["memory_bytes"] == MEMORY_BYTES
    assert 0.5 * WRITE_BYTES_PER_S < told["write_bytes_per_s"] < 1.2 * WRITE_BYTES_PER_S
    assert told["pages_written"] % N == told["dirty_pages"] % N == 0
    assert 0 < told["dirty_pages"] <= MEMORY_BYTES // PAGE_SIZE
    report = await image.audit()
    assert report is not None
    assert report.ok, report.errors
    books = books_pages(MEMORY_BYTES // N)
    assert report.pages_checked == MEMORY_BYTES // PAGE_SIZE - books * N


async def test_steps_come_as_often_as_at_scale_1(image: Image) -> None:
    whole = await make_rack(1).boot(make_spec(128 * MIB), EPOCH)
    assert image._guest.pace.period_s == pytest.approx(whole._guest.pace.period_s, rel=0.5)
    await whole.destroy()


async def test_an_estimate_is_in_emulated_units(image: Image) -> None:
    await measured(image)
    wire = WireFigures(parse_rate("10Gbit/s"), 0.002)
    made = estimate_move(image, MigrationOptions(), wire)
    assert made is not None
    assert made.bytes_sent >= 0.99 * MEMORY_BYTES
    assert made.brownout_s == pytest.approx(MEMORY_BYTES / wire.rate_bytes_per_s, rel=0.1)
    assert made.rate_bytes_per_s == wire.rate_bytes_per_s
    assert made.write_bytes_per_s == pytest.approx(WRITE_BYTES_PER_S, rel=0.15)
    assert "1.2 GiB/s" in made.explanation


async def test_a_vm_that_does_not_fit_the_scale_is_not_booted() -> None:
    rack = make_rack()
    with pytest.raises(FerryError, match="is not a multiple of 256 KiB") as caught:
        await rack.boot(make_spec(MEMORY_BYTES + PAGE_SIZE), EPOCH)
    assert caught.value.refusal.rule == "scale"
    with pytest.raises(FerryError, match="at scale 64 a VM has at least 256 MiB"):
        rack.map_memory(make_spec(128 * MIB))


async def test_a_move_tells_progress_figures_and_reasons_in_emulated_units(image: Image) -> None:
    image.hold()
    pages = image.memory.n_pages
    options = MigrationOptions(verify=True)
    async with two_ends(image.memory) as ends:
        order = BeginOutgoing(MOVE, TOKEN, VM, EPOCH, "node2", ends.address, options)
        move = OutgoingMove(
            order,
            image.memory,
            ends.source,
            least_recently_used_first=True,
            channels=ends.channels,
            scale=image.scale,
        )
        awaiting = await asyncio.wait_for(move.run(), 10)
        ends.awaiting.append(awaiting)
        figures = awaiting.figures(None)
        assert [each.pages_sent + each.zero_pages for each in figures.passes] == [pages * N]
        assert figures.passes[0].bytes_sent > figures.passes[0].pages_sent * PAGE_SIZE
        assert figures.bytes_sent % N == 0
        last = ends.source.reports[-1]
        assert last.pages_done == last.pages_total == pages * N
        assert last.rate_bytes_per_s == pytest.approx(
            figures.passes[0].bytes_sent / figures.passes[0].duration_s, rel=0.01
        )


async def test_a_nic_lets_an_nth_pass_and_counts_all_of_it() -> None:
    rate = parse_rate("10Gbit/s")
    adapters = Adapters(Nics([Nic("n", "net", "10.0.0.1", rate)]), scale=Scale(N))
    wire = adapters.sending("n", MTU_STANDARD)
    assert wire.frame_bytes == int(goodput_bytes_per_s(rate / N, MTU_STANDARD) * UNIT_S)
    real_bytes = round(goodput_bytes_per_s(rate / N, MTU_STANDARD) * 0.3)
    began_s = time.monotonic()
    await wire.pass_bytes(real_bytes)
    assert time.monotonic() - began_s == pytest.approx(0.3, abs=0.06)
    (passed,) = adapters.passed()
    assert passed.sent_bytes == real_bytes * N
    assert passed.sending_s == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("scale", [3, N, 256])
async def test_what_an_era_leaves_of_a_fast_link_goes_by_its_emulated_rate(scale: int) -> None:
    for rate, share in (("10Gbit/s", 0.7), ("9Gbit/s", 1.0)):
        adapters = Adapters(Nics([Nic("n", "net", "10.0.0.1", parse_rate(rate))]), scale=Scale(scale))
        adapters.obey(RULES[Era.WS2008R2])
        real = goodput_bytes_per_s(share * parse_rate(rate) / scale, MTU_STANDARD)
        assert adapters.sending("n", MTU_STANDARD).frame_bytes == pytest.approx(real * UNIT_S, abs=1)


class TestSettings:
    REQUIRED = ("--name", "node1", "--dir", "data", "--coordinator", "127.0.0.1:7000")

    @pytest.fixture(autouse=True)
    def _bare_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for variable in list(os.environ):
            if variable.startswith("FERRY_"):
                monkeypatch.delenv(variable)

    def test_the_scale_is_part_of_what_a_host_says_of_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load_settings(self.REQUIRED).capacity.scale == 1
        assert load_settings((*self.REQUIRED, "--scale", "64")).capacity.scale == 64
        monkeypatch.setenv("FERRY_AGENT_SCALE", "8")
        assert load_settings(self.REQUIRED).capacity.scale == 8

    @pytest.mark.parametrize("scale", ["0", "-1", "257", "half", "1.5"])
    def test_what_is_no_scale_is_refused(self, scale: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            load_settings((*self.REQUIRED, f"--scale={scale}"))
        assert ended.value.code == 2
        assert "--scale" in capsys.readouterr().err

    def test_a_nic_too_slow_for_the_scale_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        slow = "name=n,network=net,address=10.0.0.1,rate=100kbit/s"
        assert load_settings((*self.REQUIRED, "--nic", slow)).capacity.nics
        with pytest.raises(SystemExit) as ended:
            load_settings((*self.REQUIRED, "--nic", slow, "--scale", "64"))
        assert ended.value.code == 2
        assert "too low for scale 64: at least 512kbit/s" in capsys.readouterr().err
