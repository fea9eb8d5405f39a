"""What went wrong, in a form that rules return, wires carry and people read."""

from dataclasses import dataclass
from enum import StrEnum


class ErrorCode(StrEnum):
    """Kinds of failure. The command line turns each into an exit code."""

    MALFORMED = "malformed"
    UNREACHABLE = "unreachable"
    NOT_FOUND = "not_found"
    REFUSED = "refused"
    FAILED = "failed"


EXIT_CODES: dict[ErrorCode, int] = {
    ErrorCode.FAILED: 1,
    ErrorCode.MALFORMED: 2,
    ErrorCode.UNREACHABLE: 3,
    ErrorCode.NOT_FOUND: 4,
    ErrorCode.REFUSED: 5,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An expected failure: what happened to what, the rule that refused if one did, and what to do next."""

    code: ErrorCode
    message: str
    hint: str = ""
    rule: str = ""


class FerryError(Exception):
    """An expected failure on its way to a person. Every package raises this for what a user can cause."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def failed(message: str, hint: str = "") -> Refusal:
    """Something that should have worked did not."""
    return Refusal(ErrorCode.FAILED, message, hint)


def malformed(message: str, hint: str = "") -> Refusal:
    """A value or option is not well formed."""
    return Refusal(ErrorCode.MALFORMED, message, hint)


def not_found(message: str, hint: str = "") -> Refusal:
    """No such object."""
    return Refusal(ErrorCode.NOT_FOUND, message, hint)


def refused(rule: str, message: str, hint: str = "") -> Refusal:
    """A rule of the cluster or of a host says no."""
    return Refusal(ErrorCode.REFUSED, message, hint, rule)
