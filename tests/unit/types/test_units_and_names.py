"""Names, sizes, rates and durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferry_types.names import NAME_PATTERN, validate_name
from ferry_types.units import format_duration, format_size, parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("256MiB", 256 * 2**20), ("1.5GiB", 3 * 2**29), ("4096", 4096), ("10 kB", 10_000), ("0B", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1MiB", "1XiB", "1MiB/s", "1e3", "0x10", "nan", "1MiB x"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("50MiB/s", 50 * 2**20), ("10Gbit/s", 1_250_000_000), ("0", 0), ("1 kbit/s", 125)]
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["9" * 400 + "Gbit/s", "50MiB", "5", "10Gbit", "fast", "1parsec/s"])
def test_wrong_rates(text: str) -> None:
    with pytest.raises(ValueError, match="rate"):
        parse_rate(text)


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("10m", 600), ("2", 2), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["soon", "10 parsecs", "-1s"])
def test_wrong_durations(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=2**50))
def test_formatted_sizes_are_read_back_closely(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.06, abs=1)


def test_durations_are_shown_with_a_fitting_unit() -> None:
    assert [format_duration(x) for x in (0.0021, 1.5, 600.0)] == ["2.1 ms", "1.500 s", "10.0 min"]


@given(st.from_regex(NAME_PATTERN, fullmatch=True).filter(str.isascii))
def test_valid_names(name: str) -> None:
    assert validate_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", ".", "a b", "a/b", "ä", "a" * 65, "a\n"])
def test_invalid_names(name: str) -> None:
    with pytest.raises(ValueError, match="is not valid"):
        validate_name(name)
