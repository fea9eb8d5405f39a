"""``ferry bench migrate`` measures what it promises to."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path


def leftovers(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def started(directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    """A ``ferry`` command, whose temporary files lie in ``directory``."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from ferry_cli.main import main; main()", *arguments),
        env={**os.environ, "TMPDIR": str(directory)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ferry(directory: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code and output of a command."""
    process = await started(directory, *arguments)
    async with asyncio.timeout(50):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_bench_prints_its_document(tmp_path: Path) -> None:
    asked = ("--memory", "32MiB", "--runs", "2", "--against", "grpc", "-o", "json")
    code, out, err = await ferry(tmp_path, "bench", "migrate", *asked)
    assert code == 0, err
    result = json.loads(out)
    assert len(result["runs"]) == 2
    for run in (*result["runs"], result["median"]):
        assert run["total_s"] > run["blackout_s"] > 0
        assert run["throughput_bytes_per_s"] > 0
    assert result["floor_s"] == sum(result["floor"].values()) > 0
    assert result["blackout"]["ratio_to_floor"]["median"] > 0
    assert result["peers"]["grpc"]["ratio"] > 0
    assert "grpc_peer" in result["peers"]["grpc"]["command"]
    assert leftovers(tmp_path) == []


async def test_a_part_of_the_suite_becomes_a_document(tmp_path: Path) -> None:
    """Over NICs that have a rate, and none of it is left behind."""
    result, page = tmp_path / "result.json", tmp_path / "page.md"
    part = ("--quick", "--only", "random,idle,1Gbit/s,tcpip,direct", "--memory", "8MiB", "--against", "")
    code, out, err = await ferry(tmp_path, "bench", "suite", *part, "--out", str(result))
    assert code == 0, err
    assert "tcpip" in out
    (group,) = json.loads(result.read_text())["groups"]
    assert [own["option"] for own in group["own"]] == ["tcpip", "direct"]
    for own in group["own"]:
        assert own["total_s"] > own["brownout_s"] > 0.95 * 8 * 2**20 / 125e6, "the NICs' rate holds"
    code, _, err = await ferry(tmp_path, "bench", "document", str(result), "--out", str(page))
    assert code == 0, err
    assert "### 1Gbit/s, 8 MiB of random, idle guest" in page.read_text()
    assert sorted(leftovers(tmp_path)) == [page, result]


def children_of(pid: int) -> list[Path]:
    """The processes that it has started, in /proc."""
    return [Path(f"/proc/{child}") for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_an_interrupted_suite_leaves_nothing_behind(tmp_path: Path) -> None:
    """A lab, the link of the peers and a peer have run when it is interrupted."""
    result = tmp_path / "result.json"
    part = ("--quick", "--only", "random,idle,1Gbit/s,tcpip", "--memory", "64MiB", "--against", "socket")
    process = await started(tmp_path, "bench", "suite", *part, "--runs", "20", "--out", str(result))
    try:
        assert process.stderr is not None
        async with asyncio.timeout(40):
            while b"run 1 of 20" not in (line := await process.stderr.readline()):
                assert line, "the bench has ended early"
            children = children_of(process.pid)
            process.send_signal(signal.SIGINT)
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130
    assert children
    assert not any(child.exists() for child in children)
    assert leftovers(tmp_path) == []
