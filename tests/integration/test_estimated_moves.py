"""Estimates and help to converge through coordinator and agents: what is planned, done and shown."""

from pathlib import Path
from typing import Any

from tests.integration.processes import MIB, Cluster, eventually, running_cluster

from ferry.v1 import admin_pb2, common_pb2


def plan(cluster: Cluster, to: str, **options: Any) -> admin_pb2.MigrationRecord:
    """What a dry run answers."""
    chosen = common_pb2.MigrationOptions(
        type="live", option="tcpip", pass_limit=10, blackout_allowed_s=0.05, **options
    )
    request = admin_pb2.MigrateVmRequest(vm="a", to=to, options=chosen, dry_run=True)
    answer: admin_pb2.MigrationRecord = cluster.admin.MigrateVm(request, timeout=10)
    return answer


def test_a_dry_run_estimates_and_a_move_shows_what_was_expected_of_it(tmp_path: Path) -> None:
    with running_cluster(tmp_path, 2, "--failpoints") as cluster:
        cluster.create(
            "a",
            "n1",
            memory_bytes=64 * MIB,
            workload="sql",
            write_rate_bytes_per_s=16 * MIB,
            working_set_bytes=16 * MIB,
        )
        first = plan(cluster, "n2")
        assert not first.HasField("estimate")
        assert first.estimate_reason == "no move between n1 and n2 has shown yet what the wire carries"
        unknown = cluster.ended(cluster.migrate("a", "n2"))
        assert unknown.state == "completed", unknown.reason
        assert not unknown.HasField("estimate")

        eventually(lambda: plan(cluster, "n1").HasField("estimate"), what="the guest is measured")
        planned = plan(cluster, "n1").estimate
        assert 1 <= planned.passes <= 10
        assert planned.bytes_sent >= 60 * MIB
        assert 0 < planned.write_bytes_per_s < 32 * MIB
        moved = cluster.ended(cluster.migrate("a", "n1", throttle=True))
        assert moved.state == "completed", moved.reason
        assert moved.HasField("estimate")
        assert moved.estimate.explanation
        assert moved.figures.HasField("estimate")
        assert moved.options.throttle
        given_up(cluster)
        assert cluster.audit("a").ok


def given_up(cluster: Cluster) -> None:
    """A move that cannot keep within the black-out allowed fails; its guest runs on under the same epoch."""
    epoch = cluster.wait_running("a").epoch
    cluster.failpoint("n1", "source.copying", "hold")
    move = cluster.migrate("a", "n2", abort_over_blackout=True, blackout_allowed_s=1e-6, pass_limit=1)
    cluster.wait_holding("n1", "source.copying")
    cluster.failpoint("n1", "source.copying", "off")
    failed = cluster.ended(move)
    assert failed.state == "failed"
    assert "given up at the limit of 1 pass" in failed.reason
    vm = cluster.wait_running("a")
    assert (vm.node, vm.epoch) == ("n1", epoch)
