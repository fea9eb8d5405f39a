"""What the witness can be told: options of ``ferry witness run``, the environment or a TOML file."""

from collections.abc import Sequence
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ferry_wire.process_settings import DirectoryPath, ProcessSettings

PROGRAM: Final = "ferry witness run"


class WitnessSettings(ProcessSettings):
    """Runs a file-share witness: a process that has a vote in clusters, and no VMs."""

    model_config = SettingsConfigDict(env_prefix="FERRY_WITNESS_")

    dir: DirectoryPath = Field(description="data directory of its own; holds a record for each cluster")


def load_settings(arguments: Sequence[str] | None = None) -> WitnessSettings:
    """The settings of this process. Exits with a message if they are not valid, or after ``--help``."""
    return WitnessSettings.from_command_line(PROGRAM, arguments)
