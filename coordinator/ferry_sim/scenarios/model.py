"""A scenario file as values: a topology, a timeline of steps, and what must come of it.

``load`` refuses whatever is not well formed, and every name that the file does not know, before anything
runs.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from ferry_sim.scenarios import document
from ferry_sim.scenarios.addresses import deal
from ferry_sim.scenarios.document import Malformed
from ferry_sim.scenarios.expectations import Drain, End, Event, Move, Part
from ferry_sim.scenarios.fields import (
    ENTRIES_MAX,
    EraName,
    FillKind,
    Moment,
    Name,
    ProcessorModel,
    ProfileName,
    RateBytesPerS,
    Seconds,
    SizeBytes,
    WorkloadName,
)
from ferry_sim.scenarios.grammar import RESERVED, parse_step
from ferry_sim.scenarios.guest_words import make_spec
from ferry_sim.scenarios.known import NOBODY, unknown_names
from ferry_sim.scenarios.miswired import misscaled, miswired
from ferry_sim.scenarios.steps import SetPolicy, Step
from ferry_sim.scenarios.wiring import HostNic, Network, Wiring
from ferry_types.eras import RULES, Era
from ferry_types.limits import MIGRATION_LIMIT_DEFAULT, MIGRATION_LIMIT_MAX
from ferry_types.migrations import BEST, TransportOption
from ferry_types.networks import NETWORKS_MAX, NICS_MAX, NetworkRole, Team, TeamMode
from ferry_types.networks import Network as ClusterNetwork
from ferry_types.roles import (
    FAILOVER_PERIOD_S_DEFAULT,
    SWITCH_DEFAULT,
    Failback,
    Priority,
    RoleRules,
    validate_names,
)
from ferry_types.scale import SCALE_MAX
from ferry_types.units import format_size
from ferry_types.vms import DOMAIN_DEFAULT, PROCESSOR_DEFAULT, Capacity, VmSpec
from ferry_types.workloads import AccessPattern, Fill, FillSpec

KNOWN_NAMES: Final = "known names"
"""Rule that refuses a file for a name that it has not introduced."""

PROBLEMS_MAX: Final = 5
"""That are told of one file."""

NODES_MAX: Final = max(rules.nodes_max for rules in RULES.values())
MEMORY_BYTES_DEFAULT: Final = 256 * 2**20
VM_MEMORY_BYTES_DEFAULT: Final = 16 * 2**20
WALL_CLOCK_DEFAULT: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _empty_if_null(value: Any) -> Any:
    """``n1:`` with nothing behind it is a node of which nothing is said."""
    return {} if value is None else value


def _of_network(value: Any) -> Any:
    """A NIC of which only the network is said."""
    return {"network": value} if isinstance(value, str) else value


def _of_role(value: Any) -> Any:
    """A network of which only the role is said."""
    if not isinstance(value, str):
        return value
    if value not in tuple(NetworkRole):
        raise ValueError(f"{value!r} is not one of {', '.join(NetworkRole)}")
    return {"role": value}


# --- topology -------------------------------------------------------------------------------------


class Node(Part):
    """A host of the cluster, and what it offers."""

    memory: SizeBytes = Field(default=MEMORY_BYTES_DEFAULT, description="what its VMs may use together")
    processors: int = Field(default=2, ge=1, le=320, description="logical processors")
    migration_limit: int = Field(
        default=MIGRATION_LIMIT_DEFAULT, ge=1, le=MIGRATION_LIMIT_MAX, description="live migrations at a time"
    )
    processor: ProcessorModel = Field(default=PROCESSOR_DEFAULT, description="vendor:generation")
    switches: tuple[Name, ...] = Field(default=(SWITCH_DEFAULT,), description="its virtual switches")
    domain: Name = Field(default=DOMAIN_DEFAULT, description="Active Directory domain that it belongs to")
    level: EraName | None = Field(default=None, description="Windows release that it plays; else the era")
    migration_option: TransportOption | None = Field(
        default=None, description="how VMs leave it, unless a move says otherwise"
    )
    teams: dict[Name, TeamMode] = Field(default_factory=dict, description="teams of NICs, and their modes")
    nics: dict[Name, Annotated[HostNic, BeforeValidator(_of_network)]] = Field(
        default_factory=dict, max_length=NICS_MAX, description="NICs; the network alone, or more of each"
    )

    @property
    def capacity(self) -> Capacity:
        """What it tells the cluster of itself."""
        return Capacity(
            self.memory,
            self.processors,
            self.migration_limit,
            self.processor,
            self.switches,
            self.domain,
            self.level or "",
            teams=tuple(Team(name, mode) for name, mode in self.teams.items()),
            migration_option=self.migration_option,
        )


class Window(Part):
    """Hours, UTC; across midnight if the second is not the later one."""

    from_hour: int = Field(ge=0, le=23, alias="from")
    until_hour: int = Field(ge=0, le=23, alias="until")


class Vm(Part):
    """A VM that is there, and runs, when the timeline begins."""

    memory: SizeBytes = Field(default=VM_MEMORY_BYTES_DEFAULT, description="at least 4MiB")
    node: Name | None = Field(default=None, description="where it starts; else where it fits best")
    start: bool = Field(default=True, description="whether it is on")
    fill: FillKind = Field(default=FillSpec(Fill.ZERO), description="what memory holds when it boots")
    workload: WorkloadName = Field(default="idle", description="what its guest does; the rest as that has it")
    write_rate: RateBytesPerS | None = Field(default=None, description="memory that its guest writes")
    read_rate: RateBytesPerS | None = Field(default=None, description="memory that its guest reads")
    working_set: SizeBytes | None = Field(default=None, description="memory that its guest works on")
    access: AccessPattern | None = Field(default=None, description="how its guest chooses pages of it")
    compressibility: float | None = Field(
        default=None, ge=0, le=1, description="share of each written page that is constant"
    )
    priority: Priority = Field(default=Priority.MEDIUM, description="order of start; none: no failover")
    possible: tuple[Name, ...] = Field(default=(), description="nodes that may run it; none named: all")
    preferred: tuple[Name, ...] = Field(default=(), description="nodes that it prefers, in order")
    anti_affinity: tuple[Name, ...] = Field(default=(), description="VMs that share a class are kept apart")
    failback: Literal[Failback.OFF, Failback.NOW] | Window = Field(
        default=Failback.OFF, description="when it goes back to the node that it prefers"
    )
    failover_threshold: int = Field(default=0, ge=0, description="after so many it stays failed; 0: never")
    failover_period: Seconds = Field(default=FAILOVER_PERIOD_S_DEFAULT, description="within which they count")
    start_delay: Seconds = Field(default=0.0, description="how long it waits after a failover")
    switch: Name = Field(default=SWITCH_DEFAULT, description="virtual switch that it needs")
    processor_compatibility: bool = Field(default=False, description="hides features that older models lack")

    @field_validator("failback", mode="before")
    @classmethod
    def _is_failback(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in (Failback.OFF, Failback.NOW):
            raise ValueError(f"{value!r} is not a failback: off, now, or hours as {{from: 22, until: 5}}")
        return value

    @model_validator(mode="after")
    def _is_valid(self) -> Self:
        self.rules.validate()
        self.spec("vm")
        return self

    @property
    def rules(self) -> RoleRules:
        """What the cluster heeds about it."""
        window = self.failback if isinstance(self.failback, Window) else None
        return RoleRules(
            possible_owners=self.possible,
            preferred_owners=self.preferred,
            anti_affinity=self.anti_affinity,
            failback=Failback.WINDOW if isinstance(self.failback, Window) else self.failback,
            failback_from_hour=window.from_hour if window else 0,
            failback_until_hour=window.until_hour if window else 0,
            failover_threshold=self.failover_threshold,
            failover_period_s=self.failover_period,
            start_delay_s=self.start_delay,
            switch=self.switch,
            processor_compatibility=self.processor_compatibility,
        )

    def spec(self, name: str) -> VmSpec:
        """All that a host needs to boot it."""
        chosen = {
            "write_rate_bytes_per_s": self.write_rate,
            "read_rate_bytes_per_s": self.read_rate,
            "working_set_bytes": self.working_set,
            "access": self.access,
            "compressibility": self.compressibility,
        }
        return make_spec(name, self.memory, self.workload, self.priority, self.fill, chosen)


class Cluster(Part):
    """What is chosen for the whole cluster; what is not named is as the product has it."""

    dynamic_quorum: bool | None = Field(default=None, description="whether votes follow nodes that are up")
    enforced_anti_affinity: bool | None = Field(
        default=None, description="VMs stay off rather than share a host"
    )
    quarantine_threshold: int | None = Field(default=None, ge=0, description="after so many losses; 0: never")
    quarantine_period: Seconds | None = Field(default=None, description="within which they count")
    quarantine_duration: Seconds | None = Field(default=None, description="for how long a node is kept out")

    @property
    def policy(self) -> SetPolicy | None:
        """What is asked for before the timeline; None: nothing."""
        wanted = SetPolicy(
            self.enforced_anti_affinity,
            self.quarantine_threshold,
            self.quarantine_period,
            self.quarantine_duration,
        )
        return None if wanted == SetPolicy() else wanted


# --- timeline -------------------------------------------------------------------------------------


class Line(Part):
    """One step of the timeline. A step may be written as its words alone."""

    step: str = Field(description="the step's words, as in power n1 off")
    refused: str | None = Field(
        default=None, description="name of the rule that must refuse it (or not_found, malformed, failed)"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_words(cls, value: Any) -> Any:
        return {"step": value} if isinstance(value, str) else value

    @field_validator("step")
    @classmethod
    def _is_a_step(cls, text: str) -> str:
        parse_step(text)
        return text

    @property
    def parsed(self) -> Step:
        """The step as a value."""
        return parse_step(self.step)


# --- the whole ----------------------------------------------------------------------------------------


class Scenario(Part):
    """What happens to a cluster, and what must come of it."""

    title: str = Field(min_length=1, max_length=200, description="what it shows, in a sentence")
    shows: str = Field(min_length=1, description="why that is so, for people who read it as documentation")
    rule: str = Field(min_length=1, max_length=80, description="name of the rule that it is about")
    era: EraName = Field(default=Era.WS2012R2, description="the functional level")
    profile: ProfileName = Field(
        default="fast", description="how often hosts renew their leases, and how long a lease holds"
    )
    resiliency_period: Seconds | None = Field(
        default=None, description="era 2016 alone, and there always: how long a silent node is left alone"
    )
    seed: int = Field(default=1, ge=0, description="of all chance on virtual time")
    wall_clock: Moment | None = Field(
        default=None, description="the hour at which it begins, with its zone; live it cannot be chosen"
    )
    migration_rate: RateBytesPerS = Field(
        default=0, description="at which memory is copied on virtual time; 0: within milliseconds"
    )
    scale: int = Field(
        default=1,
        ge=1,
        le=SCALE_MAX,
        description="how much smaller memory and rates really are than all figures say, live",
    )
    witness: bool = Field(default=True, description="whether the cluster has a file-share witness")
    cluster: Cluster = Cluster()
    networks: dict[Name, Annotated[Network, BeforeValidator(_of_role)]] = Field(
        default_factory=dict, max_length=NETWORKS_MAX, description="networks; the role alone, or more of each"
    )
    nodes: dict[Name, Annotated[Node, BeforeValidator(_empty_if_null)]] = Field(
        min_length=1, max_length=NODES_MAX
    )
    vms: dict[Name, Annotated[Vm, BeforeValidator(_empty_if_null)]] = Field(
        default_factory=dict, max_length=ENTRIES_MAX
    )
    steps: tuple[Line, ...] = Field(
        min_length=1, max_length=ENTRIES_MAX, description="what happens, in order"
    )
    within: Seconds = Field(
        default=30.0, description="how long after the last step all that follows may take to come true"
    )
    end: End = Field(default=End(), description="how things must be then")
    events: tuple[Event, ...] = Field(
        default=(), max_length=ENTRIES_MAX, description="what the log must have, in order, others between"
    )
    no_events: tuple[Event, ...] = Field(
        default=(), max_length=ENTRIES_MAX, description="what it must not have"
    )
    moves: tuple[Move, ...] = Field(
        default=(), max_length=ENTRIES_MAX, description="moves that there must be, in order, others between"
    )
    drains: tuple[Drain, ...] = Field(default=(), max_length=ENTRIES_MAX, description="drains, with figures")
    uninterrupted: tuple[Name, ...] = Field(
        default=(), description="VMs whose guests never stop, but for the black-outs of moves"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in self.nodes:
            if name in (*RESERVED, NOBODY, BEST):
                raise ValueError(f"no node may be named {name}")
            if name in self.vms:
                raise ValueError(f"{name} is both a node and a VM")
        for name, node in self.nodes.items():
            validate_names(node.switches, "switch name")
            if node.memory < 4 * 2**20:
                raise ValueError(f"node {name} has too little memory: {format_size(node.memory)}")
        if RULES[self.era].resiliency != (self.resiliency_period is not None):
            raise ValueError("give resiliency_period in era 2016, and in no other")
        moves = self.moves or self.drains
        events = self.events or self.no_events
        if not (self.end.vms or self.end.nodes or events or moves or self.uninterrupted):
            raise ValueError(
                "nothing is expected: give end, events, no_events, moves, drains or uninterrupted"
            )
        return self

    @property
    def wiring(self) -> Wiring:
        """Networks and nodes."""
        return Wiring(self.networks, self.nodes, "nodes")

    @property
    def capacities(self) -> dict[str, Capacity]:
        """What each node tells the cluster of itself, with the addresses of its NICs."""
        dealt = deal(self.wiring)
        return {
            name: replace(
                node.capacity, nics=tuple(nic.value(key, dealt[name, key]) for key, nic in node.nics.items())
            )
            for name, node in self.nodes.items()
        }

    @property
    def network_values(self) -> tuple[ClusterNetwork, ...]:
        """What the coordinator is told."""
        return self.wiring.network_values

    @property
    def wall_clock_us(self) -> int:
        """Unix time, microseconds, at which the timeline begins."""
        return round((self.wall_clock or WALL_CLOCK_DEFAULT).timestamp() * 1e6)


# --- reading --------------------------------------------------------------------------------------


def read(path: Path) -> Scenario:
    """The scenario of a file. Raises Malformed, or OSError if it cannot be read."""
    return load(document.read_text(path))


def load(text: str) -> Scenario:
    """The scenario of a text. Raises Malformed with the lines and fields of what is wrong."""
    found = document.parse(text)
    try:
        scenario = Scenario.model_validate(found.value)
    except ValidationError as error:
        raise Malformed(*document.problems(found, error, PROBLEMS_MAX)) from None
    unknown = unknown_names(scenario)
    if unknown:
        problems = (document.at(found, each.place, each.what) for each in unknown[:PROBLEMS_MAX])
        raise Malformed(*problems, rule=KNOWN_NAMES)
    memory_bytes = {name: vm.memory for name, vm in scenario.vms.items()}
    wrong = [*miswired(scenario.wiring), *misscaled(scenario.wiring, memory_bytes, scenario.scale)]
    if wrong:
        told = (document.at(found, each.place, each.what) for each in wrong[:PROBLEMS_MAX])
        raise Malformed(*told, rule=wrong[0].rule)
    return scenario
