"""Placeholder until the guest's author writes it."""

from dataclasses import dataclass
from enum import StrEnum


class Fill(StrEnum):
    ZERO = "zero"
    RANDOM = "random"
    FILE = "file"


class AccessPattern(StrEnum):
    UNIFORM = "uniform"


@dataclass(frozen=True, slots=True)
class FillSpec:
    kind: Fill
    path: str | None = None


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
    profile: str
    write_rate_bytes_per_s: int
    read_rate_bytes_per_s: int
    working_set_bytes: int
    access: AccessPattern
    compressibility: float


def resolve(profile: str, memory_bytes: int) -> WorkloadSpec:
    return WorkloadSpec(profile, 0, 0, 0, AccessPattern.UNIFORM, 0.0)
