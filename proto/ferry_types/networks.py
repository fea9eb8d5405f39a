"""Cluster networks, and the network adapters (NICs) of hosts.

A network groups NICs that reach each other. Its role says what may travel over it, its metric how gladly:
the lowest first. NICs of one network form teams, which act as one.
"""

import ipaddress
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ferry_types.errors import Refusal, refused
from ferry_types.links import MTU_MAX, MTU_MIN, MTU_STANDARD
from ferry_types.names import validate_name

METRIC_MAX: Final = 0x0FFFFFFF
"""Of a cluster network: the property Metric of Windows' failover clusters has this range, from 1."""

RATE_BYTES_PER_S_MIN: Final = 1_000
"""A slower NIC would not bring a frame of 2 MiB over within half an hour."""

RATE_BYTES_PER_S_MAX: Final = 50 * 10**9
"""400 Gbit/s."""

LATENCY_S_MAX: Final = 1.0

NICS_MAX: Final = 32
"""Of one host."""

NETWORKS_MAX: Final = 32
"""Of one cluster."""


class NetworkRole(StrEnum):
    """What a network is there for.

    Windows knows three roles: not for the cluster (``storage`` here), for the cluster alone (``cluster``,
    ``migration``, ``csv``), and for cluster and clients (``client``, ``management``). That those for the
    cluster alone are told apart is ours: there an administrator does it by metrics and a list of networks.
    """

    CLIENT = "client"
    CLUSTER = "cluster"
    MIGRATION = "migration"
    CSV = "csv"
    STORAGE = "storage"
    MANAGEMENT = "management"

    @property
    def carries_cluster(self) -> bool:
        """Whether traffic between the cluster's hosts may travel over it."""
        return self is not NetworkRole.STORAGE

    @property
    def is_private(self) -> bool:
        """Whether it is for the cluster alone."""
        return self in (NetworkRole.CLUSTER, NetworkRole.MIGRATION, NetworkRole.CSV)


@dataclass(frozen=True, slots=True)
class Network:
    """A cluster network. ``metric`` 0: the cluster works it out; ``subnet``: where its NICs are, or empty."""

    name: str
    role: NetworkRole
    metric: int = 0
    subnet: str = ""

    def validate(self) -> None:
        """Raise ValueError if a field is out of range."""
        validate_name(self.name, "network name")
        if not 0 <= self.metric <= METRIC_MAX:
            raise ValueError(
                f"metric {self.metric} of network {self.name} is out of range: from 1 to {METRIC_MAX}, "
                "or 0 to leave it to the cluster"
            )
        if self.subnet:
            _subnet(self)

    def contains(self, address: str) -> bool:
        """Whether an IP address belongs to it; without a subnet, any does."""
        return not self.subnet or ipaddress.ip_address(address) in _subnet(self)


def _subnet(network: Network) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(network.subnet)
    except ValueError:
        raise ValueError(
            f"subnet {network.subnet[:80]!r} of network {network.name} is no subnet: write it as 10.0.1.0/24"
        ) from None


@dataclass(frozen=True, slots=True)
class Nic:
    """A host's adapter to a network. ``address``: an IP address; ``rate_bytes_per_s`` 0: not shaped.

    ``latency_s``: that it adds to what passes, one way. ``team``: the name of one of the host's teams, or
    empty.
    """

    name: str
    network: str
    address: str
    rate_bytes_per_s: int = 0
    latency_s: float = 0.0
    mtu: int = MTU_STANDARD
    rdma: bool = False
    team: str = ""

    def validate(self) -> None:
        """Raise ValueError if a field is out of range."""
        validate_name(self.name, "NIC name")
        validate_name(self.network, f"network name of NIC {self.name}")
        if self.team:
            validate_name(self.team, f"team name of NIC {self.name}")
        _check_address(self)
        rate = self.rate_bytes_per_s
        if rate and not RATE_BYTES_PER_S_MIN <= rate <= RATE_BYTES_PER_S_MAX:
            raise ValueError(
                f"rate of {rate} bytes per second of NIC {self.name} is out of range: "
                "from 8kbit/s to 400Gbit/s"
            )
        if not 0 <= self.latency_s <= LATENCY_S_MAX:
            raise ValueError(
                f"latency of {self.latency_s:g} s of NIC {self.name} is out of range: from 0s to "
                f"{LATENCY_S_MAX:g}s"
            )
        if not MTU_MIN <= self.mtu <= MTU_MAX:
            raise ValueError(
                f"MTU {self.mtu} of NIC {self.name} is out of range: from {MTU_MIN} to {MTU_MAX} bytes"
            )


def _check_address(nic: Nic) -> None:
    try:
        address = adapter_address(nic.address)
    except ValueError as problem:
        raise ValueError(f"NIC {nic.name}: {problem}") from None
    if address != nic.address:
        raise ValueError(f"address {nic.address!r} of NIC {nic.name} is to be written as {address}")


def adapter_address(text: str) -> str:
    """An IP address that one adapter can have, as it is to be written. Raises ValueError.

    An IPv4 address in the clothes of IPv6 (::ffff:10.0.1.5) is that IPv4 address.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(
            f"address {text[:80]!r} is no IP address: write it as 10.0.1.5, without port"
        ) from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"address {address} is not that of one adapter")
    return str(address)


class TeamMode(StrEnum):
    """How a team spreads its traffic over its members (LoadBalancingAlgorithm of New-NetLbfoTeam)."""

    STATIC = "static"
    """Each flow is hashed to a member (TransportPorts): one stream is never faster than one NIC."""
    DYNAMIC = "dynamic"
    """Flowlets, from era 2012r2 on: one transfer is spread over all members."""


@dataclass(frozen=True, slots=True)
class Team:
    """NICs of one host and one network that act as one; each NIC names its own."""

    name: str
    mode: TeamMode

    def validate(self) -> None:
        """Raise ValueError if the name is malformed."""
        validate_name(self.name, "team name")


@dataclass(frozen=True, slots=True)
class NicFault:
    """A NIC that is down, and why."""

    nic: str
    reason: str


class NicState(StrEnum):
    """What people see of a NIC. ``unavailable``: its node is not up (ClusterNetInterfaceUnavailable)."""

    UP = "up"
    DOWN = "down"
    UNAVAILABLE = "unavailable"


class NetworkState(StrEnum):
    """What people see of a network: the states of Windows' CLUSTER_NETWORK_STATE.

    ``partitioned``: a NIC of it is down, but not all. ``down``: all are. ``unavailable``: no node with a NIC
    of it is up.
    """

    UP = "up"
    PARTITIONED = "partitioned"
    DOWN = "down"
    UNAVAILABLE = "unavailable"


def path_mtu(one: Nic, other: Nic) -> int:
    """Bytes of a frame's payload between two NICs.

    Jumbo frames must agree end to end: where they do not, neither end uses them.
    """
    return one.mtu if one.mtu == other.mtu else min(one.mtu, other.mtu, MTU_STANDARD)


# --- rules for all NICs of a host, and for all networks of a cluster ------------------------------------


def nics_problem(nics: Sequence[Nic], teams: Sequence[Team]) -> Refusal | None:
    """What is against these NICs and teams of one host, each of which is valid by itself; or None."""
    if len(nics) > NICS_MAX:
        return refused("nic limit", f"{len(nics)} NICs are too many: at most {NICS_MAX}")
    for rule, what, names in (
        ("nic names", "NIC", [nic.name for nic in nics]),
        ("nic addresses", "address", [nic.address for nic in nics]),
        ("team names", "team", [team.name for team in teams]),
    ):
        if (twice := _first_twice(names)) is not None:
            return refused(rule, f"{what} {twice} is there twice", "give each one of its own")
    for team in teams:
        if (problem := _team_problem(team, [nic for nic in nics if nic.team == team.name])) is not None:
            return problem
    known = {team.name for team in teams}
    for nic in nics:
        if nic.team and nic.team not in known:
            what = f"NIC {nic.name} is in team {nic.team}, which nobody has described"
            return refused("known team", what, f"describe it: --team name={nic.team},mode=dynamic")
    return None


def _team_problem(team: Team, members: list[Nic]) -> Refusal | None:
    if not members:
        return refused("team members", f"team {team.name} has no NIC", "name it in a NIC, or leave it out")
    for nic in members:
        if nic.rdma:
            what = f"NIC {nic.name} has RDMA and is in team {team.name}: a team and RDMA exclude each other"
            return refused("rdma in a team", what, "take the NIC out of the team, or leave its RDMA out")
        if nic.network != members[0].network:
            what = (
                f"team {team.name} has NICs of two networks: {members[0].name} of {members[0].network} and "
                f"{nic.name} of {nic.network}"
            )
            return refused("team of one network", what, "make a team for each network")
    return None


def networks_problem(networks: Sequence[Network]) -> Refusal | None:
    """What is against these networks of one cluster, each of which is valid by itself; or None."""
    if len(networks) > NETWORKS_MAX:
        return refused("network limit", f"{len(networks)} networks are too many: at most {NETWORKS_MAX}")
    if (twice := _first_twice(network.name for network in networks)) is not None:
        return refused("network names", f"network {twice} is there twice", "give each a name of its own")
    for index, one in enumerate(networks):
        for other in networks[:index]:
            if one.subnet and other.subnet and _overlap(one, other):
                what = (
                    f"subnets of networks {other.name} ({other.subnet}) and {one.name} ({one.subnet}) overlap"
                )
                return refused("subnets", what, "give each network a subnet of its own")
    return None


def _overlap(one: Network, other: Network) -> bool:
    ours, theirs = _subnet(one), _subnet(other)
    return ours.version == theirs.version and (
        ours.network_address in theirs or theirs.network_address in ours
    )


def membership_problem(nics: Iterable[Nic], networks: Sequence[Network]) -> Refusal | None:
    """Why NICs do not fit into these networks, or None."""
    by_name = {network.name: network for network in networks}
    for nic in nics:
        network = by_name.get(nic.network)
        if network is None:
            known = ", ".join(by_name) or "none"
            what = f"NIC {nic.name} is of network {nic.network}, and the cluster has no such network: {known}"
            return refused(
                "known network", what, "name one of those, or start the coordinator with --network"
            )
        if not network.contains(nic.address):
            what = f"address {nic.address} of NIC {nic.name} is not in {network.subnet}, the subnet of "
            return refused("subnet", f"{what}{network.name}", "give it an address of that subnet")
    return None


def _first_twice(names: Iterable[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)
