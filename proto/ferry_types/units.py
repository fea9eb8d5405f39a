"""Sizes, rates and durations as people write them (``256MiB``, ``10Gbit/s``, ``250ms``), and back."""

import re

_SIZES = {
    "B": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_BIT_RATES = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
_DURATIONS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

_NUMBER_MAX = 1e18
"""Whatever its unit: what is larger is a slip, and would overflow what it is kept in."""

_QUANTITY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z/]*)\s*")


def _split(text: str, what: str, example: str) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a {what}: write a number and a unit, for example {example}")
    number = float(match.group(1))
    if number > _NUMBER_MAX:
        raise ValueError(f"{text[:80]!r} is no {what} that there is: it is too large")
    return number, match.group(2)


def _lookup(unit: str, table: dict[str, float] | dict[str, int], text: str, what: str) -> float:
    for name, factor in table.items():
        if name.lower() == unit.lower():
            return float(factor)
    raise ValueError(f"{text!r} has no unit of a {what}: use one of {', '.join(table)}")


def parse_size(text: str) -> int:
    """Bytes of ``256MiB``, ``1.5GiB``, ``4096B`` or plain ``4096``. Raises ValueError."""
    number, unit = _split(text, "size", "256MiB")
    return round(number * _lookup(unit or "B", _SIZES, text, "size"))


def parse_rate(text: str) -> int:
    """Bytes per second of ``50MiB/s`` or ``10Gbit/s``; 0 needs no unit. Raises ValueError."""
    number, unit = _split(text, "rate", "50MiB/s or 10Gbit/s")
    if not unit and number == 0:
        return 0
    if unit.lower().endswith("bit/s"):
        return round(number * _lookup(unit, _BIT_RATES, text, "rate") / 8)
    if not unit.endswith("/s"):
        raise ValueError(f"{text!r} is not a rate: write it per second, for example 50MiB/s or 10Gbit/s")
    return round(number * _lookup(unit[:-2], _SIZES, text, "rate"))


def parse_duration(text: str) -> float:
    """Seconds of ``250ms``, ``10m``, ``1.5s`` or plain ``2``. Raises ValueError."""
    number, unit = _split(text, "duration", "250ms")
    return number * _lookup(unit or "s", _DURATIONS, text, "duration")


def format_size(size_bytes: float) -> str:
    """``268435456`` -> ``256 MiB``."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_rate(rate_bytes_per_s: float) -> str:
    """Bytes per second -> ``50 MiB/s``."""
    return f"{format_size(rate_bytes_per_s)}/s"


def format_bit_rate(rate_bytes_per_s: float) -> str:
    """Bytes per second of a link -> ``10 Gbit/s``."""
    return f"{rate_bytes_per_s * 8 / 1e9:g} Gbit/s"


def format_duration(duration_s: float) -> str:
    """``0.0021`` -> ``2.1 ms``; seconds with three digits from one second on."""
    if duration_s < 1:
        return f"{duration_s * 1000:.1f} ms"
    if duration_s < 120:
        return f"{duration_s:.3f} s"
    return f"{duration_s / 60:.1f} min"


def format_span(span_s: float) -> str:
    """Seconds as an admin would write them: ``6h``, ``90s``."""
    for unit, unit_s in (("h", 3600), ("m", 60)):
        if span_s and span_s % unit_s == 0:
            return f"{span_s / unit_s:g}{unit}"
    return f"{span_s:g}s"
