"""A few cases of the chaos matrix, in every run of the suite; `make chaos` runs all of them."""

from pathlib import Path

import pytest
from tests.chaos.matrix import FAULTS, linked_cluster, survive

BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.mark.parametrize(
    ("phase", "fault"),
    [
        ("source.final_sent", "kill coordinator"),
        ("target.committed", "freeze target for 3.0 leases"),
        ("source.paused", "cut n1-coordinator there"),
        ("target.before_ready", "cut peers-n2 there and back"),
    ],
)
def test_a_fault_in_a_phase(tmp_path: Path, phase: str, fault: str) -> None:
    with linked_cluster(tmp_path) as cluster:
        survive(cluster, phase, BY_NAME[fault])
