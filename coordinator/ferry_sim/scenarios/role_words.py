"""The words for what the cluster heeds about a VM, the same in a file's ``vms`` and in steps.

In a file they have underscores (``anti_affinity: [web]``), in a step hyphens (``anti-affinity=web``).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from ferry_types.roles import PRIORITY, Failback, Priority, RoleChanges, RoleRules, validate_names
from ferry_types.units import parse_duration

LISTS: Final[Mapping[str, str]] = {
    "possible": "possible_owners",
    "preferred": "preferred_owners",
    "anti-affinity": "anti_affinity",
}
"""Word -> field of RoleRules that is a list of names."""

OWNERS: Final = frozenset({"possible_owners", "preferred_owners"})
"""Fields that name nodes."""

WINDOW: Final = ("failback", "failback_from_hour", "failback_until_hour")
"""Fields that the word ``failback`` sets."""


def parse_names(text: str, what: str) -> tuple[str, ...]:
    """``a,b,c`` -> names; empty: none. Raises ValueError."""
    names = tuple(text.split(",")) if text else ()
    validate_names(names, what)
    return names


def parse_truth(text: str) -> bool:
    """``true`` or ``false``. Raises ValueError."""
    if text not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


def parse_number(text: str) -> int:
    """A number from 0 on. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def parse_failback(text: str) -> dict[str, Any]:
    """``off``, ``now`` or hours such as ``22-5`` -> fields of RoleRules. Raises ValueError."""
    if text in (Failback.OFF, Failback.NOW):
        return dict(zip(WINDOW, (Failback(text), 0, 0), strict=True))
    from_hour, hyphen, until_hour = text.partition("-")
    if not hyphen:
        raise ValueError(f"{text!r} is not a failback: off, now, or hours such as 22-5")
    hours = (parse_number(from_hour), parse_number(until_hour))
    return dict(zip(WINDOW, (Failback.WINDOW, *hours), strict=True))


_WORDS: Final[Mapping[str, Callable[[str], dict[str, Any]]]] = {
    "possible": lambda text: {"possible_owners": parse_names(text, "possible owner")},
    "preferred": lambda text: {"preferred_owners": parse_names(text, "preferred owner")},
    "anti-affinity": lambda text: {"anti_affinity": parse_names(text, "anti-affinity class")},
    "failback": parse_failback,
    "failover-threshold": lambda text: {"failover_threshold": parse_number(text)},
    "failover-period": lambda text: {"failover_period_s": parse_duration(text)},
    "start-delay": lambda text: {"start_delay_s": parse_duration(text)},
    "switch": lambda text: {"switch": text},
    "processor-compatibility": lambda text: {"processor_compatibility": parse_truth(text)},
}
"""Word -> the fields of RoleRules that its value sets."""

RULE_WORDS: Final = tuple(_WORDS)
WORDS: Final = (PRIORITY, *RULE_WORDS)


def parse_priority(text: str) -> Priority:
    """Raises ValueError."""
    if text not in tuple(Priority):
        raise ValueError(f"{text!r} is not a priority: {', '.join(Priority)}")
    return Priority(text)


def parse_rules(pairs: Iterable[tuple[str, str]]) -> RoleRules:
    """Rules of ``word=value``; all else as for a VM of which nothing was said. Raises ValueError."""
    fields: dict[str, Any] = {}
    for word, text in pairs:
        fields |= _WORDS[word](text)
    rules = replace(RoleRules(), **fields)
    rules.validate()
    return rules


def parse_changes(pairs: Mapping[str, str]) -> RoleChanges:
    """Changes of ``word=value``. Raises ValueError."""
    names: list[str] = [PRIORITY] if PRIORITY in pairs else []
    priority = parse_priority(pairs[PRIORITY]) if PRIORITY in pairs else Priority.MEDIUM
    others = [(word, text) for word, text in pairs.items() if word != PRIORITY]
    for word, text in others:
        names += _WORDS[word](text)
    changes = RoleChanges(tuple(names), priority, parse_rules(others))
    changes.validate()
    return changes
