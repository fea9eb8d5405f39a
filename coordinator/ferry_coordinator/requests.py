"""What admins ask, checked on arrival: names, spans of time, words. Nothing that arrives is trusted.

Everything here raises FerryError (malformed).
"""

import math
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

from ferry.v1 import admin_pb2
from ferry_cluster.inputs import SetPolicy
from ferry_types.errors import FerryError, malformed
from ferry_types.limits import QUARANTINE_THRESHOLD_MAX, SPAN_S_MAX
from ferry_types.names import validate_name
from ferry_types.units import format_duration

_W = TypeVar("_W", bound=StrEnum)


def checked_name(text: str, what: str) -> str:
    """A well-formed name; ``what`` says whose."""
    try:
        return validate_name(text, what)
    except ValueError as error:
        raise FerryError(malformed(str(error))) from error


def checked_target(text: str) -> str:
    """The node that a drain is to, or empty: the best for each VM."""
    return checked_name(text, "node name") if text else ""


def checked_word(text: str, words: type[_W], what: str) -> _W:
    """One of these words."""
    try:
        return words(text)
    except ValueError:
        raise FerryError(malformed(f"{text!r} is no {what}: it is one of {', '.join(words)}")) from None


def checked_span(span_s: float, what: str) -> float:
    """Seconds, if there is any time in them and no more than ``SPAN_S_MAX``."""
    if not (math.isfinite(span_s) and 0 < span_s <= SPAN_S_MAX):
        raise FerryError(
            malformed(f"a {what} of {format_duration(span_s)} is out of range: more than 0 s, at most 168h")
        )
    return span_s


def check_query(query: admin_pb2.EventQuery) -> None:
    """Whether an event query names what can exist."""
    if query.node:
        checked_name(query.node, "node name")
    if query.vm:
        checked_name(query.vm, "VM name")


def checked_policy(change: admin_pb2.PolicyChange) -> Callable[[int], SetPolicy]:
    """What an admin chooses for the whole cluster, but for the request's number."""
    threshold = change.quarantine_threshold if change.HasField("quarantine_threshold") else None
    if threshold is not None and threshold > QUARANTINE_THRESHOLD_MAX:
        raise FerryError(
            malformed(
                f"a quarantine threshold of {threshold} is out of range: "
                f"at most {QUARANTINE_THRESHOLD_MAX} losses, or 0 for never"
            )
        )
    period_s = duration_s = None
    if change.HasField("quarantine_period_s"):
        period_s = checked_span(change.quarantine_period_s, "quarantine period")
    if change.HasField("quarantine_s"):
        duration_s = checked_span(change.quarantine_s, "quarantine duration")
    enforced = change.enforced_anti_affinity if change.HasField("enforced_anti_affinity") else None
    return lambda number: SetPolicy(number, enforced, threshold, period_s, duration_s)
