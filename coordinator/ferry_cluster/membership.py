"""Nodes, sessions, leases and death certificates (rules L1 to L5, C1, O3, Q6).

::

    (unknown) --Join--> up --no renewal for L(1+e), and a round; or certified dead--> down --new session--> up
                         \\--Join of a new life--> joining --old life lost--> up

A lease is counted here from *receiving* a renewal, at the host from *sending* it; the host pauses by
``L(1-e)``, the coordinator acts no earlier than ``L(1+e)``.
"""

from dataclasses import replace

from ferry_cluster import isolation, moves, networks, ownership, quorum, rounds, scale
from ferry_cluster.records import NodeRecord
from ferry_cluster.roles import level_problem
from ferry_cluster.state import EVERY_SESSION, Attendance, PendingJoin
from ferry_cluster.turn import Turn
from ferry_types.errors import Refusal, refused
from ferry_types.events import NODE_LOST, NODE_UP, QUARANTINE_HOLDS, QUORUM_LOST
from ferry_types.messages import (
    CancelMigration,
    DeathCertificate,
    DiscardVm,
    GoOn,
    Grant,
    HostEnvelope,
    ImageReport,
    Join,
    Renewal,
    Wait,
    Welcome,
)
from ferry_types.profiles import STALL_AFTER_BEATS
from ferry_types.vms import ImagePhase

_INCOMING = frozenset({ImagePhase.PREPARING, ImagePhase.RECEIVING, ImagePhase.READY})
_LEAVING = frozenset({ImagePhase.SWITCHING, ImagePhase.AWAITING})


def watch_clock(turn: Turn) -> None:
    """A coordinator that did not look at its clock for long waits before it judges anyone (rule L5)."""
    timing = turn.settings.timing
    if turn.now - turn.state.last_now > STALL_AFTER_BEATS * timing.beat_s:
        turn.state.judge_after = turn.now + timing.coordinator_span_s
    turn.state.last_now = turn.now


def on_join(turn: Turn, stream: int, envelope: HostEnvelope, join: Join) -> None:
    """Admit a host, let it wait, or turn it away."""
    known = turn.state.nodes.get(join.name)
    problem = _join_problem(turn, known, envelope, join)
    if problem is not None:
        turn.close(stream, problem)
    elif isolation.waits_for_quarantine(turn, known):
        if join.name not in turn.state.pending:
            turn.log(QUARANTINE_HOLDS, f"{join.name} may not join: it is quarantined", join.name)
        _keep_waiting(turn, stream, envelope, join.name, "this node is quarantined")
    elif known is None or not known.up or known.incarnation == envelope.incarnation:
        _admit(turn, stream, envelope, join)
    else:
        reason = f"the former agent of {join.name} may still run: waiting until it is known to be lost"
        _keep_waiting(turn, stream, envelope, join.name, reason)


def _keep_waiting(turn: Turn, stream: int, envelope: HostEnvelope, name: str, reason: str) -> None:
    former = turn.state.pending.get(name)
    if former is not None and former.stream != stream:
        turn.close(former.stream, _claimed(name))
    turn.state.pending[name] = PendingJoin(stream, envelope, turn.now)
    turn.tell(stream, envelope.incarnation, envelope.session, Wait(reason, turn.settings.timing.lease_s))
    turn.attend(name, turn.state.attendance[name])


def admit_released(turn: Turn) -> None:
    """Admit who waited for the end of a quarantine."""
    for name, waiting in list(turn.state.pending.items()):
        node = turn.state.nodes[name]
        if not node.up and not turn.state.is_quarantined(node):
            _join_at_last(turn, name, waiting)


def _join_at_last(turn: Turn, name: str, waiting: PendingJoin) -> None:
    del turn.state.pending[name]
    if isinstance(waiting.envelope.body, Join):
        on_join(turn, waiting.stream, waiting.envelope, waiting.envelope.body)


def _claimed(name: str) -> Refusal:
    return refused(
        "live name claimed",
        f"the name {name} belongs to a host that is up",
        "choose another --name, or stop the other agent and wait until ferry node list shows it down",
    )


def _join_problem(turn: Turn, known: NodeRecord | None, envelope: HostEnvelope, join: Join) -> Refusal | None:
    for node in turn.state.nodes.values():
        if node.uuid == join.uuid and node.name != join.name and node.up:
            return refused(
                "identity in use",
                f"node {node.name} is up with the identity that {join.name} claims",
                "give every agent a data directory of its own (--dir)",
            )
    if (problem := level_problem(turn.settings, join.name, join.capacity.level)) is not None:
        return problem
    if (problem := networks.join_problem(turn.settings, turn.state, join)) is not None:
        return problem
    if (problem := scale.join_problem(turn.state, join)) is not None:
        return problem
    if known is None:
        limit = turn.settings.rules.nodes_max
        if len(turn.state.nodes) >= limit:
            return refused("node limit", f"a cluster of era {turn.settings.era} has at most {limit} nodes")
        return None
    present = turn.state.attendance[join.name]
    if known.incarnation == envelope.incarnation:
        stale = envelope.session < present.session or envelope.session <= present.lost_session
        return refused("session", "this session has ended", "begin a new one") if stale else None
    if not known.up:
        return None
    return _claimed(join.name) if known.uuid != join.uuid else None


def _admit(turn: Turn, stream: int, envelope: HostEnvelope, join: Join) -> None:
    former = turn.state.attendance.get(join.name, Attendance())
    if former.stream is not None and former.stream != stream:
        turn.close(former.stream, refused("session", f"node {join.name} has opened another stream"))
    isolation.end_isolation(turn, join.name, former)
    known = turn.state.nodes.get(join.name)
    new_life = known is None or known.incarnation != envelope.incarnation
    new_session = not new_life and envelope.session > former.session
    record = NodeRecord(
        join.name,
        join.uuid,
        envelope.incarnation,
        join.address,
        join.echo_address,
        join.capacity,
        join.version,
        up=True,
        paused=known is not None and known.paused,
        losses_us=() if known is None else known.losses_us,
        quarantined_until_us=0 if known is None else known.quarantined_until_us,
        nics_down=networks.faults_of(join),
    )
    nics_down = () if known is None else known.nics_down
    if record != known:
        turn.write(record)
        if replace(record, nics_down=nics_down) != known:
            turn.log(NODE_UP, f"node {join.name} is up at {join.address}", join.name)
        networks.tell_changes(turn, record, nics_down)
    if join.paused_because:
        turn.log(QUORUM_LOST, f"{join.name} had paused its VMs: {join.paused_because}", join.name)
    rounds.close(turn, join.name)
    turn.state.streams[stream] = join.name
    # Patience, not a grant: a host that dies before its first renewal is judged like any other.
    lease_until = turn.now + turn.settings.timing.coordinator_span_s
    lost_session = 0 if new_life else former.lost_session
    turn.attend(join.name, Attendance(envelope.session, stream, lease_until, lost_session))
    timing = turn.settings.timing
    settings = turn.settings
    welcome = Welcome(settings.cluster, timing.beat_s, timing.lease_s, settings.era, settings.networks)
    turn.needs_term()
    turn.order(join.name, welcome)
    _forget_refusals(turn, join.name)
    _reconcile(turn, record, join.images, new_session=new_session)


def _reconcile(turn: Turn, node: NodeRecord, images: tuple[ImageReport, ...], *, new_session: bool) -> None:
    """Compare what a host holds with what it owns; an inventory moves no VM on (rule O1)."""
    by_vm = {image.vm: image for image in images}
    under_way = {move.id for move in turn.state.active_migrations()}
    for image in images:
        if image.migration_id and image.migration_id not in under_way:
            turn.order(node.name, CancelMigration(image.migration_id, "the move has ended"))
        if turn.state.owns(node, image.vm, image.epoch):
            _keep_image(turn, node, image, new_session=new_session)
        elif _is_void(turn, node, image):
            turn.order(node.name, DiscardVm(image.vm, image.epoch))
    for owner in [owned for owned in turn.state.owners.values() if owned.node == node.name]:
        held = by_vm.get(owner.vm)
        if held is None or held.epoch != owner.epoch or turn.state.vms[owner.vm].stops:
            ownership.repeat_order(turn, node, owner)
    moves.reconcile(turn, node, images)


def _is_void(turn: Turn, node: NodeRecord, image: ImageReport) -> bool:
    """Whether the VM is elsewhere or nowhere; not so for what arrives, or awaits the outcome of its move.

    Between the making of an inventory and its arrival, a source that was switching may have come to await.
    """
    owner, move = turn.state.owners.get(image.vm), turn.state.migration_of(image.vm)
    awaits = image.phase in _LEAVING and move is not None and move.id == image.migration_id
    return image.phase not in _INCOMING and not awaits and (owner is None or owner.node != node.name)


def _keep_image(turn: Turn, node: NodeRecord, image: ImageReport, *, new_session: bool) -> None:
    if image.phase is ImagePhase.RUNNING:
        turn.state.running[image.vm] = image.epoch
        if new_session:
            turn.state.held |= {image.vm}
        turn.touch_vm(image.vm)
    turn.order(node.name, GoOn(image.vm, image.epoch))


def on_renewal(turn: Turn, node: NodeRecord, message: Renewal) -> None:
    """Grant, counted from now, once the term has been seen to be the store's still (rules L1, L3).

    A renewal ends an open round against its sender, so none up to the last one goes on (rule Q2).
    """
    rounds.close(turn, node.name)
    present, votes = turn.state.attendance[node.name], quorum.vote_set(turn.state)
    present = isolation.end_isolation(turn, node.name, present)
    lease_until = turn.now + turn.settings.timing.coordinator_span_s
    renewed = replace(present, lease_until=lease_until, told=votes)
    if turn.state.is_live(node.name, turn.now):
        turn.state.attendance[node.name] = renewed
    else:  # after a stall: it may take VMs again
        turn.attend(node.name, renewed)
    _refuse_a_copy(turn, node)
    turn.needs_term()
    news = None if votes == present.told else votes
    turn.order(node.name, Grant(message.seq, turn.state.round_number, turn.state.quorum.number, news))


def _refuse_a_copy(turn: Turn, node: NodeRecord) -> None:
    """Whoever waits for a life that goes on renewing is no later life of that host (rule O3).

    A renewal may have been under way when its sender died, so one that comes soon proves nothing; nor does
    any that this process has left lying.
    """
    waiting = turn.state.pending.get(node.name)
    if waiting is None:
        return
    patience_s = STALL_AFTER_BEATS * turn.settings.timing.beat_s
    if turn.now >= max(waiting.since + patience_s, turn.state.judge_after):
        del turn.state.pending[node.name]
        turn.close(waiting.stream, _claimed(node.name))
        turn.attend(node.name, turn.state.attendance[node.name])


def forget(turn: Turn, node: NodeRecord) -> None:
    """Remove a node that owns nothing and takes part in no move: a process of it that lives is sent away."""
    streams = [turn.state.attendance.pop(node.name, Attendance()).stream]
    if (waiting := turn.state.pending.pop(node.name, None)) is not None:
        streams.append(waiting.stream)
    for stream in streams:
        if stream is not None:
            turn.close(stream, refused("evicted", f"node {node.name} was evicted from the cluster"))
    rounds.close(turn, node.name)
    if (drain := turn.state.drains.get(node.name)) is not None:
        turn.delete(drain)
    turn.delete(node)
    _forget_refusals(turn, node.name)


def _forget_refusals(turn: Turn, node: str) -> None:
    """A node that joins anew may be asked again for what it refused; one that is gone is not remembered."""
    for vm in [vm for vm, nodes in turn.state.refused_by.items() if node in nodes]:
        turn.state.refused_by[vm] -= {node}


def on_stream_closed(turn: Turn, stream: int) -> None:
    """Forget the stream; the node stays what it was until its lease runs out."""
    for name, waiting in list(turn.state.pending.items()):
        if waiting.stream == stream:
            del turn.state.pending[name]
            turn.attend(name, turn.state.attendance[name])
    attended = turn.state.streams.pop(stream, None)
    if attended is not None and turn.state.attendance[attended].stream == stream:
        turn.attend(attended, replace(turn.state.attendance[attended], stream=None))


def judge(turn: Turn) -> None:
    """Declare lost whoever did not renew for L(1+e) once a majority agrees, and fail its VMs over.

    Whoever reaches this coordinator runs on by its grants, with a majority behind it or not (rule Q6).
    """
    for name, present in list(turn.state.attendance.items()):
        if present.lease_until is None:
            continue
        ran_out = turn.now >= max(present.lease_until, turn.state.judge_after)
        if ran_out and rounds.put_to_vote(turn, turn.state.nodes[name]):
            span_s = turn.settings.timing.coordinator_span_s
            _lose(turn, name, present, f"it renewed no lease for {span_s:.2f} s{rounds.verdict(turn, name)}")


def on_death_certified(turn: Turn, certificate: DeathCertificate) -> None:
    """Fail over at once: nothing of that life runs any more (rule C1).

    It says nothing of any other life, and a proof needs no waiting, also after a stall (rule L5).
    """
    node = turn.state.nodes.get(certificate.node)
    if node is None or node.incarnation != certificate.incarnation:
        return
    present = turn.state.attendance[node.name]
    if node.up:
        cause = f"its watchdog certifies its death: {certificate.cause}"
        _lose(turn, node.name, present, cause, ordered=certificate.ordered)
    # What the dead life has sent may still arrive: none of its sessions joins again.
    present = turn.state.attendance[node.name]
    if turn.state.nodes[node.name].incarnation == certificate.incarnation:
        turn.attend(node.name, replace(present, lost_session=EVERY_SESSION))


def _lose(turn: Turn, name: str, present: Attendance, why: str, *, ordered: bool = False) -> None:
    rounds.close(turn, name)
    turn.write(replace(turn.state.nodes[name], up=False))
    if not ordered:
        isolation.count_loss(turn, name)
    if present.stream is not None:
        turn.close(present.stream, refused("session", "the lease has run out", "begin a new session"))
    lost = replace(present, stream=None, lease_until=None, lost_session=present.session, isolated=False)
    turn.attend(name, lost)
    turn.log(NODE_LOST, f"node {name} is lost: {why}", name)
    moves.node_lost(turn, name)
    ownership.fail_over(turn, name)
    waiting = turn.state.pending.get(name)
    if waiting is not None:
        _join_at_last(turn, name, waiting)
