"""``ferry bench migrate`` measures what it promises to."""

import asyncio
import json
import os
import sys
from pathlib import Path


def leftovers(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_the_bench_prints_its_document(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from ferry_cli.main import main; main()", "bench", "migrate"),
        *("--memory", "32MiB", "--runs", "2", "--against", "grpc", "-o", "json"),
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(50):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
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
