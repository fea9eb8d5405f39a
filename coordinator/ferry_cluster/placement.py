"""Where a VM goes: the live host with the most free memory."""

from collections.abc import Set

from ferry_cluster.state import ClusterState
from ferry_types.errors import Refusal, refused
from ferry_types.units import format_size


def choose_host(
    state: ClusterState, now: float, memory_bytes: int, exclude: Set[str] = frozenset()
) -> str | Refusal:
    """The live host with the most free memory if it fits, by name among equals; or why none does."""
    used = state.memory_used_bytes()
    free = {
        name: node.capacity.memory_bytes - used[name]
        for name, node in state.nodes.items()
        if name not in exclude and state.is_live(name, now)
    }
    if not free:
        return refused(
            "node up", "no host is up that could take the VM", "start one, or look at ferry node list"
        )
    best = min(free, key=lambda name: (-free[name], name))
    if free[best] < memory_bytes:
        return refused(
            "memory",
            f"no host has {format_size(memory_bytes)} free: "
            f"the most is {format_size(max(free[best], 0))} on {best}",
            "stop or move a VM, add a host, or ask for less memory",
        )
    return best


def check_host(state: ClusterState, now: float, name: str, memory_bytes: int) -> Refusal | None:
    """Why this host cannot take the VM, or None."""
    node = state.nodes[name]
    if not state.is_live(name, now):
        return refused("node up", f"node {name} is not up", "choose another one: ferry node list")
    total = node.capacity.memory_bytes
    if memory_bytes > total:
        return refused(
            "memory",
            f"{format_size(memory_bytes)} are more than node {name} has: {format_size(total)}",
            "choose a larger host, or ask for less memory",
        )
    free = total - state.memory_used_bytes()[name]
    if free < memory_bytes:
        return refused(
            "memory",
            f"node {name} is full: {format_size(free)} of {format_size(total)} are free, "
            f"the VM needs {format_size(memory_bytes)}",
            "choose another node, or let the coordinator choose",
        )
    return None
