"""One cluster, one scale: the first host brings it, others have to have it, and VMs have to fit it."""

from typing import Any

import pytest
from tests.unit.cluster.core_bench import MIB, Bench, make_spec

from ferry_cluster.commands import CloseStream, Command
from ferry_cluster.inputs import CreateVm, EvictNode
from ferry_cluster.scale import cluster_scale
from ferry_types.errors import Refusal
from ferry_types.vms import Capacity

GIB = 2**30


def at(scale: int) -> Capacity:
    return Capacity(8 * GIB, 2, 2, scale=scale)


def turned_away(commands: list[Command]) -> Refusal | None:
    return next((command.reason for command in commands if isinstance(command, CloseStream)), None)


def create(bench: Bench, memory_bytes: int) -> Any:
    return bench.ask(CreateVm(7, make_spec("a", memory_bytes), "", False))


def test_the_first_host_brings_the_scale() -> None:
    bench = Bench(hosts=0)
    assert cluster_scale(bench.cluster.state) is None
    assert turned_away(bench.join(1, capacity=at(64))) is None
    assert cluster_scale(bench.cluster.state) == 64
    assert turned_away(bench.join(2, capacity=at(64))) is None


@pytest.mark.parametrize("scale", [1, 32, 128])
def test_a_host_of_another_scale_is_turned_away(scale: int) -> None:
    bench = Bench(hosts=0)
    bench.join(1, capacity=at(64))
    refusal = turned_away(bench.join(2, capacity=at(scale)))
    assert refusal is not None
    assert refusal.rule == "scale"
    assert refusal.message == f"h2 has scale {scale}, h1 has scale 64: one cluster has one scale"
    assert "start its agent with --scale 64" in refusal.hint
    assert list(bench.cluster.state.nodes) == ["h1"]


def test_a_host_that_is_down_counts_and_one_that_was_evicted_does_not() -> None:
    bench = Bench(hosts=0)
    bench.join(1, capacity=at(64))
    bench.wait(10)
    assert not bench.cluster.state.nodes["h1"].up
    assert turned_away(bench.join(2, capacity=at(1))) is not None
    bench.handle(EvictNode(9, "h1", False))
    assert turned_away(bench.join(2, capacity=at(1))) is None
    assert cluster_scale(bench.cluster.state) == 1


def test_the_only_host_may_come_back_with_another_scale_if_the_vms_fit_it() -> None:
    bench = Bench(hosts=0)
    bench.join(1, capacity=at(8))
    assert create(bench, 64 * MIB) == "a"
    bench.wait(10)
    refusal = turned_away(bench.join(1, capacity=at(64), life="another"))
    assert refusal is not None
    assert refusal.message == (
        "h1 has scale 64, which the cluster's VMs do not fit: a has 64 MiB of memory: "
        "at scale 64 a VM has at least 256 MiB"
    )
    assert turned_away(bench.join(1, capacity=at(16), life="another")) is None
    assert cluster_scale(bench.cluster.state) == 16


@pytest.mark.parametrize("memory_bytes", [128 * MIB, 256 * MIB + 4096])
def test_a_vm_that_does_not_fit_is_refused_before_anything_is_stored(memory_bytes: int) -> None:
    bench = Bench(hosts=0)
    bench.join(1, capacity=at(64))
    refused = create(bench, memory_bytes)
    assert isinstance(refused, Refusal)
    assert refused.rule == "scale"
    assert "a" not in bench.cluster.state.vms


def test_a_vm_that_fits_is_created() -> None:
    bench = Bench(hosts=0)
    bench.join(1, capacity=at(64))
    assert create(bench, 256 * MIB) == "a"
