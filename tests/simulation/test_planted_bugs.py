"""The checks are checked: each bug planted here breaks a rule, and the storms of some seed must notice.

Many rules have more than one guard. A plant takes out as many as it needs for the rule to be gone.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from ferry_cluster import cluster as cluster_module
from ferry_cluster import membership, ownership
from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import CloseStream, Command
from ferry_cluster.placement import Room
from ferry_cluster.records import NodeRecord, Origin, Ownership, Record
from ferry_cluster.state import Attendance
from ferry_cluster.turn import Turn as ClusterTurn
from ferry_host import host as host_module
from ferry_host import images, lease, moves
from ferry_host.commands import RunVcpu, SetDeadline, StopOutgoing
from ferry_host.host import Host
from ferry_host.inputs import Booted, OutgoingFailed
from ferry_host.state import INCOMING, Image
from ferry_host.turn import Turn as HostTurn
from ferry_sim.clockwork import Clockwork
from ferry_sim.storage import Storage
from ferry_sim.storm import SHORT, Course, Storm
from ferry_types.messages import (
    ArmHandOff,
    CancelMigration,
    DeathCertificate,
    DiscardVm,
    Grant,
    HostEnvelope,
    HostOrder,
    ImageReport,
    Join,
    ProposeAbort,
    ResumeSource,
    RunVm,
    ToHost,
)
from ferry_types.vms import ImagePhase

SEEDS = range(300)

Plant = Callable[[pytest.MonkeyPatch], None]


# --- leases ---------------------------------------------------------------------------------------


def deadline_counted_from_the_wrong_side(patch: pytest.MonkeyPatch) -> None:
    """Trap 21: the host counts from receiving the grant."""

    def on_grant(turn: HostTurn, grant: Grant) -> None:
        state = turn.state
        if state.sent_at.pop(grant.seq, None) is not None and state.timing is not None:
            state.deadline_s = turn.now + state.timing.host_span_s
            turn.do(SetDeadline(state.deadline_s))

    patch.setitem(host_module._ORDERS, Grant, on_grant)


def grants_without_a_look_at_the_term(patch: pytest.MonkeyPatch) -> None:
    """Trap 3: a coordinator that has been replaced still grants."""
    patch.setattr(ClusterTurn, "needs_term", lambda _turn: None)


def grants_without_a_session(patch: pytest.MonkeyPatch) -> None:
    """Rule L2: a host goes on in the session that ran out, and is granted what it asks for there."""
    lose = membership._lose

    def lose_and_listen_on(
        turn: ClusterTurn, name: str, present: Attendance, why: str, *, ordered: bool = False
    ) -> None:
        lose(turn, name, present, why, ordered=ordered)
        if present.stream is not None and turn.state.attendance[name].stream is None:
            turn._told = [told for told in turn._told if not isinstance(told, CloseStream)]
            turn.state.streams[present.stream] = name
            turn.attend(name, replace(present, lease_until=None))

    def close_the_gate(turn: HostTurn) -> None:
        if turn.state.deadline_s is not None and turn.now >= turn.state.deadline_s:
            turn.state.deadline_s = None
            turn.do(SetDeadline(None))

    patch.setattr(membership, "_lose", lose_and_listen_on)
    patch.setattr(lease, "check_deadline", close_the_gate)


def a_closed_stream_taken_for_a_death(patch: pytest.MonkeyPatch) -> None:
    """Rule C1."""
    on_stream_closed = membership.on_stream_closed

    def lose(turn: ClusterTurn, stream: int) -> None:
        name = turn.state.streams.get(stream)
        on_stream_closed(turn, stream)
        if name is not None:
            membership._lose(turn, name, turn.state.attendance[name], "its stream was closed")

    patch.setattr(membership, "on_stream_closed", lose)


def a_certificate_for_whatever_life_is_there(patch: pytest.MonkeyPatch) -> None:
    """Trap 18, rule C1: the certificate does not name an incarnation."""
    on_death_certified = membership.on_death_certified

    def lose_any(turn: ClusterTurn, certificate: DeathCertificate) -> None:
        node = turn.state.nodes.get(certificate.node)
        if node is not None:
            on_death_certified(turn, replace(certificate, incarnation=node.incarnation))

    patch.setattr(membership, "on_death_certified", lose_any)


def a_restarted_coordinator_that_judges_at_once(patch: pytest.MonkeyPatch) -> None:
    """Rule L5: what its predecessor granted counts for nothing."""
    start = Cluster.start

    def start_impatiently(cluster: Cluster, now: float) -> list[Command]:
        cluster.state.judge_after = now
        for name, present in cluster.state.attendance.items():
            if present.lease_until is not None:
                cluster.state.attendance[name] = replace(present, lease_until=now)
        return start(cluster, now)

    patch.setattr(Cluster, "start", start_impatiently)


def a_new_life_admitted_inside_the_old_lease(patch: pytest.MonkeyPatch) -> None:
    """Rules C1, O3: the old life is taken for lost because a new one is there."""

    def on_join(turn: ClusterTurn, stream: int, envelope: HostEnvelope, join: Join) -> None:
        known = turn.state.nodes.get(join.name)
        if known is not None and known.up and known.incarnation != envelope.incarnation:
            membership._lose(turn, join.name, turn.state.attendance[join.name], "it came back")
        membership._admit(turn, stream, envelope, join)

    patch.setattr(membership, "on_join", on_join)


# --- orders and inventories -----------------------------------------------------------------------


def orders_of_an_older_session_obeyed(patch: pytest.MonkeyPatch) -> None:
    """Trap 10: RunVm, among others."""
    on_order = Host._on_order

    def obey(host: Host, turn: HostTurn, order: HostOrder) -> None:
        on_order(host, turn, replace(order, session=host.state.session))

    patch.setattr(Host, "_on_order", obey)


def an_inventory_taken_as_proof(patch: pytest.MonkeyPatch) -> None:
    """Trap 17: the host does not show the VM, so it is booted anew."""

    def boot(turn: ClusterTurn, _node: NodeRecord, owner: Ownership) -> None:
        ownership.place(turn, Room.of(turn), turn.state.vms[owner.vm])

    patch.setattr(ownership, "repeat_order", boot)


def the_owners_image_discarded(patch: pytest.MonkeyPatch) -> None:
    """Trap 16: "the epoch moved", and the source that was given the VM back loses its memory."""
    order = ClusterTurn.order

    def discard_first(turn: ClusterTurn, node: str, body: ToHost) -> None:
        if isinstance(body, ResumeSource):
            order(turn, node, DiscardVm(body.vm, body.epoch - 1))
        order(turn, node, body)

    patch.setattr(ClusterTurn, "order", discard_first)


def what_was_handed_over_discarded(patch: pytest.MonkeyPatch) -> None:
    """Rule L4: the source's image goes before anybody knows that the target runs."""

    def is_void(turn: ClusterTurn, node: NodeRecord, image: ImageReport) -> bool:
        owner = turn.state.owners.get(image.vm)
        return image.phase not in INCOMING and (owner is None or owner.node != node.name)

    patch.setattr(membership, "_is_void", is_void)


def a_quantum_before_the_epoch_is_raised(patch: pytest.MonkeyPatch) -> None:
    """Rule D2."""

    def on_booted(turn: HostTurn, event: Booted) -> None:
        images.on_booted(turn, event)
        image = turn.state.images.get(event.vm)
        if image is not None and image.phase is ImagePhase.RAISING:
            turn.do(RunVcpu(image.name, image.epoch))

    patch.setitem(host_module._EVENTS, Booted, on_booted)


def a_fence_answered_before_the_drain(patch: pytest.MonkeyPatch) -> None:
    """Trap 20: writes of the epoch before are still in progress when the next one runs."""

    def answer(_storage: Storage, _vm: str, _epoch: int, answer: Callable[[], None]) -> None:
        answer()

    patch.setattr(Storage, "answer_when_drained", answer)


def a_fence_that_lets_late_writes_in(patch: pytest.MonkeyPatch) -> None:
    """Rule D1: nobody compares epochs."""
    init = Storage.__init__

    def compare_nothing(storage: Storage, clockwork: Clockwork, _raised: Callable[[str], int]) -> None:
        init(storage, clockwork, lambda _vm: 0)

    patch.setattr(Storage, "__init__", compare_nothing)


# --- switchover -----------------------------------------------------------------------------------


def resume(turn: HostTurn, image: Image) -> None:
    assert image.outgoing is not None
    turn.do(StopOutgoing(image.outgoing.migration_id))
    turn.state.images[image.name] = replace(image, phase=ImagePhase.RUNNING, outgoing=None)
    turn.do(RunVcpu(image.name, image.epoch))


def the_source_resumes_after_the_final_copy(patch: pytest.MonkeyPatch) -> None:
    """Trap 12."""

    def on_outgoing_failed(turn: HostTurn, event: OutgoingFailed) -> None:
        image = turn.state.leaving(event.migration_id)
        if image is not None:
            resume(turn, image)
            turn.end_move(event.migration_id, event.reason)

    patch.setitem(host_module._EVENTS, OutgoingFailed, on_outgoing_failed)


def the_source_hears_not_committed_and_resumes(patch: pytest.MonkeyPatch) -> None:
    """Trap 13: the late commit wins."""

    def answer(turn: ClusterTurn, node: NodeRecord, message: ProposeAbort) -> None:
        move = turn.state.migrations.get(message.migration_id)
        if move is not None and not turn.state.is_committed(move):
            turn.order(node.name, CancelMigration(message.migration_id, "not committed"))

    def on_cancel(turn: HostTurn, order: CancelMigration) -> None:
        image = turn.state.leaving(order.migration_id)
        if image is not None and image.phase is ImagePhase.AWAITING:
            resume(turn, image)
        else:
            moves.on_cancel(turn, order)

    patch.setitem(cluster_module._REPORTS, ProposeAbort, answer)
    patch.setitem(host_module._ORDERS, CancelMigration, on_cancel)


def an_abort_that_raises_nothing(patch: pytest.MonkeyPatch) -> None:
    """Trap 14: the source runs on under the epoch that the target was offered."""
    write = ClusterTurn.write

    def keep_epoch(turn: ClusterTurn, record: Record) -> None:
        if isinstance(record, Ownership) and record.origin is Origin.ABORT:
            record = replace(record, epoch=record.epoch - 1)
        write(turn, record)

    patch.setattr(ClusterTurn, "write", keep_epoch)


def a_lapsed_target_that_does_not_refuse_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Trap 15: it stays empty for ever."""

    def on_run(turn: HostTurn, order: RunVm) -> None:
        image = turn.state.images.get(order.vm)
        if image is not None and (image.phase is ImagePhase.READY or image.epoch >= order.epoch):
            moves.on_run(turn, order)

    patch.setitem(host_module._ORDERS, RunVm, on_run)


def a_take_back_that_compares_nothing(patch: pytest.MonkeyPatch) -> None:
    """Trap 9: "the target has not raised" is taken for granted, and old memory runs."""

    def on_resume(turn: HostTurn, order: ResumeSource) -> None:
        moves.on_resume(turn, replace(order, unless_raised=0))

    patch.setitem(host_module._ORDERS, ResumeSource, on_resume)


def a_commit_before_ready(patch: pytest.MonkeyPatch) -> None:
    """The commit point comes before the target has everything."""
    on_arm = cluster_module._REPORTS[ArmHandOff]

    def commit(turn: ClusterTurn, node: NodeRecord, message: ArmHandOff) -> None:
        on_arm(turn, node, message)
        move = turn.state.migrations.get(message.migration_id)
        if move is not None and move.state == "switching" and not turn.state.is_committed(move):
            target, owner = turn.state.nodes[move.target], turn.state.owners[move.vm]
            turn.write(
                Ownership(move.vm, owner.epoch + 1, target.name, target.incarnation, Origin.MOVE, move.id)
            )

    patch.setitem(cluster_module._REPORTS, ArmHandOff, commit)


PLANTS: list[Plant] = [
    deadline_counted_from_the_wrong_side,
    grants_without_a_look_at_the_term,
    grants_without_a_session,
    a_closed_stream_taken_for_a_death,
    a_certificate_for_whatever_life_is_there,
    a_restarted_coordinator_that_judges_at_once,
    a_new_life_admitted_inside_the_old_lease,
    orders_of_an_older_session_obeyed,
    an_inventory_taken_as_proof,
    the_owners_image_discarded,
    what_was_handed_over_discarded,
    a_quantum_before_the_epoch_is_raised,
    a_fence_answered_before_the_drain,
    a_fence_that_lets_late_writes_in,
    the_source_resumes_after_the_final_copy,
    the_source_hears_not_committed_and_resumes,
    an_abort_that_raises_nothing,
    a_lapsed_target_that_does_not_refuse_the_commit,
    a_take_back_that_compares_nothing,
    a_commit_before_ready,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_noticed(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert any(is_noticed(seed) for seed in SEEDS)


def is_noticed(seed: int, course: Course = SHORT) -> bool:
    """Whether this seed is violated; none is without a plant."""
    try:
        Storm(seed, course).run()
    except AssertionError:
        return True
    return False
