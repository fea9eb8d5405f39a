"""A live cluster as its admins see it: what there is, what has happened, and what is under way."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli.admin import LOOK_S
from ferry_sim.scenarios.seen import Seen, SeenEvent, SeenMove, SeenVm
from ferry_types.migrations import ENDED, MigrationFigures, MigrationState
from ferry_types.vms import NodeState, VmState
from ferry_wire.conversion import from_proto

_PASSING_VM: Final = frozenset({VmState.STARTING, VmState.PAUSED, VmState.MIGRATING, VmState.UNMONITORED})
_PASSING_NODE: Final = frozenset({NodeState.JOINING, NodeState.DRAINING, NodeState.ISOLATED})
_DRAINING: Final = "active"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a cluster. ``under_way``: what is, in words, as far as can be seen from outside."""

    seen: Seen
    under_way: tuple[str, ...]


async def look(admin: AdminStub, after_event: int, after_move: int, alive: Collection[str]) -> Look:
    """Look at everything. ``alive``: hosts whose agents run; ``after_...``: nothing up to these counts.

    Raises AioRpcError if the coordinator cannot be asked.
    """
    nodes = (await admin.ListNodes(admin_pb2.ListNodesRequest(), timeout=LOOK_S)).nodes
    vms = (await admin.ListVms(admin_pb2.ListVmsRequest(), timeout=LOOK_S)).vms
    moves = (await admin.ListMigrations(admin_pb2.ListMigrationsRequest(), timeout=LOOK_S)).migrations
    quorum = await admin.ShowQuorum(admin_pb2.QuorumQuery(), timeout=LOOK_S)
    events = (await admin.ListEvents(admin_pb2.EventQuery(after_id=after_event), timeout=LOOK_S)).events
    seen = Seen(
        {vm.spec.name: SeenVm(vm.state, vm.node) for vm in vms},
        {node.name: node.state for node in nodes},
        tuple(
            SeenEvent(e.time_us, e.event_id, e.log, e.level, e.node, e.vm, e.message)
            for e in sorted(events, key=lambda event: event.id)
        ),
        tuple(seen_move(move) for move in sorted(moves, key=move_number) if move_number(move) > after_move),
    )
    found = [f"{vm.spec.name} is {vm.state}" for vm in vms if vm.state in _PASSING_VM]
    found += [f"move {move.id} is {move.state}" for move in moves if MigrationState(move.state) not in ENDED]
    found += [f"{name} is being judged" for name in quorum.under_judgement]
    found += [quorum.reason] if quorum.reason else []
    return Look(seen, (*found, *_under_way(nodes, alive)))


def _under_way(nodes: Collection[admin_pb2.Node], alive: Collection[str]) -> list[str]:
    by_name = {node.name: node for node in nodes}
    found = [f"node {node.name} is {node.state}" for node in nodes if node.state in _PASSING_NODE]
    for name in alive:
        node = by_name.get(name)
        if node is None or node.state == NodeState.DOWN or (node.state == NodeState.UP and node.reason):
            found.append(f"{name} has not joined")
    found += [
        f"{n.name} is being drained" for n in nodes if n.HasField("drain") and n.drain.state == _DRAINING
    ]
    lost = (node.name for node in nodes if node.state == NodeState.UP and node.name not in alive)
    found += [f"the loss of {name} is not known yet" for name in lost]
    return found


def seen_move(move: admin_pb2.MigrationRecord) -> SeenMove:
    """A move with what was measured of it."""
    figures = from_proto(move.figures, MigrationFigures) if move.HasField("figures") else None
    return SeenMove(
        move.id,
        move.vm,
        move.source,
        move.target,
        move.state,
        move.reason,
        move.options.option,
        move.network,
        move.cause,
        move.requested_at_us,
        move.total_s,
        figures,
    )


def move_number(move: admin_pb2.MigrationRecord) -> int:
    """Rises with each request."""
    return int(move.id.removeprefix("m"))
