"""The JSON Schema of scenario files, made from the models.

``python -m ferry_sim.scenarios.schema`` prints it, as does ``ferry scenario schema`` with the published copy.
"""

import json
import sys
from importlib import resources
from typing import Any, Final

from ferry_sim.scenarios.model import Scenario

FILE: Final = "scenario.schema.json"
"""Beside this module, for editors and other programs."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def make() -> str:
    """The schema as JSON, from the models."""
    made: dict[str, Any] = Scenario.model_json_schema(by_alias=True)
    step = made["$defs"]["Line"]
    made["$defs"]["Line"] = {"anyOf": [{"type": "string", "description": "the step's words"}, step]}
    event = made["$defs"]["Event"]
    made["$defs"]["Event"] = {"anyOf": [{"type": "integer", "description": "Windows event ID"}, event]}
    for name in ("nodes", "vms"):
        or_null(made, name)
    _or_text(made, "networks", "its role")
    _or_text(made["$defs"]["Node"], "nics", "its network")
    return json.dumps({"$schema": DIALECT, **made}, indent=2) + "\n"


def or_null(made: dict[str, Any], name: str) -> None:
    """Let the values of a schema's map be left out: ``n1:`` with nothing behind it."""
    named = made["properties"][name]["patternProperties"]
    made["properties"][name] |= {
        "patternProperties": {
            pattern: {"anyOf": [held, {"type": "null"}]} for pattern, held in named.items()
        },
        "additionalProperties": False,
    }


def _or_text(made: dict[str, Any], name: str, what: str) -> None:
    """Let the values of a schema's map be a text in place of a map."""
    named = made["properties"][name]["patternProperties"]
    text = {"type": "string", "description": what}
    named |= {pattern: {"anyOf": [text, held]} for pattern, held in named.items()}


def published() -> str:
    """The schema as it comes with the package."""
    return resources.files(__package__).joinpath(FILE).read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.stdout.write(make())
