"""The JSON Schema of topology files, made from the models.

``python -m ferry_cli.topology.schema`` prints it, as does ``ferry lab schema`` with the published copy.
"""

import json
import sys
from importlib import resources
from typing import Any, Final

from ferry_cli.topology.model import Topology
from ferry_sim.scenarios.schema import DIALECT, or_null

FILE: Final = "topology.schema.json"
"""Beside this module, for editors and other programs."""


def make() -> str:
    """The schema as JSON, from the models."""
    made: dict[str, Any] = Topology.model_json_schema(by_alias=True)
    for name in ("hosts", "vms"):
        or_null(made, name)
    return json.dumps({"$schema": DIALECT, **made}, indent=2) + "\n"


def published() -> str:
    """The schema as it comes with the package."""
    return resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(make())
