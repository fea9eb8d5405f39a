"""What watchers on the bus see: the newest state of everything, and events as they happen.

Nothing here decides anything, nothing waits for the bus, and losing it changes nothing but what they see.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ferry.v1 import events_pb2
from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import Changed
from ferry_cluster.views import MigrationView, NodeView, VmView
from ferry_coordinator.ports import EventBus
from ferry_types.migrations import ENDED
from ferry_wire import topics

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Projections:
    """Publishes on the bus. An audience of the driver."""

    def __init__(self, bus: EventBus, cluster_name: str) -> None:
        self._bus = bus
        self._cluster_name = cluster_name

    def changed(self, cluster: Cluster, changed: Changed) -> None:
        """Publish objects anew, and clear the topics of those that are gone."""
        for name in changed.nodes & cluster.state.nodes.keys():
            self._publish(topics.node_status(self._cluster_name, name), _node(cluster.node_view(name)))
        for name in changed.vms:
            topic = topics.vm_state(self._cluster_name, name)
            if name in cluster.state.vms:
                self._publish(topic, _vm(cluster.vm_view(name)))
            else:
                self._bus.clear(topic)
        for migration_id in changed.migrations:
            self._migration(cluster, migration_id)

    def happened(self, events: Sequence[events_pb2.Event]) -> None:
        """Publish events; a broker keeps none of them."""
        for event in events:
            topic = topics.events(self._cluster_name, event.node)
            self._bus.publish(topic, json.dumps(_event(event)))

    def _migration(self, cluster: Cluster, migration_id: str) -> None:
        topic = topics.migration_progress(self._cluster_name, migration_id)
        if migration_id in cluster.state.migrations:
            view = cluster.migration_view(migration_id)
            if view.record.state not in ENDED:
                self._publish(topic, _move(view))
                return
            self._bus.publish(topic, json.dumps(_move(view)))
        # Kept are only moves that have not ended.
        self._bus.clear(topic)

    def _publish(self, topic: str, payload: dict[str, object]) -> None:
        self._bus.publish(topic, json.dumps(payload), retain=True)


def everything(cluster: Cluster) -> Changed:
    """The change that a start is: all that there is."""
    state = cluster.state
    return Changed(frozenset(state.nodes), frozenset(state.vms), frozenset(state.migrations))


def _node(view: NodeView) -> dict[str, object]:
    return {
        "name": view.name,
        "state": view.state,
        "incarnation": view.incarnation,
        "vms": view.vms,
        "address": view.address,
        "memory_bytes": view.capacity.memory_bytes,
        "memory_used_bytes": view.memory_used_bytes,
        "reason": view.reason or None,
    }


def _vm(view: VmView) -> dict[str, object]:
    return {
        "name": view.spec.name,
        "state": view.state,
        "node": view.node or None,
        "epoch": view.epoch,
        "memory_bytes": view.spec.memory_bytes,
        "workload": view.spec.workload.profile,
        "echo_address": view.echo_address or None,
        "migration": view.migration_id or None,
        "reason": view.reason or None,
    }


def _move(view: MigrationView) -> dict[str, object]:
    record, progress = view.record, view.progress
    figures = record.figures or (progress.figures if progress else None)
    return {
        "id": record.id,
        "vm": record.vm,
        "source": record.source,
        "target": record.target,
        "state": record.state,
        "pass_index": progress.pass_index if progress else None,
        "pages_done": progress.pages_done if progress else None,
        "pages_total": progress.pages_total if progress else None,
        "dirty_pages": progress.dirty_pages if progress else None,
        "rate_bytes_per_s": progress.rate_bytes_per_s if progress else None,
        "memory_bytes": record.memory_bytes,
        "bytes_sent": figures.bytes_sent if figures else None,
        "brownout_s": figures.brownout_s if figures and figures.final else None,
        "blackout_s": figures.blackout_s if figures else None,
        "total_s": record.total_s,
        "reason": record.reason or (figures.explanation if figures else "") or None,
    }


def _event(event: events_pb2.Event) -> dict[str, object]:
    time = (_EPOCH + timedelta(microseconds=event.time_us)).isoformat(timespec="microseconds")
    return {
        "time": time.replace("+00:00", "Z"),
        "id": event.event_id or None,
        "log": event.log,
        "source": event.source,
        "level": event.level,
        "node": event.node or None,
        "vm": event.vm or None,
        "message": event.message,
        "sequence": event.id,
    }
