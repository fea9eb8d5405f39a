"""Networks, NICs and teams as files describe them: the same words in scenarios and in topologies."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ferry_sim.scenarios.fields import Count, Name, Seconds
from ferry_types.links import MTU_MAX, MTU_MIN, MTU_STANDARD
from ferry_types.network_words import limit_rate
from ferry_types.networks import LATENCY_S_MAX, METRIC_MAX, NetworkRole, Nic, TeamMode, adapter_address
from ferry_types.networks import Network as ClusterNetwork


def _subnet(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no subnet: write it as 10.0.1.0/24") from None


IpAddress = Annotated[
    str, AfterValidator(adapter_address), WithJsonSchema({"type": "string", "examples": ["127.1.1.1"]})
]
Subnet = Annotated[
    str, AfterValidator(_subnet), WithJsonSchema({"type": "string", "examples": ["127.1.0.0/24"]})
]
RATE_SCHEMA: Final = WithJsonSchema(
    {
        "anyOf": [{"type": "string"}, {"type": "integer", "minimum": 1}],
        "description": "bytes per second, with their unit",
        "examples": ["10Gbit/s"],
    }
)
LimitBytesPerS = Annotated[int, BeforeValidator(limit_rate), RATE_SCHEMA]


class Network(BaseModel):
    """A cluster network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: NetworkRole = Field(description="what it is there for")
    metric: Count | None = Field(
        default=None,
        ge=1,
        le=METRIC_MAX,
        description="the lowest is preferred; else the cluster works it out",
    )
    subnet: Subnet | None = Field(default=None, description="where its NICs are; else anywhere")


class HostNic(BaseModel):
    """A host's adapter to a network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: Name = Field(description="one of networks")
    address: IpAddress | None = Field(default=None, description="else the lab deals one out")
    rate: LimitBytesPerS | None = Field(default=None, description="its speed; else it is not shaped")
    latency: Seconds = Field(default=0.0, le=LATENCY_S_MAX, description="that it adds, one way")
    mtu: Count = Field(default=MTU_STANDARD, ge=MTU_MIN, le=MTU_MAX, description="bytes; jumbo frames: 9000")
    rdma: bool = Field(default=False, description="whether it has RDMA, which excludes a team")
    team: Name | None = Field(default=None, description="one of the host's teams")

    def value(self, name: str, address: str) -> Nic:
        """What the host's agent is told."""
        return Nic(
            name,
            self.network,
            address,
            self.rate or 0,
            round(self.latency, 9),  # 50us is not 4.9999999999999996e-05
            self.mtu,
            self.rdma,
            self.team or "",
        )


class Wired(Protocol):
    """A host, as far as it is wired."""

    @property
    def nics(self) -> Mapping[str, HostNic]:
        """By name."""

    @property
    def teams(self) -> Mapping[str, TeamMode]:
        """By name."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """All networks and hosts of a file. ``where``: the field that has the hosts, ``hosts`` or ``nodes``."""

    networks: Mapping[str, Network]
    hosts: Mapping[str, Wired]
    where: str

    @property
    def noun(self) -> str:
        """What one of the hosts is called."""
        return self.where.removesuffix("s")

    @property
    def network_values(self) -> tuple[ClusterNetwork, ...]:
        """What the coordinator is told."""
        return tuple(
            ClusterNetwork(name, network.role, network.metric or 0, network.subnet or "")
            for name, network in self.networks.items()
        )
