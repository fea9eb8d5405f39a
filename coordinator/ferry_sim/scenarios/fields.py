"""Kinds of values in a scenario file: names, and quantities with units."""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from ferry_sim.scenarios.guest_words import parse_fill
from ferry_types.eras import Era
from ferry_types.names import NAME_PATTERN, validate_name
from ferry_types.profiles import PROFILES
from ferry_types.units import parse_duration, parse_rate, parse_size
from ferry_types.vms import PROCESSOR_DEFAULT, NodeState, Processor, VmState
from ferry_types.workloads import PROFILES as WORKLOADS
from ferry_types.workloads import FillSpec

GENERATION_MAX: Final = 99
"""Of a processor model, as for ``ferry agent run --processor``."""

GONE: Final = "gone"
"""State of what does not exist."""

ENTRIES_MAX: Final = 1000
"""Steps, VMs or expectations in one file."""

_QUANTITY: Final = r"^\s*[0-9]+(\.[0-9]+)?\s*[A-Za-z/]*\s*$"


def _words(value: object) -> object:
    """A number that was written without quotes is the text that it looks like (``era: 2012``)."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _quantity_schema(example: str, what: str) -> WithJsonSchema:
    return WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": _QUANTITY}, {"type": "integer", "minimum": 0}],
            "description": what,
            "examples": [example],
        }
    )


def _name(text: str) -> str:
    return validate_name(text, "name")


def _size(value: object) -> object:
    text = _words(value)
    return parse_size(text) if isinstance(text, str) else value


def _rate(value: object) -> object:
    text = _words(value)
    return parse_rate(text) if isinstance(text, str) else value


def _duration(value: object) -> object:
    text = _words(value)
    return parse_duration(text) if isinstance(text, str) else value


def _processor(value: object) -> object:
    if not isinstance(value, str):
        return value
    vendor, _, generation = value.partition(":")
    if not (generation.isascii() and generation.isdigit() and 1 <= int(generation[:4]) <= GENERATION_MAX):
        raise ValueError(
            f"{value!r} is no processor model: give a vendor and a generation from 1 to {GENERATION_MAX}, "
            "such as intel:4"
        )
    return Processor(validate_name(vendor, "processor vendor"), int(generation))


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as problem:
        raise ValueError(f"{text!r} is not a regular expression: {problem}") from None
    return text


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text

    return check


def _listed(value: object) -> object:
    """One of a kind is a list of one."""
    return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("write a time with its zone, such as 2026-01-01T22:30:00Z")
    return moment


def _whole(value: object) -> object:
    """``true`` is 1 to pydantic."""
    if isinstance(value, bool):
        raise ValueError("write a whole number here")
    return value


Count = Annotated[int, BeforeValidator(_whole)]
Name = Annotated[
    str,
    BeforeValidator(_words),
    AfterValidator(_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$"}),
]
EraName = Annotated[Era, BeforeValidator(_words)]
ProfileName = Annotated[
    str, AfterValidator(_one_of(tuple(PROFILES))), WithJsonSchema({"enum": [*PROFILES], "default": "fast"})
]
WorkloadName = Annotated[
    str, AfterValidator(_one_of(tuple(WORKLOADS))), WithJsonSchema({"enum": [*WORKLOADS], "default": "idle"})
]
FillKind = Annotated[
    FillSpec,
    BeforeValidator(lambda value: parse_fill(value) if isinstance(value, str) else value),
    PlainSerializer(lambda fill: fill.path or fill.kind),
    WithJsonSchema({"type": "string", "pattern": "^(zero|random|/.*)$", "default": "zero"}),
]
Names = Annotated[tuple[Name, ...], BeforeValidator(_listed)]
"""A name, or a list of names."""
SizeBytes = Annotated[int, BeforeValidator(_size), _quantity_schema("64MiB", "bytes, with their unit")]
RateBytesPerS = Annotated[
    int, BeforeValidator(_rate), _quantity_schema("100MiB/s", "bytes per second, with their unit")
]
Seconds = Annotated[float, BeforeValidator(_duration), _quantity_schema("30s", "a time, with its unit")]
ProcessorModel = Annotated[
    Processor,
    BeforeValidator(_processor),
    PlainSerializer(lambda model: f"{model.vendor}:{model.generation}"),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^{NAME_PATTERN}:[0-9]{{1,2}}$",
            "default": f"{PROCESSOR_DEFAULT.vendor}:{PROCESSOR_DEFAULT.generation}",
            "examples": ["intel:4"],
        }
    ),
]
Pattern = Annotated[
    str,
    BeforeValidator(_words),
    AfterValidator(_regex),
    WithJsonSchema({"type": "string", "description": "regular expression, found anywhere in the text"}),
]
Moment = Annotated[datetime, AfterValidator(_aware)]


def _states(*choices: str) -> WithJsonSchema:
    one = {"enum": list(choices)}
    return WithJsonSchema({"anyOf": [one, {"type": "array", "items": one}]})


_VM_STATES: Final = (*(state.value for state in VmState), GONE)
_NODE_STATES: Final = (*(state.value for state in NodeState), GONE)

VmStates = Annotated[
    tuple[Annotated[str, AfterValidator(_one_of(_VM_STATES))], ...],
    BeforeValidator(_listed),
    _states(*_VM_STATES),
]
NodeStates = Annotated[
    tuple[Annotated[str, AfterValidator(_one_of(_NODE_STATES))], ...],
    BeforeValidator(_listed),
    _states(*_NODE_STATES),
]
"""A state, or a list of those of which any will do."""
