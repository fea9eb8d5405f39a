"""Estimates against what moves then take, over a link of a known rate."""

import asyncio
import statistics
from dataclasses import dataclass

import pytest
from tests.unit.migration.paced import PacedWire, busy_guest, choose, move

from ferry_agent.estimates import estimate_move
from ferry_types.migrations import WireFigures
from ferry_types.workloads import AccessPattern

MIB = 2**20
WIRE = WireFigures(50e6)
MEMORY_BYTES = 96 * MIB
WORKING_SET_BYTES = 32 * MIB
PASS_LIMIT = 6
RUNS = 5
MEASURED_S = 1.2
TOLERANCE = 0.15
FLOOR_S = 0.005
"""What a black-out takes at least, by which an estimate may be off besides."""


@dataclass(frozen=True, slots=True)
class Run:
    """Outcome over estimate, and by how many seconds the last copy was off."""

    brownout: float
    bytes_sent: float
    last_off_s: float
    last_s: float


async def run_once(times_the_wire: float, access: AccessPattern) -> Run:
    """One move of a guest, compared with what was expected of it."""
    guest = busy_guest(times_the_wire, access, MEMORY_BYTES, WORKING_SET_BYTES)
    options = choose(pass_limit=PASS_LIMIT)
    async with guest as (ends, host):
        await asyncio.sleep(MEASURED_S)
        expected = estimate_move(host.image, options, WIRE)
        figures = await move(ends, host, pass_limit=PASS_LIMIT)
    assert expected is not None
    assert expected.blackout_s is not None
    assert figures.final is not None
    last_s = figures.final.bytes_sent / WIRE.rate_bytes_per_s
    return Run(
        figures.brownout_s / expected.brownout_s,
        figures.bytes_sent / expected.bytes_sent,
        last_s - expected.blackout_s,
        last_s,
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("times_the_wire", "access"),
    [
        (0.25, AccessPattern.UNIFORM),
        (0.5, AccessPattern.SEQUENTIAL),
        (0.5, AccessPattern.HOTSET),
        (1.5, AccessPattern.UNIFORM),
    ],
)
async def test_moves_take_what_was_estimated_within_15_percent(
    times_the_wire: float, access: AccessPattern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PacedWire, "rate_bytes_per_s", WIRE.rate_bytes_per_s)
    runs = [await run_once(times_the_wire, access) for _ in range(RUNS)]
    assert statistics.median(run.brownout for run in runs) == pytest.approx(1, abs=TOLERANCE)
    assert statistics.median(run.bytes_sent for run in runs) == pytest.approx(1, abs=TOLERANCE)
    last_s = statistics.median(run.last_s for run in runs)
    assert abs(statistics.median(run.last_off_s for run in runs)) <= TOLERANCE * last_s + FLOOR_S
