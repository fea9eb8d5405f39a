"""Failpoints hold, fail or kill whoever reaches them, and only when they are switched to."""

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ferry_agent import failpoints
from ferry_agent.failpoints import NAMES, Action, Failpoint, Failpoints
from ferry_types.errors import ErrorCode, FerryError

POINT = "source.copying"


def one(points: Failpoints, name: str = POINT) -> Failpoint:
    [found] = [point for point in points.list() if point.name == name]
    return found


async def test_all_are_off_at_first() -> None:
    points = Failpoints(enabled=True)
    for name in NAMES:
        await points.reach(name)
    assert points.list() == tuple(Failpoint(name, Action.OFF, 1, holding=False) for name in NAMES)


async def test_error_is_raised_at_each_reach_until_it_is_off() -> None:
    points = Failpoints(enabled=True)
    points.set(POINT, "error")
    for _ in range(2):
        with pytest.raises(FerryError, match=POINT):
            await points.reach(POINT)
    await points.reach("source.arming")
    points.set(POINT, "off")
    await points.reach(POINT)
    assert one(points).reached == 3


async def test_hold_keeps_everyone_until_it_is_off() -> None:
    points = Failpoints(enabled=True)
    points.set(POINT, "hold")
    held = [asyncio.ensure_future(points.reach(POINT)) for _ in range(2)]
    await asyncio.sleep(0)  # they come to wait
    assert one(points).holding
    assert not any(task.done() for task in held)
    points.set(POINT, "off")
    await asyncio.wait_for(asyncio.gather(*held), 5)
    assert not one(points).holding


async def test_held_ones_do_what_comes_next() -> None:
    points = Failpoints(enabled=True)
    points.set(POINT, "hold")
    held = asyncio.ensure_future(points.reach(POINT))
    await asyncio.sleep(0)  # they come to wait
    points.set(POINT, "hold")  # once more: nothing changes
    await asyncio.sleep(0)
    assert one(points).holding
    points.set(POINT, "error")
    with pytest.raises(FerryError):
        await asyncio.wait_for(held, 5)


async def test_a_held_one_may_be_cancelled() -> None:
    points = Failpoints(enabled=True)
    points.set(POINT, "hold")
    held = asyncio.ensure_future(points.reach(POINT))
    await asyncio.sleep(0)  # they come to wait
    held.cancel()
    await asyncio.wait({held})
    assert not one(points).holding


def test_crash_kills_the_process_itself() -> None:
    program = (
        "import asyncio\n"
        "from ferry_agent.failpoints import Failpoints\n"
        "points = Failpoints(enabled=True)\n"
        f"points.set({POINT!r}, 'crash')\n"
        f"asyncio.run(points.reach({POINT!r}))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert ended.returncode == -signal.SIGKILL


async def test_without_leave_they_do_nothing() -> None:
    points = Failpoints(enabled=False)
    points.set(POINT, "error")
    await points.reach(POINT)
    assert one(points).reached == 0


@pytest.mark.parametrize(
    ("name", "action"), [("source.dreaming", "hold"), (POINT, "sleep"), ("", ""), (POINT, "")]
)
def test_unknown_names_and_actions_are_refused(name: str, action: str) -> None:
    points = Failpoints(enabled=True)
    with pytest.raises(FerryError) as raised:
        points.set(name, action)
    assert raised.value.refusal.code is ErrorCode.MALFORMED
    assert raised.value.refusal.hint
    assert one(points).action is Action.OFF


def test_the_agent_reaches_every_failpoint_and_no_other() -> None:
    package = Path(failpoints.__file__).parent
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in package.rglob("*.py") if path.name != "failpoints.py"
    )
    assert set(re.findall(r'"((?:source|target)\.[a-z_]+)"', sources)) == set(NAMES)
