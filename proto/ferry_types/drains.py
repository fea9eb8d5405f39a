"""Drains: how far one is, and what it does with VMs that cannot move."""

from enum import StrEnum


class Stuck(StrEnum):
    """What a drain does with a VM that no other host can take: it stays, or is turned off."""

    STAY = "stay"
    STOP = "stop"


class DrainState(StrEnum):
    """How far a drain is. One that was completed or has failed is kept until its node resumes."""

    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
