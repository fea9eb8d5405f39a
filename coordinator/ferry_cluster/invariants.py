"""What must hold of the state between any two events; cheap enough for production."""

from ferry_cluster.state import ClusterState
from ferry_types.migrations import MigrationState


class InvariantViolation(AssertionError):
    """The state says something that the rules cannot have produced."""


def check_state(state: ClusterState) -> None:
    """Raise InvariantViolation on the first broken invariant."""
    _require(state.vms.keys() == state.owners.keys(), "every VM has exactly one ownership record")
    for vm, owner in state.owners.items():
        _require((owner.node is None) == (owner.incarnation is None), f"{vm}: owner without incarnation")
        if owner.node is not None:
            node = state.nodes.get(owner.node)
            _require(node is not None and node.up, f"{vm} is owned by {owner.node}, which is not up")
            _require(
                node is not None and node.incarnation == owner.incarnation,
                f"{vm} is owned by another life of {owner.node} than the admitted one",
            )
        raised = state.raised.get(vm)
        _require(raised is None or raised.epoch <= owner.epoch, f"{vm}: raised above its owner's epoch")
        running = state.running.get(vm)
        _require(
            running is None or (raised is not None and running <= raised.epoch),
            f"{vm} runs under an epoch that was not raised",
        )
    moving = [move.vm for move in state.active_migrations()]
    _require(len(moving) == len(set(moving)), "a VM has at most one move under way")
    for move in state.active_migrations():
        owner = state.owners[move.vm]
        if state.is_committed(move):
            _require(owner.node == move.target, f"{move.id} is committed to another host than its target")
            _require(move.state is MigrationState.SWITCHING, f"{move.id} was committed before it was armed")
        else:
            _require(owner.node == move.source, f"{move.id}: {move.vm} does not belong to the source")
    for name, used_bytes in state.memory_used_bytes().items():
        total = state.nodes[name].capacity.memory_bytes
        _require(used_bytes <= total, f"{name} has promised {used_bytes} of {total} bytes")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise InvariantViolation(what)
