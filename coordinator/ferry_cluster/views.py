"""What people see, derived from the state."""

from dataclasses import dataclass
from datetime import UTC, datetime

from ferry_cluster.moves import slots_wanting
from ferry_cluster.plans import DrainView
from ferry_cluster.records import MigrationRecord, Origin, Ownership, VmRecord
from ferry_cluster.state import EVERY_SESSION, ClusterSettings, ClusterState
from ferry_types.drains import DrainState
from ferry_types.messages import MigrationProgress
from ferry_types.migrations import MigrationState
from ferry_types.quorum import WITNESS
from ferry_types.roles import RoleRules
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
    paused: bool
    drain: DrainView | None


@dataclass(frozen=True, slots=True)
class VoteView:
    """A vote, or who could have one."""

    name: str
    kind: str
    state: str
    has_vote: bool


@dataclass(frozen=True, slots=True)
class QuorumView:
    """The votes as ``quorum show`` shows them. ``under_judgement``: nodes whose loss is being voted on."""

    mode: str
    dynamic: bool
    witness: str
    forced: bool
    number: int
    majority: int
    votes: tuple[VoteView, ...]
    under_judgement: tuple[str, ...]
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
    rules: RoleRules


@dataclass(frozen=True, slots=True)
class MigrationView:
    """A move, and how far its source is."""

    record: MigrationRecord
    progress: MigrationProgress | None


def node_view(state: ClusterState, name: str, used_bytes: int) -> NodeView:
    """The view of a node that exists; ``used_bytes`` from ``ClusterState.memory_used_bytes``."""
    node = state.nodes[name]
    shown, reason = _node_state(state, name)
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
        node.paused,
        drain_view(state, name),
    )


def drain_view(state: ClusterState, node: str) -> DrainView | None:
    """The node's drain, if it has one that is under way or has ended without its resuming."""
    drain = state.drains.get(node)
    if drain is None:
        return None
    remaining = tuple(vm.spec.name for vm in state.owned_by(node))
    return DrainView(node, drain.state, drain.to, drain.reason, drain.taken, remaining)


def quorum_view(settings: ClusterSettings, state: ClusterState) -> QuorumView:
    """The view of the votes."""
    record = state.quorum
    votes = [
        VoteView(name, "node", _node_state(state, name)[0], state.nodes[name].uuid in record.voters)
        for name in sorted(state.nodes)
    ]
    if witness := record.voting_witness or record.witness:
        silent = state.witness.address != witness or state.witness.failing_since is not None
        answers = "silent" if silent else "answers"
        votes.append(VoteView(WITNESS, WITNESS, answers, bool(record.voting_witness)))
    return QuorumView(
        "file share witness" if record.witness else "node majority",
        record.dynamic and settings.rules.dynamic_quorum,
        record.witness,
        settings.forced,
        record.number,
        len(record.votes) // 2 + 1,
        tuple(votes),
        tuple(sorted(state.rounds)),
        _quorum_reason(state),
    )


def _quorum_reason(state: ClusterState) -> str:
    if state.rounds:
        losses = (
            f"{state.acknowledged_by(name)} acknowledge the loss of {name}" for name in sorted(state.rounds)
        )
        return "; ".join(losses)
    if state.proposal is not None:
        recorded = len(state.proposal.recorded)
        return f"vote set {state.proposal.number} is about to take effect: {recorded} have recorded it"
    return ""


def _node_state(state: ClusterState, name: str) -> tuple[NodeState, str]:
    """What to call it, and why it is not up."""
    present = state.attendance.get(name)
    given = state.acknowledged_by(name)
    judged = f"{given} acknowledge its loss" if given else ""
    node = state.nodes[name]
    if state.is_quarantined(node):
        return NodeState.QUARANTINED, f"it came and went too often: until {_utc(node.quarantined_until_us)}"
    if name in state.pending:
        return NodeState.JOINING, f"waits until its former life is known to be lost; {judged}".rstrip("; ")
    if not node.up:
        certified = present is not None and present.lost_session == EVERY_SESSION
        return NodeState.DOWN, "its death was certified" if certified else "its lease has run out"
    if judged:
        return NodeState.DOWN, f"its lease has run out, but its VMs are still its own: {judged}"
    if present is not None and present.isolated:
        return NodeState.ISOLATED, "it is silent; its lease has not run out"
    silent = "not connected; its lease has not run out" if present is None or present.stream is None else ""
    if (drain := state.drains.get(name)) is not None and drain.state is DrainState.ACTIVE:
        return NodeState.DRAINING, silent
    if node.paused:
        failed = drain.reason if drain is not None and drain.state is DrainState.FAILED else ""
        return NodeState.PAUSED, silent or (failed and f"its drain failed: {failed}")
    return NodeState.UP, silent


def _utc(wall_us: int) -> str:
    return datetime.fromtimestamp(wall_us / 1e6, UTC).isoformat(timespec="seconds")


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
        vm.rules,
    )


def _vm_state(state: ClusterState, vm: VmRecord, owner: Ownership) -> tuple[VmState, str]:
    if owner.node is None:
        return (VmState.FAILED, vm.reason) if vm.wanted else (VmState.OFF, vm.reason)
    present = state.attendance.get(owner.node)
    if present is not None and present.isolated:
        return VmState.UNMONITORED, f"{owner.node} is isolated: what it does is not known"
    if vm.ousted:
        return VmState.RUNNING, f"it is being turned off: {vm.ousted}"
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
