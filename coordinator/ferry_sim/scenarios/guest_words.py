"""A VM's guest in words: what its memory holds, and what it does to it, the same in ``vms`` and in steps.

In a file they have underscores (``write_rate: 16MiB/s``), in a step hyphens (``write-rate=16MiB/s``).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ferry_types.roles import Priority
from ferry_types.units import parse_rate, parse_size
from ferry_types.vms import VmSpec
from ferry_types.workloads import AccessPattern, Fill, FillSpec, resolve

FILL_DEFAULT: Final = Fill.ZERO.value


def parse_fill(text: str) -> FillSpec:
    """``zero``, ``random``, or the path of a file or folder on the host. Raises ValueError."""
    if text in (Fill.ZERO, Fill.RANDOM):
        return FillSpec(Fill(text))
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is no fill: zero, random, or the path of a file or folder from / on")
    return FillSpec(Fill.FILE, str(Path(text)))


def parse_access(text: str) -> AccessPattern:
    """Raises ValueError."""
    if text not in tuple(AccessPattern):
        raise ValueError(f"{text!r} is not an access pattern: {', '.join(AccessPattern)}")
    return AccessPattern(text)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a share from 0 to 1") from None


_WORDS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "write-rate": ("write_rate_bytes_per_s", parse_rate),
    "read-rate": ("read_rate_bytes_per_s", parse_rate),
    "working-set": ("working_set_bytes", parse_size),
    "access": ("access", parse_access),
    "compressibility": ("compressibility", _share),
}
"""Word -> the parameter of ``resolve`` that its value sets."""

WORDS: Final = ("fill", *_WORDS)


def parse_guest(pairs: Mapping[str, str]) -> tuple[FillSpec, dict[str, Any]]:
    """What memory holds, and parameters of ``resolve``; other words are left alone. Raises ValueError."""
    chosen = {parameter: parse(pairs[word]) for word, (parameter, parse) in _WORDS.items() if word in pairs}
    return parse_fill(pairs.get("fill", FILL_DEFAULT)), chosen


def make_spec(
    name: str,
    memory_bytes: int,
    workload: str,
    priority: Priority,
    fill: FillSpec,
    chosen: Mapping[str, Any],
) -> VmSpec:
    """The spec of a VM. ``chosen``: parameters of ``resolve``, None: as the workload has it.

    Raises ValueError.
    """
    spec = VmSpec(name, memory_bytes, resolve(workload, memory_bytes, **chosen), fill, priority)
    spec.validate()
    return spec
