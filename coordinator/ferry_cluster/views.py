"""What people see, derived from the state."""

from dataclasses import dataclass

from ferry_cluster.moves import slots_wanting
from ferry_cluster.records import MigrationRecord, Origin, Ownership, VmRecord
from ferry_cluster.state import EVERY_SESSION, ClusterSettings, ClusterState
from ferry_types.messages import MigrationProgress
from ferry_types.migrations import MigrationState
from ferry_types.vms import Capacity, NodeState, VmSpec, VmState


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as ``node show`` shows it."""

    name: str
    state: NodeState
    incarnation: str
    uuid: str
    vms: tuple[str, ...]
    address: str
    echo_address: str
    capacity: Capacity
    memory_used_bytes: int
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class VmView:
    """A VM as ``vm show`` shows it."""

    spec: VmSpec
    state: VmState
    node: str
    epoch: int
    echo_address: str
    host_address: str
    migration_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class MigrationView:
    """A move, and how far its source is."""

    record: MigrationRecord
    progress: MigrationProgress | None


def node_view(state: ClusterState, name: str, used_bytes: int) -> NodeView:
    """The view of a node that exists; ``used_bytes`` from ``ClusterState.memory_used_bytes``."""
    node = state.nodes[name]
    shown, reason = NodeState.UP, ""
    if name in state.pending:
        shown, reason = NodeState.JOINING, "waits until the lease of its former life has run out"
    elif not node.up:
        present = state.attendance.get(name)
        certified = present is not None and present.lost_session == EVERY_SESSION
        shown = NodeState.DOWN
        reason = "its death was certified" if certified else "its lease has run out"
    elif state.attendance.get(name) is None or state.attendance[name].stream is None:
        reason = "not connected; its lease has not run out"
    return NodeView(
        name,
        shown,
        node.incarnation,
        node.uuid,
        tuple(vm.spec.name for vm in state.owned_by(name)),
        node.address,
        node.echo_address,
        node.capacity,
        used_bytes,
        node.version,
        reason,
    )


def vm_view(state: ClusterState, name: str) -> VmView:
    """The view of a VM that exists."""
    vm, owner = state.vms[name], state.owners[name]
    move = state.migration_of(name)
    node = state.nodes.get(owner.node) if owner.node else None
    shown, reason = _vm_state(state, vm, owner)
    if move is not None and shown in (VmState.RUNNING, VmState.STARTING):
        shown = VmState.MIGRATING
    return VmView(
        vm.spec,
        shown,
        owner.node or "",
        owner.epoch,
        node.echo_address if node else "",
        node.address if node else "",
        move.id if move else "",
        reason,
    )


def _vm_state(state: ClusterState, vm: VmRecord, owner: Ownership) -> tuple[VmState, str]:
    if owner.node is None:
        return (VmState.FAILED, vm.reason) if vm.wanted else (VmState.OFF, vm.reason)
    if vm.spec.name in state.held:
        return VmState.PAUSED, f"{owner.node} has begun a new session and is about to let it go on"
    if state.running.get(vm.spec.name) == owner.epoch:
        return VmState.RUNNING, ""
    if owner.origin is Origin.ABORT:
        return VmState.PAUSED, "about to resume after an aborted move"
    return VmState.STARTING, ""


def migration_view(settings: ClusterSettings, state: ClusterState, migration_id: str) -> MigrationView:
    """The view of a move that exists."""
    move = state.migrations[migration_id]
    if move.state is MigrationState.QUEUED:
        move = slots_wanting(settings, state, move)
    return MigrationView(move, state.progress.get(migration_id))
