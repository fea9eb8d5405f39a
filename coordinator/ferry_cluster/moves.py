"""Live migrations, from request to end.

::

    queued --> preparing --> copying --> switching --> completed
       \\           \\            \\            \\-----> failed, cancelled
        \\-----------\\------------\\------------------> failed, cancelled

``switching`` begins when the hand-off is armed. From then on the outcome is one compare-and-set in the
store: COMMIT gives the VM to the target, abort gives it back to the source under a higher epoch. Before,
any failure just ends the attempt and the source runs on. After a commit, a target that is lost or refuses
fails the move, too, and the source takes the VM back: its memory is the newest there is exactly if the
target has not raised its epoch, which the source's compare-and-raise finds out.
"""

from dataclasses import replace

from ferry_cluster import networks, ownership
from ferry_cluster.records import MigrationRecord, NodeRecord, Origin, Ownership
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_cluster.turn import Turn
from ferry_cluster.wire import wire_figures
from ferry_types.errors import Refusal
from ferry_types.events import (
    MIGRATION_ARRIVED,
    MIGRATION_BEGUN,
    MIGRATION_BLACKOUT,
    MIGRATION_BROWNOUT,
    MIGRATION_CHANGED,
    MIGRATION_FAILED,
    MIGRATION_FAILED_AT_SOURCE,
    MIGRATION_LONG_PAUSE,
    MIGRATION_PAUSE,
    MIGRATION_SUCCEEDED,
    PATH_DOWNGRADED,
    VM_MOVING,
)
from ferry_types.limits import PAGE_SIZE
from ferry_types.links import TrafficClass
from ferry_types.messages import (
    Armed,
    ArmHandOff,
    BeginOutgoing,
    CancelMigration,
    DiscardVm,
    ImageReport,
    IncomingPrepared,
    MigrationFailed,
    MigrationProgress,
    OrderRefused,
    PrepareIncoming,
    ProposeAbort,
    RunVm,
    SourceReleased,
    TargetReady,
    TargetRuns,
    VmRunning,
)
from ferry_types.migrations import ENDED, MigrationFigures, MigrationState
from ferry_types.vms import ImagePhase

_GIVEN_BACK = frozenset({Origin.ABORT, Origin.TAKE_BACK})

HISTORY_MAX = 1000
"""Ended moves that are kept; older ones are forgotten."""


def slot_limit(settings: ClusterSettings, state: ClusterState, node: str) -> int:
    """Moves that a host takes part in at one time: its own limit, cut by the era's."""
    limit = state.nodes[node].capacity.migration_limit
    era_max = settings.rules.migrations_per_host_max
    return limit if era_max is None else min(limit, era_max)


def slots_wanting(settings: ClusterSettings, state: ClusterState, move: MigrationRecord) -> MigrationRecord:
    """The queued move with the reason why it waits, in words."""
    used = state.slots_used()
    full = [
        f"{host} ({used[host]} of {slot_limit(settings, state, host)} in use)"
        for host in (move.source, move.target)
        if used[host] >= slot_limit(settings, state, host)
    ]
    reason = f"waits for a free slot on {' and '.join(full)}" if full else "waits for its turn"
    if (problem := networks.path_problem(settings, state, move.source, move.target)) is not None:
        reason = f"waits for a network: {problem.message}"
    return replace(move, reason=reason)


def start_queued(turn: Turn) -> None:
    """Start queued moves that have a slot on both hosts, first come first served.

    A move that must wait keeps its claim on both hosts: no later one overtakes it there. One that has no
    network waits, too, but in nobody's way.
    """
    used = turn.state.slots_used()
    paths: dict[tuple[str, str], Refusal | None] = {}
    for move in turn.state.active_migrations():
        if move.state is not MigrationState.QUEUED:
            continue
        hosts = (move.source, move.target)
        if hosts not in paths:
            paths[hosts] = networks.path_problem(turn.settings, turn.state, *hosts)
        if paths[hosts] is not None:
            continue
        free = all(used[host] < slot_limit(turn.settings, turn.state, host) for host in hosts)
        for host in hosts:
            used[host] += 1
        live = all(turn.state.is_live(host, turn.now) for host in hosts)
        if free and live and turn.state.runs(move.vm, move.epoch):
            turn.move_to(move, MigrationState.PREPARING)
            where = f"from {move.source} to {move.target} ({move.id})"
            turn.log(VM_MOVING, f"{move.vm} moves {where}", move.source, move.vm)
            turn.log(MIGRATION_BEGUN, f"live migration of {move.vm} begins {where}", move.source, move.vm)
            _order_prepare(turn, move)


def end_unreachable(turn: Turn) -> None:
    """End queued moves that no admin has asked for once no network leads to their targets.

    Whoever has asked for them, such as a drain, looks for another host.
    """
    for move in turn.state.active_migrations():
        if move.state is MigrationState.QUEUED and move.cause:
            problem = networks.path_problem(turn.settings, turn.state, move.source, move.target)
            if problem is not None:
                end(turn, move, MigrationState.FAILED, problem.message)


def _order_prepare(turn: Turn, move: MigrationRecord) -> None:
    spec = turn.state.vms[move.vm].spec
    turn.order(move.target, PrepareIncoming(move.id, move.token, spec, move.epoch, move.source))


def _order_begin(turn: Turn, move: MigrationRecord) -> None:
    """Have the source copy, over the best network that leads to the target now; without one, it is over.

    The order may be repeated; frames that do not agree are told of once for each network that it takes.
    """
    problem = networks.path_problem(turn.settings, turn.state, move.source, move.target)
    if problem is not None:
        end(turn, move, MigrationState.FAILED, problem.message)
        return
    address = turn.state.nodes[move.target].address
    ways = networks.routes(turn.settings, turn.state, move.source, move.target, TrafficClass.MIGRATION)
    over = networks.network_of(turn.state, move.source, ways)
    is_new = over != move.network
    if is_new:
        turn.write(replace(move, network=over))
    wire = wire_figures(
        turn.settings, turn.state, move.source, move.target, move.options.option, is_under_way=True
    )
    turn.order(
        move.source,
        BeginOutgoing(
            move.id, move.token, move.vm, move.epoch, move.target, address, move.options, ways, wire
        ),
    )
    if is_new and (why := networks.downgrade(turn.settings, turn.state, move)):
        turn.log(PATH_DOWNGRADED, f"{move.id} of {move.vm}: {why}", move.source, move.vm)


def _active(turn: Turn, migration_id: str) -> MigrationRecord | None:
    move = turn.state.migrations.get(migration_id)
    return None if move is None or move.state in ENDED else move


def on_incoming_prepared(turn: Turn, node: NodeRecord, message: IncomingPrepared) -> None:
    """The target has the memory: the source may begin."""
    move = _active(turn, message.migration_id)
    if move is None or move.target != node.name:
        turn.order(node.name, CancelMigration(message.migration_id, "the move has ended"))
    elif move.state is MigrationState.PREPARING:
        _order_begin(turn, turn.move_to(move, MigrationState.COPYING))


def on_progress(turn: Turn, node: NodeRecord, message: MigrationProgress) -> None:
    """Keep the newest progress; it is not stored."""
    move = _active(turn, message.migration_id)
    if move is not None and move.source == node.name:
        turn.state.progress[move.id] = message
        turn.touch_migration(move.id)


def on_arm(turn: Turn, node: NodeRecord, message: ArmHandOff) -> None:
    """The source would pause: note it durably now, so that the pause costs one compare-and-set."""
    move = _active(turn, message.migration_id)
    if move is None or move.source != node.name:
        turn.order(node.name, CancelMigration(message.migration_id, "the move has ended"))
        return
    if move.state is MigrationState.COPYING:
        if not turn.state.is_live(move.target, turn.now):
            end(turn, move, MigrationState.FAILED, f"target {move.target} is not up")
            return
        turn.move_to(move, MigrationState.SWITCHING)
    if not turn.state.is_committed(move):
        turn.order(node.name, Armed(move.id))


def on_target_ready(turn: Turn, node: NodeRecord, message: TargetReady) -> None:
    """READY: commit, the one commit point (rule S1). A target whose session has ended is not committed to."""
    move = _active(turn, message.migration_id)
    if move is None or move.target != node.name:
        turn.order(node.name, CancelMigration(message.migration_id, "the move has ended"))
        return
    owner = turn.state.owners[move.vm]
    if turn.state.is_committed(move):
        turn.order(node.name, RunVm(move.id, move.vm, owner.epoch))
        return
    if move.state is not MigrationState.SWITCHING or not turn.state.is_live(node.name, turn.now):
        end(turn, move, MigrationState.FAILED, f"target {node.name} was ready out of turn")
        return
    epoch = owner.epoch + 1
    turn.write(Ownership(move.vm, epoch, node.name, node.incarnation, Origin.MOVE, move.id))
    turn.state.running.pop(move.vm, None)
    turn.order(node.name, RunVm(move.id, move.vm, epoch))


def on_running(turn: Turn, node: NodeRecord, message: VmRunning) -> None:
    """A VM runs; if it came by a move, the source may let go."""
    if not ownership.on_vm_running(turn, node, message) or not message.migration_id:
        return
    move = _active(turn, message.migration_id)
    if move is None or move.id in turn.state.target_runs:
        return
    turn.state.target_runs[move.id] = message
    if turn.state.nodes[move.source].up:
        _order_target_runs(turn, move)
    else:
        _complete(turn, move, None)


def _order_target_runs(turn: Turn, move: MigrationRecord) -> None:
    ran = turn.state.target_runs[move.id]
    epoch, there = turn.state.owners[move.vm].epoch, turn.state.nodes[move.target].echo_address
    order = TargetRuns(move.id, move.vm, epoch, ran.first_quantum_at_s, ran.hand_off, there)
    turn.order(move.source, order)


def on_source_released(turn: Turn, node: NodeRecord, message: SourceReleased) -> None:
    """The source has deleted its image: the move is complete."""
    move = _active(turn, message.migration_id)
    if move is not None and move.source == node.name and turn.state.is_committed(move):
        _complete(turn, move, message.figures)


def _complete(turn: Turn, move: MigrationRecord, figures: MigrationFigures | None) -> None:
    accepted_at = turn.state.accepted_at.get(move.id)
    total_s = None if accepted_at is None else turn.now - accepted_at
    reason = figures.explanation if figures else f"source {move.source} was lost after the hand-off"
    move = replace(move, figures=figures, total_s=total_s)
    _close(turn, move, MigrationState.COMPLETED, reason)
    where = f"from {move.source} to {move.target}"
    if figures is not None and figures.final is not None and figures.blackout_s is not None:
        turn.log(
            MIGRATION_BROWNOUT,
            f"{move.vm}: brown-out of {figures.brownout_s:.3f} s while memory was copied {where}",
            move.source,
            move.vm,
        )
        pages = figures.final.pages_sent
        turn.log(
            MIGRATION_BLACKOUT,
            f"{move.vm}: black-out of {figures.blackout_s:.6f} s; {pages} dirty pages "
            f"({pages * PAGE_SIZE // 1024} KB) were sent in it",
            move.target,
            move.vm,
        )
        _log_pause(turn, move, figures.blackout_s)
    took = "" if total_s is None else f" in {total_s:.3f} s"
    turn.log(MIGRATION_SUCCEEDED, f"{move.vm} was moved {where}{took} ({move.id})", move.target, move.vm)
    turn.log(
        MIGRATION_ARRIVED, f"{move.vm} has arrived on {move.target} from {move.source}", move.target, move.vm
    )


def _log_pause(turn: Turn, move: MigrationRecord, blackout_s: float) -> None:
    allowed_s = move.options.blackout_allowed_s
    pause = f"{move.vm} was moved with a black-out of {blackout_s:.6f} s"
    if blackout_s <= allowed_s:
        turn.log(MIGRATION_PAUSE, pause, move.source, move.vm)
    else:
        turn.log(
            MIGRATION_LONG_PAUSE, f"{pause}, longer than the {allowed_s:g} s allowed", move.source, move.vm
        )


def on_failed(turn: Turn, node: NodeRecord, message: MigrationFailed) -> None:
    """One side gave up while it was free to. A source that says so runs on by itself already."""
    move = _active(turn, message.migration_id)
    if move is None or turn.state.is_committed(move) or node.name not in (move.source, move.target):
        return
    reason = f"{node.name}: {message.reason.message}"
    end(turn, move, MigrationState.FAILED, reason, source_resumed=node.name == move.source)
    if node.name == move.source:
        what = f"migration of {move.vm} failed at its source {move.source}: {message.reason.message}"
        turn.log(MIGRATION_FAILED_AT_SOURCE, what, move.source, move.vm)


def on_propose_abort(turn: Turn, node: NodeRecord, message: ProposeAbort) -> None:
    """The source asks for the outcome; unless the commit has won, the abort does."""
    move = turn.state.migrations.get(message.migration_id)
    if move is None or move.source != node.name:
        return
    if move.state not in ENDED and not turn.state.is_committed(move):
        end(turn, move, MigrationState.FAILED, message.reason)
        return
    owner = turn.state.owners.get(move.vm)
    if owner is None or (owner.node != node.name and move.state in ENDED):
        turn.order(node.name, DiscardVm(move.vm, move.epoch))
    elif owner.node == node.name and owner.origin in _GIVEN_BACK and owner.migration_id == move.id:
        ownership.order_resume(turn, owner)
    elif move.id in turn.state.target_runs:
        _order_target_runs(turn, move)


def end(
    turn: Turn, move: MigrationRecord, state: MigrationState, reason: str, *, source_resumed: bool = False
) -> None:
    """End an uncommitted move. Once armed, only a committed abort lets the source run again."""
    if move.state is MigrationState.SWITCHING and not source_resumed and turn.state.nodes[move.source].up:
        _give_back(turn, move, Origin.ABORT)
    elif move.state is not MigrationState.QUEUED and not source_resumed:
        turn.order(move.source, CancelMigration(move.id, reason))
    if move.state is not MigrationState.QUEUED:
        turn.order(move.target, CancelMigration(move.id, reason))
    progress = turn.state.progress.get(move.id)
    if progress is not None:
        move = replace(move, figures=progress.figures)
    _close(turn, move, state, reason)
    kind = MIGRATION_CHANGED if state is MigrationState.CANCELLED else MIGRATION_FAILED
    what = f"move {move.id} of {move.vm} to {move.target} {state}: {reason}; it stays on {move.source}"
    turn.log(kind, what, move.source, move.vm)


def _give_back(turn: Turn, move: MigrationRecord, origin: Origin) -> None:
    """Have the source own the VM under the next epoch (rule S1)."""
    source, epoch = turn.state.nodes[move.source], turn.state.owners[move.vm].epoch + 1
    owner = Ownership(move.vm, epoch, source.name, source.incarnation, origin, move.id)
    turn.write(owner)
    ownership.order_resume(turn, owner)


def _fail_committed(turn: Turn, move: MigrationRecord, reason: str) -> bool:
    """Fail a move whose target will not run the VM; whether the source takes it back.

    It tries unless the target is known to have run. A source that has lost the image refuses, and then, or
    if there is nothing to take back, the VM is booted.
    """
    ran = turn.state.running.get(move.vm) == turn.state.owners[move.vm].epoch
    taken_back = not ran and turn.state.nodes[move.source].up and turn.state.vms[move.vm].wanted
    _close(turn, move, MigrationState.FAILED, reason)
    if taken_back:
        _give_back(turn, move, Origin.TAKE_BACK)
        turn.log(MIGRATION_FAILED, f"{move.source} takes {move.vm} back: {reason}", move.source, move.vm)
    else:
        turn.order(move.source, DiscardVm(move.vm, move.epoch))
        turn.log(MIGRATION_FAILED, f"move {move.id} of {move.vm} failed: {reason}", move.target, move.vm)
    return taken_back


def _close(turn: Turn, move: MigrationRecord, state: MigrationState, reason: str) -> None:
    turn.move_to(move, state, reason)
    turn.ended_moves.append(move)
    turn.state.progress.pop(move.id, None)
    turn.state.accepted_at.pop(move.id, None)
    turn.state.target_runs.pop(move.id, None)
    ended = [other for other in turn.state.migrations.values() if other.state in ENDED]
    for old in sorted(ended, key=lambda other: other.number)[:-HISTORY_MAX]:
        turn.delete(old)


def node_lost(turn: Turn, node: str) -> None:
    """End the moves that a lost node took part in, before its VMs are failed over."""
    for move in turn.state.active_migrations():
        if node not in (move.source, move.target):
            continue
        if not turn.state.is_committed(move):
            end(turn, move, MigrationState.FAILED, f"node {node} was lost")
        elif node == move.target:
            _fail_committed(turn, move, f"target {node} was lost after the hand-off")
        elif move.id in turn.state.target_runs:
            _complete(turn, move, None)


def on_order_refused(turn: Turn, node: NodeRecord, message: OrderRefused) -> None:
    """A refused order moves the VM on; after a refused commit the source may take it back.

    A source whose guest has crashed refuses the epoch that it was to hand over.
    """
    if not turn.state.owns(node, message.vm, message.epoch):
        return
    move = turn.state.migration_of(message.vm)
    if move is not None and turn.state.is_committed(move):
        reason = f"target {node.name} refused it after the hand-off: {message.reason.message}"
        if _fail_committed(turn, move, reason):
            return
    elif move is not None:
        end(turn, move, MigrationState.FAILED, f"{node.name}: {message.reason.message}", source_resumed=True)
    ownership.on_order_refused(turn, node, message)


def reconcile(turn: Turn, node: NodeRecord, images: tuple[ImageReport, ...]) -> None:
    """Repeat, after a join, what a broken stream may have swallowed; ``images`` is the inventory."""
    by_move = {image.migration_id: image for image in images if image.migration_id}
    for move in turn.state.active_migrations():
        if move.state is MigrationState.QUEUED:
            continue
        image = by_move.get(move.id)
        if move.source == node.name:
            _reconcile_source(turn, move, image)
        elif move.target == node.name:
            _reconcile_target(turn, node, move, image)


def _reconcile_source(turn: Turn, move: MigrationRecord, image: ImageReport | None) -> None:
    if turn.state.is_committed(move):
        if move.id in turn.state.target_runs:
            _order_target_runs(turn, move)
        return
    if image is None:
        if move.state is MigrationState.COPYING:
            _order_begin(turn, move)
        elif move.state is MigrationState.SWITCHING:
            end(turn, move, MigrationState.FAILED, f"{move.source} dropped the attempt", source_resumed=True)
    elif move.state is MigrationState.SWITCHING and image.phase is ImagePhase.RUNNING:
        turn.order(move.source, Armed(move.id))


def _reconcile_target(turn: Turn, node: NodeRecord, move: MigrationRecord, image: ImageReport | None) -> None:
    if turn.state.is_committed(move):
        return  # the owner's order is repeated with the others
    if image is None:
        if move.state is MigrationState.PREPARING:
            _order_prepare(turn, move)
        else:
            end(turn, move, MigrationState.FAILED, f"{node.name} lost the incoming memory")
    elif image.phase is ImagePhase.READY:
        on_target_ready(turn, node, TargetReady(move.id))
    elif image.phase is ImagePhase.RECEIVING:
        on_incoming_prepared(turn, node, IncomingPrepared(move.id))
