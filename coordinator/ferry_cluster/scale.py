"""The cluster's scale: that of its hosts, which is one and the same (``ferry_types.scale``).

The hosts' records are where it is kept: the first host to join fixes it, and the last to be evicted frees
it. So there is nothing to be set twice, and no move between different scales to be thought of.
"""

from ferry_cluster.records import VmRecord
from ferry_cluster.state import ClusterState
from ferry_types.errors import Refusal, refused
from ferry_types.messages import Join
from ferry_types.scale import RULE, memory_problem


def cluster_scale(state: ClusterState) -> int | None:
    """The scale of the hosts that the cluster knows, up or not; None if it knows none."""
    return next((node.capacity.scale for node in state.nodes.values()), None)


def join_problem(state: ClusterState, join: Join) -> Refusal | None:
    """Why a host of this scale cannot join, or None: the others have another one, or a VM does not fit."""
    scale = join.capacity.scale
    for node in state.nodes.values():
        if node.name != join.name and node.capacity.scale != scale:
            theirs = node.capacity.scale
            what = f"{join.name} has scale {scale}, {node.name} has scale {theirs}: one cluster has one scale"
            hint = f"start its agent with --scale {theirs}; to change it, evict the other nodes first"
            return refused(RULE, what, hint)
    for vm in state.vms.values():
        if (problem := memory_problem(vm.spec.name, vm.spec.memory_bytes, scale)) is not None:
            what = f"{join.name} has scale {scale}, which the cluster's VMs do not fit: {problem.message}"
            return refused(RULE, what, "start its agent with a smaller --scale, or remove that VM")
    return None


def vm_problem(state: ClusterState, vm: VmRecord) -> Refusal | None:
    """Why no host of the cluster could hold this VM's memory, whatever is free there; or None."""
    scale = cluster_scale(state)
    return None if scale is None else memory_problem(vm.spec.name, vm.spec.memory_bytes, scale)
