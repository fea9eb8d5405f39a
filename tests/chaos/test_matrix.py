"""Every fault in every phase of a move: some 200 cases, a quarter of an hour (`make chaos`)."""

from pathlib import Path

import pytest
from tests.chaos.matrix import FAULTS, PHASES, Fault, linked_cluster, survive


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
@pytest.mark.parametrize("phase", PHASES)
def test_a_fault_in_a_phase(tmp_path: Path, phase: str, fault: Fault) -> None:
    with linked_cluster(tmp_path) as cluster:
        survive(cluster, phase, fault)
