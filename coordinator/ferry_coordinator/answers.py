"""What the cluster core shows, as messages of the admin API."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ferry.v1 import admin_pb2, common_pb2
from ferry_cluster.cluster import Cluster
from ferry_cluster.records import MigrationRecord
from ferry_cluster.scale import cluster_scale
from ferry_cluster.views import MigrationView, NodeView, VmView
from ferry_types.limits import MESSAGE_BYTES_MAX
from ferry_wire.conversion import to_proto

LIST_BYTES_MAX = MESSAGE_BYTES_MAX - 64 * 2**10
"""Elements of a list in one answer, serialised."""

_ELEMENT_OVERHEAD_BYTES = 6
"""Of an element inside an answer: tag and length."""

_T = TypeVar("_T")


def newest_that_fit(elements: Sequence[_T], size_bytes: Callable[[_T], int]) -> Sequence[_T]:
    """As many of the last elements as fit into one answer, in their order."""
    room_bytes = LIST_BYTES_MAX
    for index in range(len(elements) - 1, -1, -1):
        room_bytes -= size_bytes(elements[index]) + _ELEMENT_OVERHEAD_BYTES
        if room_bytes < 0:
            return elements[index + 1 :]
    return elements


def cluster_answer(cluster: Cluster) -> admin_pb2.Cluster:
    """The cluster as a whole."""
    settings, policy = cluster.settings, cluster.state.policy
    return admin_pb2.Cluster(
        name=settings.cluster,
        era=settings.era,
        profile=settings.timing.name,
        beat_s=settings.timing.beat_s,
        lease_s=settings.timing.lease_s,
        nodes=_counted(view.state for view in cluster.node_views()),
        vms=_counted(view.state for view in cluster.vm_views()),
        policy=admin_pb2.Policy(
            enforced_anti_affinity=policy.enforced_anti_affinity,
            quarantine_threshold=policy.quarantine_threshold,
            quarantine_period_s=policy.quarantine_period_s,
            quarantine_s=policy.quarantine_s,
        ),
        scale=cluster_scale(cluster.state),
    )


def node_answer(view: NodeView) -> admin_pb2.Node:
    """A node."""
    return to_proto(view, admin_pb2.Node)


def vm_answer(view: VmView) -> admin_pb2.Vm:
    """A VM."""
    return to_proto(view, admin_pb2.Vm)


def plan_answer(planned: MigrationRecord) -> admin_pb2.MigrationRecord:
    """A move that was only planned: it has no id."""
    answer = migration_answer(MigrationView(planned, None))
    answer.ClearField("id")
    return answer


def migration_answer(view: MigrationView) -> admin_pb2.MigrationRecord:
    """A move; as long as it runs, with the figures of the passes that are done."""
    record = view.record
    figures = record.figures or (view.progress.figures if view.progress else None)
    estimate = figures.estimate if figures else None
    return admin_pb2.MigrationRecord(
        id=record.id,
        vm=record.vm,
        source=record.source,
        target=record.target,
        options=to_proto(record.options, common_pb2.MigrationOptions),
        state=record.state,
        figures=None if figures is None else to_proto(figures, common_pb2.MigrationFigures),
        total_s=record.total_s or 0.0,
        memory_bytes=record.memory_bytes,
        reason=record.reason or (figures.explanation if figures else ""),
        requested_at_us=record.requested_at_us,
        cause=record.cause,
        network=record.network,
        estimate=None if estimate is None else to_proto(estimate, common_pb2.MoveEstimate),
        option_reason=record.option_reason,
    )


def status_answer(view: MigrationView) -> admin_pb2.MigrationStatus:
    """A move, and how far its source is."""
    status = admin_pb2.MigrationStatus(record=migration_answer(view))
    progress = view.progress
    if progress is not None:
        status.pass_index = progress.pass_index
        status.pages_done = progress.pages_done
        status.pages_total = progress.pages_total
        status.dirty_pages = progress.dirty_pages
        status.rate_bytes_per_s = progress.rate_bytes_per_s
    return status


def _counted(states: Iterable[str]) -> list[admin_pb2.StateCount]:
    """How many are in each state, by the state's name."""
    return [
        admin_pb2.StateCount(state=state, count=count) for state, count in sorted(Counter(states).items())
    ]
