"""What a move holds beyond the guest's own memory, on either side, whatever way the pages travel."""

from pathlib import Path

import pytest
from tests.integration.processes import MIB, Cluster, running_cluster

from ferry_types.migrations import TransportOption

MEMORY_BYTES = 512 * MIB
HELD_BYTES_MAX = 64 * MIB


def resident_bytes(cluster: Cluster, node: str, line: str) -> int:
    status = Path(f"/proc/{cluster.agent_pid(node)}/status").read_text()
    (kilobytes,) = (one.split()[1] for one in status.splitlines() if one.startswith(f"{line}:"))
    return int(kilobytes) * 1024


def forget_the_peak(cluster: Cluster, node: str) -> int:
    """From now on VmHWM is that of what follows (man 5 proc); what is resident now."""
    Path(f"/proc/{cluster.agent_pid(node)}/clear_refs").write_text("5")
    return resident_bytes(cluster, node, "VmRSS")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("option", TransportOption)
def test_a_move_holds_little_memory_of_its_own(tmp_path: Path, option: TransportOption) -> None:
    with running_cluster(tmp_path, 2) as cluster:
        cluster.create("vm", "n1", memory_bytes=MEMORY_BYTES, workload="idle")
        before = {node: forget_the_peak(cluster, node) for node in ("n1", "n2")}
        record = cluster.ended(cluster.migrate("vm", "n2", option=option), 60)
        assert record.state == "completed", record.reason
        held = {node: resident_bytes(cluster, node, "VmHWM") - before[node] for node in before}
        assert held["n1"] <= HELD_BYTES_MAX, held
        assert held["n2"] - MEMORY_BYTES <= HELD_BYTES_MAX, held
