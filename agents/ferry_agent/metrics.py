"""The agent's figures for Prometheus, read from the host when somebody asks."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ferry_agent.network.adapters import Adapters
from ferry_agent.runtime import HostRuntime


class HostCollector(Collector):
    """Gauges of one host, its VMs and its NICs. Scrapes come from another thread and only read."""

    def __init__(self, runtime: HostRuntime, adapters: Adapters) -> None:
        self._runtime = runtime
        self._adapters = adapters

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        state = self._runtime.host.state
        yield GaugeMetricFamily(
            "ferry_host_connected", "Whether a stream to the coordinator is open", int(state.connected)
        )
        yield CounterMetricFamily("ferry_host_sessions", "Sessions begun: leases that ran out", state.session)
        used = GaugeMetricFamily("ferry_vm_memory_bytes", "Memory of a VM held here", labels=["vm"])
        rate = GaugeMetricFamily("ferry_vm_write_bytes_per_s", "What its guest writes", labels=["vm"])
        steps = CounterMetricFamily("ferry_vm_steps", "Steps of its guest since the boot", labels=["vm"])
        for image in self._runtime.rack.all():
            labels = [image.spec.name]
            used.add_metric(labels, image.spec.memory_bytes)
            rate.add_metric(labels, image.write_bytes_per_s)
            steps.add_metric(labels, image.vcpu.steps)
        yield from (used, rate, steps)
        yield from self._nics()

    def _nics(self) -> Iterator[Metric]:
        passed = CounterMetricFamily(
            "ferry_nic_bytes", "Payload that passed a NIC", labels=["nic", "direction"]
        )
        busy = CounterMetricFamily(
            "ferry_nic_busy_seconds",
            "For which a NIC that has a rate was busy with it",
            labels=["nic", "direction"],
        )
        for one in self._adapters.passed():
            passed.add_metric([one.nic, "sent"], one.sent_bytes)
            passed.add_metric([one.nic, "received"], one.received_bytes)
            busy.add_metric([one.nic, "sent"], one.sending_s)
            busy.add_metric([one.nic, "received"], one.receiving_s)
        yield from (passed, busy)


def make_registry(runtime: HostRuntime, adapters: Adapters) -> CollectorRegistry:
    """A registry with the host's figures alone."""
    registry = CollectorRegistry()
    registry.register(HostCollector(runtime, adapters))
    return registry
