"""``ferry demo`` shows what it says, and leaves nothing behind, also when it is interrupted."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ferry_cli.lab.processes import MARK

FERRY = (sys.executable, "-c", "from ferry_cli.main import main; main()")
DEMO_S = 60


async def start_demo(temporary: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *FERRY,
        "demo",
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def lab_processes(temporary: Path) -> list[int]:
    """Every process that bears the mark of a lab below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if MARK.encode() in environment and str(temporary).encode() in environment:
                found.append(int(entry.name))
    return found


def check_nothing_left(temporary: Path) -> None:
    assert lab_processes(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.timeout(2 * DEMO_S)
async def test_the_demo_holds_what_it_shows(tmp_path: Path) -> None:
    process = await start_demo(tmp_path)
    async with asyncio.timeout(DEMO_S):
        out, err = await process.communicate()
    text = out.decode()
    assert process.returncode == 0, text + err.decode()
    assert "FAIL" not in text
    for word in (
        "brown-out",
        "black-out",
        "echoes:",
        "fails over",
        "0 errors",
        "no process of the lab is left",
    ):
        assert word in text
    check_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("line", "number"),
    [(b"broker listens", signal.SIGINT), (b"runs on", signal.SIGTERM), (b"copying", signal.SIGINT)],
)
async def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, line: bytes, number: signal.Signals
) -> None:
    process = await start_demo(tmp_path)
    assert process.stdout is not None
    async with asyncio.timeout(DEMO_S):
        while line not in await process.stdout.readline():
            assert process.returncode is None
        process.send_signal(number)
        await process.communicate()
    assert process.returncode == 130
    check_nothing_left(tmp_path)
