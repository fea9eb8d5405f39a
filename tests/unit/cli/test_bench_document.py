"""The bench's result is worked out from what was measured."""

import math
from dataclasses import replace

import pytest

from ferry_cli.bench.document import OwnRun, PeerRuns, Question, document, lines, percentile
from ferry_cli.bench.floor import Floor
from ferry_cli.bench.peers import PeerRun
from ferry_types.migrations import BlackoutParts

QUESTION = Question(memory_bytes=2**30, fill="random", workload="idle", option="tcpip")
FLOOR = Floor(agent_round_trip_s=0.0002, coordinator_round_trip_s=0.0003, commit_s=0.0005)


def own(total_s: float, blackout_s: float) -> OwnRun:
    return OwnRun(total_s, blackout_s, 2**30 / total_s, total_s / 2, 2**30, 4096, 0.9, 1.0, 0.0)


def test_medians_and_ratios() -> None:
    runs = [own(1.0, 0.002), own(4.0, 0.010), own(2.0, 0.003)]
    peer = PeerRuns("grpc", "python -m x", tuple(PeerRun(t, 2**30 / t, 0, 0.0) for t in (1.0, 1.5, 9.0)))
    result = document(QUESTION, runs, FLOOR, [peer])
    assert result["median"] == {"total_s": 2.0, "blackout_s": 0.003, "throughput_bytes_per_s": 2**29}
    assert math.isclose(result["floor_s"], 0.001)
    assert math.isclose(result["blackout"]["ratio_to_floor"]["median"], 3.0)
    assert math.isclose(result["blackout"]["ratio_to_floor"]["p95"], 10.0)
    assert math.isclose(result["peers"]["grpc"]["ratio"], 0.75)
    assert result["peers"]["grpc"]["command"] == "python -m x"
    assert len(result["runs"]) == 3
    assert result["machine"]["cores"] >= 1


@pytest.mark.parametrize(("set_aside", "some"), [(1, "1 run was"), (7, "7 runs were")])
def test_runs_that_do_not_count_are_told_of(set_aside: int, some: str) -> None:
    said = f"{some} made again: the hypervisor had taken processor time meanwhile."
    assert said in lines(document(QUESTION, [own(1.0, 0.001)], FLOOR, [], set_aside))
    assert "made again" not in "".join(lines(document(QUESTION, [own(1.0, 0.001)], FLOOR, [])))


def test_the_parts_of_the_blackout_are_told_if_all_is_known_of_them() -> None:
    assert document(QUESTION, [own(1.0, 0.001)], FLOOR, [])["blackout"]["median_parts"] is None
    parts = [BlackoutParts(n, 2 * n, 3 * n, 4 * n) for n in (1e-3, 3e-3, 2e-3)]
    runs = [replace(own(1.0, 0.004), blackout=each) for each in parts]
    result = document(QUESTION, runs, FLOOR, [])
    expected = {"last_pages_s": 2e-3, "ready_s": 4e-3, "commit_s": 6e-3, "resume_s": 8e-3}
    assert result["blackout"]["median_parts"] == expected
    assert "  of it last pages 2.0 ms, ready 4.0 ms, commit 6.0 ms, resume 8.0 ms" in lines(result)


def test_a_peer_that_could_not_run_is_named_with_the_reason() -> None:
    missing = PeerRuns("qemu", "", (), "qemu-system-x86_64 is not installed")
    result = document(QUESTION, [own(1.0, 0.001)], FLOOR, [missing])
    assert result["peers"]["qemu"]["ratio"] is None
    assert any("not installed" in line for line in lines(result))


def test_the_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 0.95) == 95.0
    assert percentile([7.0], 0.95) == 7.0
    assert percentile([1.0, 2.0], 0.95) == 2.0
