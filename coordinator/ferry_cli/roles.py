"""What an admin says of a VM as a role: the options of ``vm create`` and ``vm set``, and their values."""

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import typer

from ferry_cli.options import duration
from ferry_types.roles import NO_RULES, PRIORITY, Failback, Priority, RoleChanges, RoleRules

FAILOVER_THRESHOLD_MAX: Final = 100
"""Most failovers that may be counted: each of them is kept until its period has passed."""

_WINDOW = re.compile(r"(\d{1,2})-(\d{1,2})")

PossibleOwnersOption = Annotated[
    str | None, typer.Option(metavar="NODE,...", help="Nodes that may run it; empty: all.")
]
PreferredOwnersOption = Annotated[
    str | None, typer.Option(metavar="NODE,...", help="Nodes in the order in which it prefers them.")
]
AntiAffinityOption = Annotated[
    str | None,
    typer.Option(metavar="CLASS,...", help="VMs that share a class are kept on different hosts."),
]
FailbackOption = Annotated[
    str | None,
    typer.Option(
        metavar="off|now|22-6",
        help="When it goes back to the node that it prefers: never by itself, at once, in these hours (UTC).",
    ),
]
FailoverThresholdOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=FAILOVER_THRESHOLD_MAX,
        help="Failovers within the period after which it stays failed; 0: without end.",
    ),
]
FailoverPeriodOption = Annotated[
    str | None, typer.Option(metavar="DURATION", help="For how long a failover counts.")
]
StartDelayOption = Annotated[
    str | None, typer.Option(metavar="DURATION", help="How long it waits after a failover before it starts.")
]
SwitchOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Virtual switch that it is connected to.")
]
ProcessorCompatibilityOption = Annotated[
    bool | None,
    typer.Option(
        "--processor-compatibility/--no-processor-compatibility",
        help="Whether it can move to older processors: its guest sees no feature that they lack.",
    ),
]


@dataclass(frozen=True, slots=True)
class RoleOptions:
    """The options as they were given; None: not named."""

    possible_owners: str | None
    preferred_owners: str | None
    anti_affinity: str | None
    failback: str | None
    failover_threshold: int | None
    failover_period: str | None
    start_delay: str | None
    switch: str | None
    processor_compatibility: bool | None


def rules_of(options: RoleOptions) -> RoleRules:
    """The rules of a new VM. Raises typer.BadParameter naming the option."""
    return replace(NO_RULES, **_named(options))


def changes_of(priority: Priority | None, options: RoleOptions) -> RoleChanges | None:
    """What is to change of a VM; None if nothing was named. Raises typer.BadParameter naming the option."""
    named = _named(options)
    fields = (*(() if priority is None else (PRIORITY,)), *named)
    if not fields:
        return None
    return RoleChanges(fields, priority or Priority.MEDIUM, replace(NO_RULES, **named))


def _named(options: RoleOptions) -> dict[str, Any]:
    """Values of those fields of ``RoleRules`` that were named."""
    named: dict[str, Any] = {}
    for field in ("possible_owners", "preferred_owners", "anti_affinity"):
        if (text := getattr(options, field)) is not None:
            named |= _checked(field, **{field: _split(text)})
    if options.failback is not None:
        named |= _checked("failback", **_failback(options.failback))
    if options.failover_threshold is not None:
        named["failover_threshold"] = options.failover_threshold
    if options.failover_period is not None:
        period_s = duration(options.failover_period, "--failover-period")
        named |= _checked("failover_period", failover_period_s=period_s)
    if options.start_delay is not None:
        named |= _checked("start_delay", start_delay_s=duration(options.start_delay, "--start-delay"))
    if options.switch is not None:
        named |= _checked("switch", switch=options.switch)
    if options.processor_compatibility is not None:
        named["processor_compatibility"] = options.processor_compatibility
    return named


def _checked(option: str, **values: Any) -> dict[str, Any]:
    try:
        replace(NO_RULES, **values).validate()
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint=f"--{option.replace('_', '-')}") from None
    return values


def _split(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",")) if text else ()


def _failback(text: str) -> dict[str, Any]:
    """The three fields that make up one choice: outside a window, the hours say nothing."""
    match = _WINDOW.fullmatch(text)
    if match is None and text not in (Failback.OFF, Failback.NOW):
        raise typer.BadParameter(
            f"{text!r} is neither off nor now nor two hours of the day, from and until, for example 22-6",
            param_hint="--failback",
        )
    from_hour, until_hour = (int(hour) for hour in match.groups()) if match else (0, 0)
    return {
        "failback": Failback.WINDOW if match else Failback(text),
        "failback_from_hour": from_hour,
        "failback_until_hour": until_hour,
    }
