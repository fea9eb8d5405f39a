"""What the agent can be told: options of ``ferry agent run``, the environment or a TOML file."""

import os
from collections.abc import Sequence
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from ferry_types.eras import Era
from ferry_types.errors import FerryError
from ferry_types.limits import (
    HOST_MEMORY_BYTES_DEFAULT,
    HOST_MEMORY_BYTES_MAX,
    MIGRATION_LIMIT_DEFAULT,
    MIGRATION_LIMIT_MAX,
    VM_MEMORY_BYTES_MIN,
)
from ferry_types.links import TrafficClass
from ferry_types.migrations import TransportOption
from ferry_types.names import validate_name
from ferry_types.network_words import parse_nic, parse_qos, parse_team
from ferry_types.networks import Nic, Team, nics_problem
from ferry_types.qos import QosPolicy, qos_problem
from ferry_types.quorum import WITNESS
from ferry_types.roles import SWITCH_DEFAULT, validate_names
from ferry_types.scale import SCALE_MAX, rate_problem
from ferry_types.units import format_size, parse_duration
from ferry_types.vms import DOMAIN_DEFAULT, Capacity, Processor
from ferry_wire.addresses import Address, parse_address
from ferry_wire.process_settings import (
    LISTEN_DEFAULT,
    DirectoryPath,
    Duration,
    FilePath,
    ObservedSettings,
    OptionalListenAddress,
    PeerAddress,
    Shown,
    Size,
    checked_address,
    repeated,
)

PROGRAM: Final = "ferry agent run"

PROCESSORS_MAX: Final = 320
"""Logical processors of a host: Hyper-V 2012 and 2012 R2."""

GENERATION_MAX: Final = 99
"""Of a processor model: more than any vendor has brought out."""

CLOCK_OFFSET_S_MAX: Final = 100 * 365 * 86_400.0
"""A century: more than a clock is off that has begun again at 1970."""

COORDINATOR_VARIABLE: Final = "FERRY_COORDINATOR"
"""Names the coordinator to every command."""


def _node_name(text: str) -> str:
    if text == WITNESS:
        raise ValueError(f"node name {text!r} is the witness's: choose another one")
    return validate_name(text, "node name")


def _processor(text: str) -> str:
    vendor, _, generation = text.partition(":")
    if not (generation.isascii() and generation.isdigit() and 1 <= int(generation) <= GENERATION_MAX):
        raise ValueError(
            f"{text!r} is no processor model: give a vendor and a generation from 1 to {GENERATION_MAX}, "
            "such as intel:4"
        )
    return f"{validate_name(vendor, 'processor vendor')}:{int(generation)}"


def _switches(text: str) -> str:
    names = tuple(text.split(",")) if text else ()
    validate_names(names, "switch name")
    return text


def _domain(text: str) -> str:
    return validate_name(text, "domain")


def _signed_duration(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip()
    magnitude_s = parse_duration(text.removeprefix("-"))
    return -magnitude_s if text.startswith("-") else magnitude_s


def _clock_offset(offset_s: float) -> float:
    if not abs(offset_s) <= CLOCK_OFFSET_S_MAX:
        raise ValueError(f"a clock cannot be {offset_s:g} s off: at most {CLOCK_OFFSET_S_MAX:g} s")
    return offset_s


def _host_memory(size_bytes: int) -> int:
    if not VM_MEMORY_BYTES_MIN <= size_bytes <= HOST_MEMORY_BYTES_MAX:
        raise ValueError(
            f"memory of {format_size(size_bytes)} is out of range: from "
            f"{format_size(VM_MEMORY_BYTES_MIN)} to {format_size(HOST_MEMORY_BYTES_MAX)}"
        )
    return size_bytes


def _advertised_host(text: str) -> str:
    if text and _split_advertised(text).is_wildcard:
        raise ValueError(f"{text!r} means every address: give one that other hosts can reach")
    return text


def _split_advertised(text: str) -> Address:
    """``host`` or ``host:port``; port 0 if there is none."""
    has_port = ":" in text.rpartition("]")[2]
    return checked_address(text if has_port else f"{text}:0", any_port=True)


class AgentSettings(ObservedSettings):
    """Runs one host of a cluster: the process that holds its VMs' memory."""

    model_config = SettingsConfigDict(env_prefix="FERRY_AGENT_")

    name: Annotated[str, AfterValidator(_node_name)] = Field(description="name of the node")
    dir: DirectoryPath = Field(description="data directory of its own; holds the host's identity")
    coordinator: PeerAddress = Field(
        description=f"address of the coordinator; else taken from {COORDINATOR_VARIABLE}"
    )
    advertise: Annotated[str, AfterValidator(_advertised_host), Shown("HOST[:PORT]")] = Field(
        default="", description="under which address others reach it, if not the one that it listens on"
    )
    echo_listen: OptionalListenAddress = Field(
        default="",
        description="where its guests answer echo requests (UDP); without it, a free port beside --listen",
    )
    memory: Annotated[Size, AfterValidator(_host_memory)] = Field(
        default=HOST_MEMORY_BYTES_DEFAULT, description="what its VMs may use together"
    )
    scale: int = Field(
        default=1,
        ge=1,
        le=SCALE_MAX,
        description="how much smaller memory and rates really are than all figures say; the same on every "
        "host of a cluster",
    )
    processors: int = Field(
        default_factory=lambda: min(os.cpu_count() or 1, PROCESSORS_MAX),
        ge=1,
        le=PROCESSORS_MAX,
        description="logical processors that it reports",
    )
    migration_limit: int = Field(
        default=MIGRATION_LIMIT_DEFAULT,
        ge=1,
        le=MIGRATION_LIMIT_MAX,
        description="live migrations at a time, in and out together",
    )
    migration_option: Annotated[TransportOption, Shown("|".join(TransportOption))] = Field(
        default=TransportOption.TCPIP, description="how VMs leave it, unless a move says otherwise"
    )
    processor: Annotated[str, AfterValidator(_processor), Shown("VENDOR:GENERATION")] = Field(
        default="intel:1",
        description="processor model that it plays; a later generation has all that earlier ones had",
    )
    switches: Annotated[str, AfterValidator(_switches), Shown("NAME[,NAME...]")] = Field(
        default=SWITCH_DEFAULT, description="its virtual switches"
    )
    domain: Annotated[str, AfterValidator(_domain)] = Field(
        default=DOMAIN_DEFAULT, description="Active Directory domain that it belongs to"
    )
    level: Annotated[Era, Shown("|".join(Era))] | None = Field(
        default=None, description="Windows release that it plays; else that of its cluster"
    )
    nic: Annotated[
        tuple[Nic, ...],
        NoDecode,
        BeforeValidator(repeated(parse_nic)),
        Shown("name=NAME,network=NETWORK,address=IP[,rate=10Gbit/s][,latency=250us][,mtu=9000][,rdma=yes]"),
    ] = Field(
        default=(),
        description="a network adapter (may be given several times); it listens there, too, on the port of "
        "--listen; team=TEAM puts it into a team",
    )
    team: Annotated[
        tuple[Team, ...],
        NoDecode,
        BeforeValidator(repeated(parse_team)),
        Shown("name=NAME,mode=static|dynamic"),
    ] = Field(default=(), description="a team of adapters (may be given several times)")
    qos: Annotated[
        tuple[QosPolicy, ...],
        NoDecode,
        BeforeValidator(repeated(parse_qos)),
        Shown("class=CLASS[,limit=4Gbit/s][,weight=40]"),
    ] = Field(
        default=(),
        description="what a class of traffic gets of each NIC or team, each way: at most the limit, and at "
        "least weight per cent (1 to 100, in all at most 100); the classes are "
        f"{', '.join(TrafficClass)} (may be given several times)",
    )
    clock_offset: Annotated[
        float, BeforeValidator(_signed_duration), AfterValidator(_clock_offset), Shown("[-]DURATION")
    ] = Field(
        default=0.0,
        description="how far ahead its wall clock plays to be (behind: --clock-offset=-5m); only what ferry "
        "cluster validate is told of it changes",
    )
    watchdog_patience: Duration | None = Field(
        default=None,
        description="after how long a silence of the agent its watchdog kills it; else five leases",
    )
    failpoints: bool = Field(
        default=False, description="let tests hold, fail or crash it at each phase of a move"
    )
    trace: FilePath | None = Field(
        default=None, description="file to write into when which VM ran, to check the cluster's rules by"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: dict[str, Any]) -> dict[str, Any]:
        """What the absent settings are by those that are there."""
        completed = dict(given)
        if "coordinator" not in given and (coordinator := os.environ.get(COORDINATOR_VARIABLE)):
            completed["coordinator"] = coordinator
        if not given.get("echo_listen"):
            try:
                host = parse_address(str(given.get("listen", LISTEN_DEFAULT)), any_port=True).host
            except FerryError:
                return completed  # what is wrong with it is said about --listen
            completed["echo_listen"] = str(Address(host, 0))
        return completed

    @model_validator(mode="after")
    def _is_reachable(self) -> Self:
        listen = parse_address(self.listen, any_port=True)
        if self.advertise:
            port = _split_advertised(self.advertise).port
            if port not in {0, listen.port}:
                raise ValueError(
                    f"--advertise {self.advertise} names port {port}, but --listen {self.listen} does not: "
                    "name the same port, or none"
                )
        elif listen.is_wildcard or parse_address(self.echo_listen, any_port=True).is_wildcard:
            raise ValueError(
                f"no other host can connect to {listen.host}: give --advertise with an address of this "
                "machine that they can reach"
            )
        return self

    @model_validator(mode="after")
    def _has_sound_nics(self) -> Self:
        if (problem := nics_problem(self.nic, self.team)) is not None:
            raise ValueError(f"--nic, --team: {problem.message}; {problem.hint} ({problem.rule})")
        for nic in self.nic:
            if (problem := rate_problem(nic, self.scale)) is not None:
                raise ValueError(f"--nic, --scale: {problem.message}; {problem.hint} ({problem.rule})")
        if (problem := qos_problem(self.qos, has_nics=bool(self.nic))) is not None:
            raise ValueError(f"--qos: {problem.message}; {problem.hint} ({problem.rule})")
        listen = parse_address(self.listen, any_port=True)
        if self.nic and listen.is_wildcard:
            raise ValueError(
                f"--listen {self.listen} would answer for every NIC, also for one that is down: name one "
                "address of this machine that no NIC has (nic listens)"
            )
        for nic in self.nic:
            if nic.address == listen.host:
                raise ValueError(
                    f"--nic: {nic.name} has the agent's own address {nic.address} (--listen), which answers "
                    "whatever is down: give one of them another address (nic listens)"
                )
        return self

    @property
    def capacity(self) -> Capacity:
        """What it tells the cluster of itself."""
        vendor, _, generation = self.processor.partition(":")
        return Capacity(
            self.memory,
            self.processors,
            self.migration_limit,
            Processor(vendor, int(generation)),
            tuple(self.switches.split(",")) if self.switches else (),
            self.domain,
            self.level or "",
            self.nic,
            self.team,
            self.migration_option,
            self.qos,
            scale=self.scale,
        )

    def advertised(self, bound: str) -> str:
        """How peers reach what listens on ``bound`` (``host:port``): the advertised host, and its port."""
        if not self.advertise:
            return bound
        return str(Address(_split_advertised(self.advertise).host, parse_address(bound).port))


def load_settings(arguments: Sequence[str] | None = None) -> AgentSettings:
    """The settings of this process. Exits with a message if they are not valid, or after ``--help``."""
    return AgentSettings.from_command_line(PROGRAM, arguments)
