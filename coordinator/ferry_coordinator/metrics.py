"""Figures of the coordinator for Prometheus; counted always, served only where an address was given."""

from collections.abc import Callable, Sequence
from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ferry.v1 import events_pb2
from ferry_cluster.cluster import Cluster
from ferry_cluster.commands import Changed
from ferry_cluster.inputs import Event, HostMessage
from ferry_types.events import VM_FAILOVER
from ferry_types.migrations import MigrationState
from ferry_types.vms import NodeState, VmState

_LATENCY_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """What is counted. An audience of the driver; use from the event loop's thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._nodes = _States("ferry_nodes", "Nodes by state", NodeState, self.registry)
        self._vms = _States("ferry_vms", "VMs by state", VmState, self.registry)
        self._migrations = _States(
            "ferry_migrations", "Moves that are kept, by state", MigrationState, self.registry
        )
        self._queue = Gauge("ferry_queue_length", "Events and calls that wait", registry=self.registry)
        self._queued_s = self._histogram("ferry_queued_seconds", "Wait of an event in the queue", ["event"])
        self._handled_s = self._histogram("ferry_handling_seconds", "Handling of an event", ["event"])
        self._commit_s = self._histogram("ferry_commit_seconds", "Durable commit, as the driver sees it")
        self._events = Counter("ferry_events", "Rows of the event log", ["source"], registry=self.registry)
        self._failovers = Counter(
            "ferry_failovers", "VMs that lost their host, or were refused by it", registry=self.registry
        )

    def _histogram(self, name: str, text: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(name, text, labels, buckets=_LATENCY_BUCKETS_S, registry=self.registry)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Ask for the queue's length whenever somebody looks. ``length`` is called in other threads."""
        self._queue.set_function(length)

    def handled(self, event: Event, queued_s: float, handling_s: float) -> None:
        """Count an event that has been handled, commits included."""
        kind = type(event.envelope.body if isinstance(event, HostMessage) else event).__name__
        self._queued_s.labels(kind).observe(queued_s)
        self._handled_s.labels(kind).observe(handling_s)

    def committed(self, duration_s: float) -> None:
        """Count a commit."""
        self._commit_s.observe(duration_s)

    def changed(self, cluster: Cluster, changed: Changed) -> None:
        """Count objects under their present states."""
        nodes = {view.name: view.state for view in cluster.node_views()} if changed.nodes else {}
        for name in changed.nodes:
            self._nodes.note(name, nodes.get(name))
        for name in changed.vms:
            self._vms.note(name, cluster.vm_view(name).state if name in cluster.state.vms else None)
        for name in changed.migrations:
            move = cluster.state.migrations.get(name)
            self._migrations.note(name, None if move is None else move.state)

    def happened(self, events: Sequence[events_pb2.Event]) -> None:
        """Count rows of the event log."""
        for event in events:
            self._events.labels(event.source).inc()
            if event.event_id == VM_FAILOVER.event_id:
                self._failovers.inc()


class _States:
    """How many objects are in each state."""

    def __init__(
        self,
        name: str,
        text: str,
        states: type[StrEnum],
        registry: CollectorRegistry,
    ) -> None:
        self._gauge = Gauge(name, text, ["state"], registry=registry)
        for state in states:
            self._gauge.labels(state)
        self._state_of: dict[str, str] = {}

    def note(self, name: str, state: str | None) -> None:
        """An object is in this state now; None: it is gone."""
        former = self._state_of.pop(name, None)
        if former is not None:
            self._gauge.labels(former).dec()
        if state is not None:
            self._state_of[name] = state
            self._gauge.labels(state).inc()
