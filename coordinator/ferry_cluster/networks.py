"""Cluster networks: which one each kind of traffic takes, by which NICs, and what is known of them.

Every network but those for storage may carry traffic between hosts, and the lowest metric is preferred.
Where Windows stands behind a rule:

- Traffic of Cluster Shared Volumes takes the network with the lowest metric, live migration the second
  lowest ("Designating a Preferred Network for Cluster Shared Volumes Communication", TechNet, for 2008 R2);
  what has the lowest comes last for live migration, which is to stay out of that traffic's way ("Which
  network does live migration traffic use", Windows IT Pro).
- Automatic metrics ("Automatic Metrics in Windows Server 2012 R2", IT Pro Today): 40,000 for a network that
  only the cluster uses, 80,000 where clients are too, 19,200 less with RDMA, and less by speed from 1 Gbit/s
  on. That 16 go for each Gbit/s, of the slowest NIC, is ours, as is 120,000 for storage, which the cluster
  does not use at all; receive-side scaling is not emulated.
- Ours, too: a network that bears the role of a kind of traffic comes before all others for it, by metric if
  there are several. A cluster has at most one path at a time for a kind of traffic between two hosts: the
  NICs of the best network that works. A network is not left because a better one is slow, only because it
  is down.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from ferry_cluster.records import MigrationRecord, NodeRecord
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_cluster.turn import Turn
from ferry_types.errors import Refusal, refused
from ferry_types.events import NETWORK_DOWN, NETWORK_UP, NIC_FAILED, NIC_UP
from ferry_types.links import TrafficClass
from ferry_types.messages import Join, NicsChanged, Route
from ferry_types.networks import (
    RATE_BYTES_PER_S_MAX,
    Network,
    NetworkRole,
    Nic,
    NicFault,
    membership_problem,
    nics_problem,
    path_mtu,
)
from ferry_types.qos import qos_problem

_PRIVATE_METRIC: Final = 40_000
_PUBLIC_METRIC: Final = 80_000
_UNUSED_METRIC: Final = 120_000
_RDMA_METRIC: Final = 19_200
_GBIT_METRIC: Final = 16
_GBIT_BYTES_PER_S: Final = 10**9 // 8
_UNSHAPED: Final = RATE_BYTES_PER_S_MAX
"""How fast a NIC counts that is not shaped."""

REASON_CHARACTERS_MAX: Final = 200

_ROLES: Final = {
    TrafficClass.CLUSTER: NetworkRole.CLUSTER,
    TrafficClass.CSV: NetworkRole.CSV,
    TrafficClass.MIGRATION: NetworkRole.MIGRATION,
}
"""Which networks are there for a kind of traffic alone."""

ROUTED: Final = tuple(_ROLES)
"""What travels between hosts, and is given a network."""


def metric(network: Network, nics: Iterable[Nic]) -> int:
    """The metric in effect. ``nics``: all that the cluster has of this network."""
    if network.metric:
        return network.metric
    base = _PRIVATE_METRIC if network.role.is_private else _PUBLIC_METRIC
    if not network.role.carries_cluster:
        return _UNUSED_METRIC
    known = list(nics)
    rates = [nic.rate_bytes_per_s for nic in known if nic.rate_bytes_per_s]
    faster = _GBIT_METRIC * (min(rates) // _GBIT_BYTES_PER_S) if rates else 0
    with_rdma = bool(known) and all(nic.rdma for nic in known)
    return max(1, base - faster - (_RDMA_METRIC if with_rdma else 0))


def by_metric(settings: ClusterSettings, state: ClusterState) -> tuple[tuple[int, Network], ...]:
    """All networks with their metrics, the most preferred first."""
    if state.network_metrics is None:
        state.network_metrics = _by_metric(settings, state)
    return state.network_metrics


def _by_metric(settings: ClusterSettings, state: ClusterState) -> tuple[tuple[int, Network], ...]:
    nics: dict[str, list[Nic]] = {network.name: [] for network in settings.networks}
    for node in state.nodes.values():
        for nic in node.capacity.nics:
            if nic.network in nics:
                nics[nic.network].append(nic)
    found = [(metric(network, nics[network.name]), network) for network in settings.networks]
    return tuple(sorted(found, key=lambda each: (each[0], each[1].name)))


def choice(settings: ClusterSettings, state: ClusterState, traffic: TrafficClass) -> list[Network]:
    """The networks that a kind of traffic may take, the first choice first."""
    usable = [network for _, network in by_metric(settings, state) if network.role.carries_cluster]
    dedicated = [network for network in usable if network.role is _ROLES[traffic]]
    others = [network for network in usable if network not in dedicated]
    if traffic is not TrafficClass.MIGRATION or not others:
        return [*dedicated, *others]
    csv = choice(settings, state, TrafficClass.CSV)[0]
    return [*dedicated, *sorted(others, key=lambda network: network is csv)]


def routes(
    settings: ClusterSettings, state: ClusterState, source: str, target: str, traffic: TrafficClass
) -> tuple[Route, ...]:
    """How this traffic gets from one host to another now, the best route first.

    All are of the network that comes first among those that work. None: a host has no NICs, and the target is
    reached at its own address; or there is no way (``path_problem`` tells).
    """
    one, other = state.nodes[source], state.nodes[target]
    port = other.address.rpartition(":")[2]
    return tuple(
        Route(ours.name, theirs.name, f"{_host(theirs)}:{port}", path_mtu(ours, theirs))
        for ours, theirs in _best_pairs(settings, state, one, other, traffic)
    )


def network_of(state: ClusterState, source: str, ways: tuple[Route, ...]) -> str:
    """The network that routes from a host are of; empty if there are none."""
    return _network_of(state.nodes[source], ways[0].source_nic) if ways else ""


def path_problem(settings: ClusterSettings, state: ClusterState, source: str, target: str) -> Refusal | None:
    """Why no live migration gets from one host to another, or None. A host without NICs is reached anyway."""
    one, other = state.nodes[source], state.nodes[target]
    if not (one.capacity.nics and other.capacity.nics):
        return None
    if _best_pairs(settings, state, one, other, TrafficClass.MIGRATION):
        return None
    shared = [
        network.name
        for network in choice(settings, state, TrafficClass.MIGRATION)
        if _of(one, network) and _of(other, network)
    ]
    if not shared:
        what = f"{source} and {target} have NICs of no network in common that may carry live migration"
        return refused("network path", what, "choose another node: ferry network list shows who is where")
    down = [
        (node.name, fault.nic)
        for node in (one, other)
        for fault in node.nics_down
        if _network_of(node, fault.nic) in shared
    ]
    cut = ", ".join(f"{nic} of {node}" for node, nic in down)
    what = f"no network leads from {source} to {target}: down are {cut}"
    hint = " ".join(("ferry nic up", *down[0])) if down else ""
    return refused("network path", what, f"choose another node, or bring a NIC up: {hint}")


def downgrade(settings: ClusterSettings, state: ClusterState, move: MigrationRecord) -> str:
    """Why a move's path is used without jumbo frames that one of its ends has, in words; empty: it is not."""
    one, other = state.nodes[move.source], state.nodes[move.target]
    for ours, theirs in _best_pairs(settings, state, one, other, TrafficClass.MIGRATION):
        if ours.mtu != theirs.mtu and max(ours.mtu, theirs.mtu) > path_mtu(ours, theirs):
            return (
                f"frames do not agree end to end on network {ours.network}: {ours.name} of {one.name} has an "
                f"MTU of {ours.mtu}, {theirs.name} of {other.name} of {theirs.mtu}; between them it is "
                f"{path_mtu(ours, theirs)}"
            )
    return ""


def _best_pairs(
    settings: ClusterSettings, state: ClusterState, one: NodeRecord, other: NodeRecord, traffic: TrafficClass
) -> list[tuple[Nic, Nic]]:
    """NICs that lead from one host to the other by the best network that works."""
    if not (one.capacity.nics and other.capacity.nics):
        return []
    for network in choice(settings, state, traffic):
        ours, theirs = _usable(one, network), _usable(other, network)
        if ours and theirs:
            count = max(len(ours), len(theirs))
            return [(ours[index % len(ours)], theirs[index % len(theirs)]) for index in range(count)]
    return []


def _usable(node: NodeRecord, network: Network) -> list[Nic]:
    """A host's NICs of a network that are up: with RDMA first, then the fastest, then jumbo frames."""
    down = {fault.nic for fault in node.nics_down}
    found = [nic for nic in _of(node, network) if nic.name not in down]
    return sorted(
        found, key=lambda nic: (not nic.rdma, -(nic.rate_bytes_per_s or _UNSHAPED), -nic.mtu, nic.name)
    )


def _of(node: NodeRecord, network: Network) -> list[Nic]:
    return [nic for nic in node.capacity.nics if nic.network == network.name]


def _network_of(node: NodeRecord, nic: str) -> str:
    return next((known.network for known in node.capacity.nics if known.name == nic), "")


def _host(nic: Nic) -> str:
    return f"[{nic.address}]" if ":" in nic.address else nic.address


# --- NICs of hosts --------------------------------------------------------------------------------------


def join_problem(settings: ClusterSettings, state: ClusterState, join: Join) -> Refusal | None:
    """Why a host's NICs keep it out of this cluster, or None."""
    nics = join.capacity.nics
    problem = (
        nics_problem(nics, join.capacity.teams)
        or qos_problem(join.capacity.qos, has_nics=bool(nics))
        or membership_problem(nics, settings.networks)
    )
    if problem is not None:
        return replace(problem, message=f"{join.name}: {problem.message}")
    ours = {nic.address: nic.name for nic in nics}
    for node in state.nodes.values():
        for nic in node.capacity.nics:
            if node.name != join.name and node.up and nic.address in ours:
                what = (
                    f"address {nic.address} of NIC {ours[nic.address]} of {join.name} is that of {nic.name} "
                    f"of {node.name}"
                )
                return refused("nic addresses", what, "give each NIC an address of its own")
    return None


def start_problem(settings: ClusterSettings, state: ClusterState) -> Refusal | None:
    """Why this store's cluster cannot be led with these networks: a node that is up would be sent away."""
    for node in state.nodes.values():
        problem = membership_problem(node.capacity.nics, settings.networks) if node.up else None
        if problem is not None:
            hint = "name the networks that it had (--network); or begin with a new data directory (--dir)"
            return replace(problem, message=f"node {node.name}: {problem.message}", hint=hint)
    return None


def faults_of(join: Join) -> tuple[NicFault, ...]:
    """NICs that a host reports as down, as far as it has them."""
    return _known(join.nics_down, join.capacity.nics)


def on_nics_changed(turn: Turn, node: NodeRecord, message: NicsChanged) -> None:
    """NICs of a host went down or came up."""
    changed = replace(node, nics_down=_known(message.down, node.capacity.nics))
    if changed != node:
        turn.write(changed)
        tell_changes(turn, changed, node.nics_down)


def tell_changes(turn: Turn, node: NodeRecord, former: tuple[NicFault, ...]) -> None:
    """Log what has become of a node's NICs. ``former``: those that were down before."""
    before, now = {fault.nic for fault in former}, {fault.nic: fault.reason for fault in node.nics_down}
    for nic in node.capacity.nics:
        where = f"NIC {nic.name} of node {node.name} on network {nic.network}"
        if nic.name in now and nic.name not in before:
            turn.log(NIC_FAILED, f"{where} is down: {now[nic.name]}", node.name)
        elif nic.name in before and nic.name not in now:
            turn.log(NIC_UP, f"{where} is up", node.name)
    for network in turn.settings.networks:
        nics = {nic.name for nic in _of(node, network)}
        if not nics or any(
            _usable(other, network) for other in turn.state.nodes.values() if _counts(other, node)
        ):
            continue
        if nics <= now.keys() and not nics <= before:
            what = f"network {network.name} is down: no NIC of it is up on any node that is up"
            turn.log(NETWORK_DOWN, what)
        elif nics <= before and not nics <= now.keys():
            turn.log(NETWORK_UP, f"network {network.name} is up again")


def _counts(other: NodeRecord, node: NodeRecord) -> bool:
    return other.up and other.name != node.name


def _known(faults: tuple[NicFault, ...], nics: tuple[Nic, ...]) -> tuple[NicFault, ...]:
    """Faults of NICs that there are, each once, in the order of the NICs."""
    reasons = {fault.nic: fault.reason[:REASON_CHARACTERS_MAX] for fault in faults}
    return tuple(NicFault(nic.name, reasons[nic.name]) for nic in nics if nic.name in reasons)
