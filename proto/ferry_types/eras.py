"""Functional levels of a cluster: what each generation of Windows Server could do.

Figures: the documented limits of Hyper-V and Failover Clustering of that release.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Era(StrEnum):
    """A cluster's functional level, by Windows Server release."""

    WS2008R2 = "2008r2"
    WS2012 = "2012"
    WS2012R2 = "2012r2"
    WS2016 = "2016"

    def is_before(self, other: "Era") -> bool:
        """Whether this release is an earlier one than the other."""
        return _ORDER[self] < _ORDER[other]


_ORDER = {era: place for place, era in enumerate(Era)}


@dataclass(frozen=True, slots=True)
class EraRules:
    """Limits and algorithms of one era."""

    nodes_max: int
    vms_per_node_max: int
    """VMs that one host runs."""
    vms_per_cluster_max: int
    vms_per_pair_max: int
    """VMs of a cluster of two nodes: what one of them may run, where each must be able to take all."""
    migrations_per_host_max: int | None
    """Simultaneous live migrations per host; None: as many as the host's own setting says."""
    least_recently_used_first: bool
    """Whether the first pass is ordered by use, most recently used pages last."""
    dynamic_quorum: bool
    """Whether votes may follow the nodes that are up."""
    dynamic_witness: bool
    """Whether the witness has a vote only if it makes their number odd."""
    migration_link_share: float
    """Share of a link of 10 Gbit/s or more that live migration uses."""
    resiliency: bool
    """Whether a silent node is isolated for a resiliency period, and one that comes and goes quarantined."""


RULES: dict[Era, EraRules] = {
    Era.WS2008R2: EraRules(
        nodes_max=16,
        vms_per_node_max=384,
        vms_per_cluster_max=1000,
        vms_per_pair_max=384,
        migrations_per_host_max=1,
        least_recently_used_first=False,
        dynamic_quorum=False,
        dynamic_witness=False,
        migration_link_share=0.7,
        resiliency=False,
    ),
    Era.WS2012: EraRules(
        nodes_max=64,
        vms_per_node_max=1024,
        vms_per_cluster_max=8000,
        vms_per_pair_max=8000,
        migrations_per_host_max=None,
        least_recently_used_first=True,
        dynamic_quorum=True,
        dynamic_witness=False,
        migration_link_share=1.0,
        resiliency=False,
    ),
    Era.WS2012R2: EraRules(
        nodes_max=64,
        vms_per_node_max=1024,
        vms_per_cluster_max=8000,
        vms_per_pair_max=8000,
        migrations_per_host_max=None,
        least_recently_used_first=True,
        dynamic_quorum=True,
        dynamic_witness=True,
        migration_link_share=1.0,
        resiliency=False,
    ),
}
RULES[Era.WS2016] = replace(RULES[Era.WS2012R2], resiliency=True)
