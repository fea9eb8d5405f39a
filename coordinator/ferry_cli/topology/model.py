"""A topology file as values: networks, hosts with their NICs and teams, VMs with their rules.

``load`` refuses whatever is not well formed or does not fit together, with lines and fields, before anything
is started.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from ferry_cli.topology.known import misfits
from ferry_sim.scenarios import document, model
from ferry_sim.scenarios.addresses import deal
from ferry_sim.scenarios.document import Malformed
from ferry_sim.scenarios.fields import ENTRIES_MAX, Count, EraName, Name, ProcessorModel, SizeBytes
from ferry_sim.scenarios.wiring import RATE_SCHEMA, HostNic, Network, Wiring
from ferry_types.limits import (
    HOST_MEMORY_BYTES_MAX,
    MIGRATION_LIMIT_MAX,
    VM_MEMORY_BYTES_MAX,
    VM_MEMORY_BYTES_MIN,
)
from ferry_types.links import TrafficClass
from ferry_types.migrations import TransportOption
from ferry_types.network_words import limit_rate, share_weight
from ferry_types.networks import NETWORKS_MAX, NICS_MAX, Nic, Team, TeamMode
from ferry_types.networks import Network as ClusterNetwork
from ferry_types.qos import WEIGHT_SUM, QosPolicy
from ferry_types.roles import validate_names
from ferry_types.scale import SCALE_MAX

PROBLEMS_MAX: Final = 50
"""That are told of one file."""

PROCESSORS_MAX: Final = 320
VM_MEMORY_BYTES_DEFAULT: Final = 256 * 2**20
"""As ``ferry vm create`` has it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _empty_if_null(value: Any) -> Any:
    """``node1:`` with nothing behind it is a host of which nothing is said."""
    return {} if value is None else value


ClassLimit = Annotated[
    int,
    BeforeValidator(lambda given: limit_rate(given, "limit")),
    RATE_SCHEMA,
]
ShareWeight = Annotated[
    int,
    BeforeValidator(share_weight),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": WEIGHT_SUM}),
]


class ClassShare(_Part):
    """What a class of traffic gets of each NIC of a host, each team counting as one, in each direction."""

    limit: ClassLimit | None = Field(default=None, description="at most; else all that is free")
    weight: ShareWeight | None = Field(
        default=None,
        description="per cent of a NIC that others want, too; else a part of what they leave",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.limit is None and self.weight is None:
            raise ValueError("give it a limit, a weight or both, or leave it out")
        return self

    def value(self, traffic_class: TrafficClass) -> QosPolicy:
        """What a host's agent is told."""
        return QosPolicy(traffic_class, self.limit or 0, self.weight or 0)


Qos = dict[TrafficClass, ClassShare]


class Host(_Part):
    """A host of the cluster; what is not said is as ``ferry lab up`` and the agent have it."""

    memory: SizeBytes | None = Field(
        default=None,
        ge=VM_MEMORY_BYTES_MIN,
        le=HOST_MEMORY_BYTES_MAX,
        description="what its VMs may use together",
    )
    processors: Count | None = Field(default=None, ge=1, le=PROCESSORS_MAX, description="logical processors")
    migration_limit: Count | None = Field(
        default=None, ge=1, le=MIGRATION_LIMIT_MAX, description="live migrations at a time"
    )
    migration_option: TransportOption | None = Field(
        default=None, description="how VMs leave it, unless a move says otherwise"
    )
    processor: ProcessorModel | None = Field(default=None, description="vendor:generation")
    switches: tuple[Name, ...] | None = Field(default=None, description="its virtual switches")
    domain: Name | None = Field(default=None, description="Active Directory domain that it belongs to")
    level: EraName | None = Field(default=None, description="Windows release that it plays; else the era")
    teams: dict[Name, TeamMode] = Field(default_factory=dict, description="teams of NICs, and their modes")
    nics: dict[Name, HostNic] = Field(default_factory=dict, max_length=NICS_MAX)
    qos: Qos = Field(
        default_factory=dict, description="what classes of traffic get of its NICs; else as for all hosts"
    )

    @model_validator(mode="after")
    def _has_switches(self) -> Self:
        validate_names(self.switches or (), "switch name")
        return self


class Vm(model.Vm):
    """A VM that is created once all hosts are up, unless the lab has it already."""

    memory: SizeBytes = Field(
        default=VM_MEMORY_BYTES_DEFAULT,
        ge=VM_MEMORY_BYTES_MIN,
        le=VM_MEMORY_BYTES_MAX,
        description="at least 4MiB",
    )


class Topology(_Part):
    """The networks, hosts and VMs of a lab."""

    scale: int | None = Field(
        default=None,
        ge=1,
        le=SCALE_MAX,
        description="how much smaller memory and rates really are than all figures say; else 1",
    )
    networks: dict[Name, Network] = Field(default_factory=dict, max_length=NETWORKS_MAX)
    hosts: dict[Name, Annotated[Host, BeforeValidator(_empty_if_null)]] = Field(
        min_length=1, max_length=model.NODES_MAX
    )
    qos: Qos = Field(
        default_factory=dict, description="what classes of traffic get of the NICs of every host that has any"
    )
    vms: dict[Name, Annotated[Vm, BeforeValidator(_empty_if_null)]] = Field(
        default_factory=dict, max_length=ENTRIES_MAX
    )

    @property
    def wiring(self) -> Wiring:
        """Networks and hosts."""
        return Wiring(self.networks, self.hosts, "hosts")

    @property
    def network_values(self) -> tuple[ClusterNetwork, ...]:
        """What the coordinator is told."""
        return self.wiring.network_values

    def nic_values(self, host: str) -> tuple[Nic, ...]:
        """The NICs of a host, with addresses."""
        dealt = deal(self.wiring)
        return tuple(nic.value(name, dealt[host, name]) for name, nic in self.hosts[host].nics.items())

    def team_values(self, host: str) -> tuple[Team, ...]:
        """The teams of a host."""
        return tuple(Team(name, mode) for name, mode in self.hosts[host].teams.items())

    def qos_values(self, host: str) -> tuple[QosPolicy, ...]:
        """What classes of traffic get of a host's NICs: what it says of each itself, else what all have."""
        own = self.hosts[host]
        given = {**(self.qos if own.nics else {}), **own.qos}
        return tuple(share.value(traffic_class) for traffic_class, share in given.items())


def read(path: Path, scale: int = 1) -> Topology:
    """The topology of a file. Raises Malformed, or OSError if it cannot be read.

    ``scale``: that of the lab, if the file says none.
    """
    return load(document.read_text(path), scale)


def load(text: str, scale: int = 1) -> Topology:
    """The topology of a text. Raises Malformed with the lines and fields of what is wrong."""
    found = document.parse(text)
    try:
        topology = Topology.model_validate(found.value)
    except ValidationError as error:
        raise Malformed(*document.problems(found, error, PROBLEMS_MAX)) from None
    wrong = misfits(topology, topology.scale or scale)
    if wrong:
        told = (document.at(found, each.place, each.what) for each in wrong[:PROBLEMS_MAX])
        raise Malformed(*told, rule=wrong[0].rule)
    return topology
