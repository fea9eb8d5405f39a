"""What admins tell a cluster about its VMs as roles: where each may run, and when it fails over and back.

The words are those of Failover Clustering's groups and of Hyper-V's settings.
"""

from dataclasses import dataclass, fields, replace
from enum import StrEnum

from ferry_types.names import validate_name

SWITCH_DEFAULT = "external"
"""The virtual switch that a host has, and a VM uses, unless told otherwise."""

NAMES_MAX = 64
"""Owners, classes or switches in one list: as many as a cluster has nodes."""

FAILOVER_PERIOD_S_DEFAULT = 6 * 3600.0
"""Six hours: the ``FailoverPeriod`` of a group."""

HOURS_A_DAY = 24

PRIORITY = "priority"
"""Name of the one change that is not of ``RoleRules``."""


class Priority(StrEnum):
    """Order of start, and who makes room for whom; ``none`` stays off after a failover."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


class Failback(StrEnum):
    """When a VM goes back to the owner that it prefers: never by itself, at once, or in certain hours."""

    OFF = "off"
    NOW = "now"
    WINDOW = "window"


@dataclass(frozen=True, slots=True)
class RoleRules:
    """What the cluster heeds when it chooses a host for a VM.

    ``possible_owners``: nodes that may run it; empty: all. ``preferred_owners``: in order; the others come
    after them. ``anti_affinity``: classes; VMs that share one are kept on different hosts.
    ``failback_from_hour`` and ``failback_until_hour``: UTC, the second is not part of it; across midnight if
    it is not the later one. ``failover_threshold``: failovers within the period after which it stays failed;
    0: without end. ``processor_compatibility``: its guest sees no feature that older models lack.
    """

    possible_owners: tuple[str, ...] = ()
    preferred_owners: tuple[str, ...] = ()
    anti_affinity: tuple[str, ...] = ()
    failback: Failback = Failback.OFF
    failback_from_hour: int = 0
    failback_until_hour: int = 0
    failover_threshold: int = 0
    failover_period_s: float = FAILOVER_PERIOD_S_DEFAULT
    start_delay_s: float = 0.0
    switch: str = SWITCH_DEFAULT
    processor_compatibility: bool = False

    def validate(self) -> None:
        """Raise ValueError if a field is out of range or malformed; whether the names exist is not its."""
        for what, names in (
            ("possible owner", self.possible_owners),
            ("preferred owner", self.preferred_owners),
            ("anti-affinity class", self.anti_affinity),
        ):
            validate_names(names, what)
        validate_name(self.switch, "switch name")
        for hour in (self.failback_from_hour, self.failback_until_hour):
            if not 0 <= hour < HOURS_A_DAY:
                raise ValueError(f"hour {hour} of the failback window is out of range: from 0 to 23")
        if self.failover_threshold < 0:
            raise ValueError(f"failover threshold {self.failover_threshold} is negative")
        if not 1 <= self.failover_period_s <= 7 * 86400:
            raise ValueError(f"failover period {self.failover_period_s:g} s is out of range: from 1s to 168h")
        if not 0 <= self.start_delay_s <= 3600:
            raise ValueError(f"start delay {self.start_delay_s:g} s is out of range: from 0s to 1h")


NO_RULES = RoleRules()
"""Those of a VM that nobody has said anything about."""


def validate_names(names: tuple[str, ...], what: str) -> None:
    """Raise ValueError if one is malformed or there twice, or they are too many."""
    for name in names:
        validate_name(name, what)
        if names.count(name) > 1:
            raise ValueError(f"{what} {name} is named twice")
    if len(names) > NAMES_MAX:
        raise ValueError(f"{len(names)} are too many: a list of {what}s has at most {NAMES_MAX}")


@dataclass(frozen=True, slots=True)
class RoleChanges:
    """What an admin changes of a VM: ``priority`` and those of ``rules`` whose names are in ``fields``."""

    fields: tuple[str, ...]
    priority: Priority
    rules: RoleRules

    def of_rules(self, present: RoleRules) -> RoleRules:
        """The rules after the change."""
        changed = {name: getattr(self.rules, name) for name in self.fields if name != PRIORITY}
        return replace(present, **changed)

    def validate(self) -> None:
        """Raise ValueError if it names a field that does not exist, or nothing."""
        known = {PRIORITY, *(field.name for field in fields(RoleRules))}
        for name in self.fields:
            if name not in known:
                raise ValueError(f"a VM has no rule {name!r}")
        if not self.fields:
            raise ValueError("nothing is to be changed")
        self.rules.validate()
