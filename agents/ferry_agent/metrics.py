"""The agent's figures for Prometheus, read from the host when somebody asks."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ferry_agent.runtime import HostRuntime


class HostCollector(Collector):
    """Gauges of one host and its VMs. Scrapes come from another thread and only read."""

    def __init__(self, runtime: HostRuntime) -> None:
        self._runtime = runtime

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
            used.add_metric(labels, image.memory.memory_bytes)
            rate.add_metric(labels, image.vcpu.write_bytes_per_s)
            steps.add_metric(labels, image.vcpu.steps)
        yield from (used, rate, steps)


def make_registry(runtime: HostRuntime) -> CollectorRegistry:
    """A registry with the host's figures alone."""
    registry = CollectorRegistry()
    registry.register(HostCollector(runtime))
    return registry
