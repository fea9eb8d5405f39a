"""How a rule is taken out of the cores, so that the scenario that shows it must fail."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from ferry_cluster import cluster as cluster_module
from ferry_cluster import placement
from ferry_types import eras
from ferry_types.eras import Era

Plant = Callable[[pytest.MonkeyPatch], None]


def without(module: ModuleType, name: str, result: object = None) -> Plant:
    """A function that does nothing any more, and always answers the same."""
    return lambda patch: patch.setattr(module, name, lambda *_, **__: result)


def deaf_to(message: type) -> Plant:
    """A coordinator that takes no notice of what a host reports."""
    return lambda patch: patch.setitem(cluster_module._REPORTS, message, lambda *_: None)


def without_placement(rule: placement.Rule) -> Plant:
    """A cluster that chooses hosts without one of its rules."""
    left = [each for each in placement.RULES if each is not rule]
    return lambda patch: patch.setattr(placement, "RULES", left)


def with_era(era: Era, **changes: Any) -> Plant:
    """An era that could do something else."""
    return lambda patch: patch.setitem(eras.RULES, era, replace(eras.RULES[era], **changes))
