"""Plants for the scenarios of placement, order and failover rules."""

from collections.abc import Mapping

from tests.simulation.plants import Plant

PLANTS: Mapping[str, Plant] = {}
"""Scenario -> how the rule that it shows is taken out."""
