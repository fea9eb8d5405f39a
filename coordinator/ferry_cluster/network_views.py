"""Networks as people see them, derived from the state."""

from dataclasses import dataclass

from ferry_cluster.networks import ROUTED, by_metric, choice
from ferry_cluster.records import NodeRecord
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_types.links import TrafficClass
from ferry_types.networks import Network, NetworkRole, NetworkState, Nic, NicState


@dataclass(frozen=True, slots=True)
class NicView:
    """A NIC of a node, and why it is not up."""

    node: str
    nic: Nic
    state: NicState
    reason: str


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network as ``network show`` shows it.

    ``metric``: the one in effect; ``mtu``: on which all its NICs agree, 0: they do not, or there is none;
    ``carries``: kinds of traffic whose first choice it is.
    """

    name: str
    role: NetworkRole
    metric: int
    auto_metric: bool
    subnet: str
    state: NetworkState
    mtu: int
    carries: tuple[TrafficClass, ...]
    nics: tuple[NicView, ...]
    reason: str


def network_views(settings: ClusterSettings, state: ClusterState) -> list[NetworkView]:
    """All networks, the most preferred first."""
    first = {traffic: choice(settings, state, traffic)[:1] for traffic in ROUTED}
    views = []
    for metric, network in by_metric(settings, state):
        nics = tuple(
            _nic_view(node, nic)
            for _, node in sorted(state.nodes.items())
            for nic in sorted(node.capacity.nics, key=lambda nic: nic.name)
            if nic.network == network.name
        )
        sizes = {view.nic.mtu for view in nics}
        views.append(
            NetworkView(
                network.name,
                network.role,
                metric,
                not network.metric,
                network.subnet,
                _state(nics),
                sizes.pop() if len(sizes) == 1 else 0,
                tuple(traffic for traffic in ROUTED if network in first[traffic]),
                nics,
                _reason(network, nics),
            )
        )
    return views


def _nic_view(node: NodeRecord, nic: Nic) -> NicView:
    if not node.up:
        return NicView(node.name, nic, NicState.UNAVAILABLE, f"node {node.name} is not up")
    for fault in node.nics_down:
        if fault.nic == nic.name:
            return NicView(node.name, nic, NicState.DOWN, fault.reason)
    return NicView(node.name, nic, NicState.UP, "")


def _state(nics: tuple[NicView, ...]) -> NetworkState:
    states = {view.state for view in nics} - {NicState.UNAVAILABLE}
    if not states:
        return NetworkState.UNAVAILABLE
    if states == {NicState.UP}:
        return NetworkState.UP
    return NetworkState.PARTITIONED if NicState.UP in states else NetworkState.DOWN


def _reason(network: Network, nics: tuple[NicView, ...]) -> str:
    reasons = []
    down = [f"{view.nic.name} of {view.node}" for view in nics if view.state is NicState.DOWN]
    if down:
        reasons.append(f"down: {', '.join(down)}")
    largest = max(nics, key=lambda view: view.nic.mtu, default=None)
    smallest = min(nics, key=lambda view: view.nic.mtu, default=None)
    if largest is not None and smallest is not None and largest.nic.mtu != smallest.nic.mtu:
        reasons.append(
            f"frames do not agree end to end: {largest.nic.name} of {largest.node} has an MTU of "
            f"{largest.nic.mtu}, {smallest.nic.name} of {smallest.node} of {smallest.nic.mtu}"
        )
    if not network.role.carries_cluster:
        reasons.append("hosts send nothing to each other over it")
    return "; ".join(reasons)
