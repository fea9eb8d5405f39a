"""What watchers on the bus see: the newest state of everything, and events as they happen.

Nothing here decides anything, nothing waits for the bus, and losing it changes nothing but what they see.
"""

import json
from collections.abc import Sequence

from ferry.v1 import events_pb2
from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import Changed
from ferry_coordinator.answers import node_answer, status_answer, vm_answer
from ferry_coordinator.documents import View, event_view, node_view, progress_view, vm_view
from ferry_coordinator.ports import EventBus
from ferry_types.vms import NodeState
from ferry_wire import topics


class Projections:
    """Publishes on the bus. An audience of the driver."""

    def __init__(self, bus: EventBus, cluster_name: str) -> None:
        self._bus = bus
        self._cluster_name = cluster_name

    def changed(self, cluster: Cluster, changed: Changed) -> None:
        """Publish objects anew, and clear the topics of those that are gone.

        What hosts publish of themselves and their VMs is cleared here, too, once nobody else will: the
        host is down, or no host runs the VM.
        """
        state = cluster.state
        for name in changed.nodes - state.nodes.keys():
            for topic in (topics.node_status, topics.node_telemetry, topics.process_status):
                self._bus.clear(topic(self._cluster_name, name))
        for name in changed.nodes & state.nodes.keys():
            node = cluster.node_view(name)
            self._show(topics.node_status(self._cluster_name, name), node_view(node_answer(node)))
            if node.state is NodeState.DOWN:
                self._bus.clear(topics.node_telemetry(self._cluster_name, name))
        for name in changed.vms:
            vm = cluster.vm_view(name) if name in state.vms else None
            self._show(
                topics.vm_state(self._cluster_name, name), None if vm is None else vm_view(vm_answer(vm))
            )
            if vm is None or not vm.node:
                self._bus.clear(topics.vm_telemetry(self._cluster_name, name))
        for id_ in changed.migrations:
            kept = id_ in state.migrations
            self._show(
                topics.migration_progress(self._cluster_name, id_),
                progress_view(status_answer(cluster.migration_view(id_))) if kept else None,
            )

    def happened(self, events: Sequence[events_pb2.Event]) -> None:
        """Publish events; a broker keeps none of them."""
        for event in events:
            topic = topics.events(self._cluster_name, event.node)
            self._bus.publish(topic, json.dumps(event_view(event)))

    def _show(self, topic: str, document: View | None) -> None:
        """Let the broker retain an object's newest state; nothing of one that is gone."""
        if document is None:
            self._bus.clear(topic)
        else:
            self._bus.publish(topic, json.dumps(document), retain=True)


def everything(cluster: Cluster) -> Changed:
    """The change that a start is: all that there is."""
    state = cluster.state
    return Changed(frozenset(state.nodes), frozenset(state.vms), frozenset(state.migrations))
