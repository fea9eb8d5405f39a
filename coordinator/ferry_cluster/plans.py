"""What the cluster would do, as people are shown it before they ask for it."""

from dataclasses import dataclass

from ferry_types.errors import Refusal

STARS_MAX = 5
"""Of the host that suits best."""


@dataclass(frozen=True, slots=True)
class HostRating:
    """How well a host would suit a VM: 0 stars to ``STARS_MAX``, 0 if a rule is against it.

    ``reason``: why so many, or the rule's words. ``rule``: its name, empty if none is against it.
    """

    node: str
    stars: int
    reason: str
    rule: str


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """One move of a drain, in the order of the queue. ``estimated_s``: None if nothing is known yet."""

    vm: str
    memory_bytes: int
    target: str
    estimated_s: float | None


@dataclass(frozen=True, slots=True)
class StuckVm:
    """A VM that no other host can take, and the rule that is against it."""

    vm: str
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """What a drain of this node would do now. ``estimated_s``: all of it, by the slots that there are."""

    node: str
    moves: tuple[PlannedMove, ...]
    stuck: tuple[StuckVm, ...]
    estimated_s: float | None


@dataclass(frozen=True, slots=True)
class DrainView:
    """A drain, and what is left to do. ``remaining``: VMs still on the node, by name."""

    node: str
    state: str
    to: str
    reason: str
    taken: tuple[str, ...]
    remaining: tuple[str, ...]
