"""What the coordinator can be told: options of ``ferry coordinator run``, the environment or a TOML file."""

from collections.abc import Sequence
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from ferry_types.eras import Era
from ferry_types.names import validate_name
from ferry_types.network_words import parse_network
from ferry_types.networks import Network, NetworkRole, networks_problem
from ferry_types.profiles import PROFILES, LeaseTiming
from ferry_types.resiliency import RESILIENCY_PERIOD_S, timing_of
from ferry_wire.process_settings import DirectoryPath, Duration, ObservedSettings, Shown, repeated

PROGRAM: Final = "ferry coordinator run"


def _cluster_name(text: str) -> str:
    return validate_name(text, "cluster name")


def _profile(text: str) -> str:
    if text not in PROFILES:
        raise ValueError(f"{text!r} is not one of {', '.join(PROFILES)}")
    return text


class CoordinatorSettings(ObservedSettings):
    """Runs the coordinator of a cluster: the process that knows who may run each VM."""

    model_config = SettingsConfigDict(env_prefix="FERRY_COORDINATOR_")

    cluster: Annotated[str, AfterValidator(_cluster_name)] = Field(
        default="cluster", description="name of the cluster"
    )
    dir: DirectoryPath = Field(description="data directory of its own; holds the cluster's store")
    profile: Annotated[str, AfterValidator(_profile), Shown("|".join(PROFILES))] = Field(
        default="windows",
        description="how often hosts renew their leases, and how soon one that does not is lost: "
        + "; ".join(
            f"{name}: {timing.beat_s:g} s, {timing.lease_s:g} s" for name, timing in PROFILES.items()
        ),
    )
    force_quorum: bool = Field(
        default=False,
        description="UNSAFE: until this process ends, give up hosts that renew no lease without a majority's "
        "word; only when you know that the hosts that do not join are dead",
    )
    era: Era = Field(default=Era.WS2012R2, description="functional level of the cluster")
    network: Annotated[
        tuple[Network, ...],
        NoDecode,
        BeforeValidator(repeated(parse_network)),
        Shown(f"name=NAME,role={'|'.join(NetworkRole)}[,metric=NUMBER][,subnet=SUBNET]"),
    ] = Field(
        default=(),
        description="a network that hosts may have NICs of (may be given several times); the lowest metric "
        "is preferred, and without one the cluster works it out",
    )
    resiliency_period: Duration | None = Field(
        default=None,
        description="era 2016: how long a silent node's VMs are left alone before it is given up; else "
        f"{RESILIENCY_PERIOD_S['windows']:g} s, or {RESILIENCY_PERIOD_S['fast']:g} s in profile fast",
    )

    @model_validator(mode="after")
    def _has_a_timing(self) -> Self:
        try:
            timing_of(self.profile, self.era, self.resiliency_period)
        except ValueError as problem:
            raise ValueError(f"--resiliency-period: {problem}") from None
        return self

    @model_validator(mode="after")
    def _has_sound_networks(self) -> Self:
        if (problem := networks_problem(self.network)) is not None:
            raise ValueError(f"--network: {problem.message}; {problem.hint} ({problem.rule})")
        return self

    @property
    def timing(self) -> LeaseTiming:
        """The profile's beat and lease; from era 2016 on the resiliency period in place of the lease."""
        return timing_of(self.profile, self.era, self.resiliency_period)


def load_settings(arguments: Sequence[str] | None = None) -> CoordinatorSettings:
    """The settings of this process. Exits with a message if they are not valid, or after ``--help``."""
    return CoordinatorSettings.from_command_line(PROGRAM, arguments)
