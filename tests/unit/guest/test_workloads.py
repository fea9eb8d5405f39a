"""Workloads fit the memory that they are given, and nothing out of range gets through."""

import math
from dataclasses import replace

import pytest

from ferry_types.workloads import (
    PROFILES,
    RATE_BYTES_PER_S_MAX,
    AccessPattern,
    Fill,
    FillSpec,
    resolve,
    usable_bytes,
)

MIB = 2**20


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("memory_bytes", [4 * MIB, 16 * MIB, 256 * MIB, 2**40])
def test_every_profile_fits_every_memory(profile: str, memory_bytes: int) -> None:
    spec = resolve(profile, memory_bytes)
    spec.validate(memory_bytes)
    assert spec.working_set_bytes == min(PROFILES[profile].working_set_bytes, usable_bytes(memory_bytes))


def test_what_the_user_gives_replaces_the_profile() -> None:
    spec = resolve(
        "idle",
        256 * MIB,
        write_rate_bytes_per_s=50 * MIB,
        read_rate_bytes_per_s=0,
        working_set_bytes=64 * MIB + 5,
        access=AccessPattern.HOTSET,
        compressibility=1.0,
    )
    assert (spec.profile, spec.write_rate_bytes_per_s, spec.read_rate_bytes_per_s) == ("idle", 50 * MIB, 0)
    assert spec.working_set_bytes == 64 * MIB
    assert (spec.access, spec.compressibility) == (AccessPattern.HOTSET, 1.0)


def test_a_working_set_of_the_whole_memory_leaves_room_for_the_books() -> None:
    assert resolve("sql", 16 * MIB, working_set_bytes=16 * MIB).working_set_bytes == usable_bytes(16 * MIB)
    assert usable_bytes(16 * MIB) < 16 * MIB


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"write_rate_bytes_per_s": -1}, "write rate"),
        ({"read_rate_bytes_per_s": RATE_BYTES_PER_S_MAX + 1}, "read rate"),
        ({"working_set_bytes": 16 * MIB + 1}, "does not fit"),
        ({"working_set_bytes": 4095}, "working set"),
        ({"compressibility": 1.01}, "compressibility"),
        ({"compressibility": math.nan}, "compressibility"),
    ],
)
def test_values_out_of_range_are_refused(overrides: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve("web", 16 * MIB, **overrides)  # type: ignore[arg-type]  # pairs of name and value


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="'gaming' is not a workload: use one of idle, web, file, sql, thrash"
    ):
        resolve("gaming", 16 * MIB)


def test_a_spec_that_came_from_elsewhere_is_checked_against_the_memory() -> None:
    spec = resolve("sql", 256 * MIB)
    with pytest.raises(ValueError, match="working set"):
        spec.validate(16 * MIB)
    with pytest.raises(ValueError, match="multiple"):
        replace(spec, working_set_bytes=5000).validate(256 * MIB)
    with pytest.raises(ValueError, match="not a workload"):
        replace(spec, profile="").validate(256 * MIB)


def test_a_fill_has_a_path_exactly_if_it_is_from_a_file() -> None:
    FillSpec(Fill.FILE, "/etc/hosts").validate()
    FillSpec(Fill.ZERO).validate()
    with pytest.raises(ValueError, match="needs the path"):
        FillSpec(Fill.FILE).validate()
    with pytest.raises(ValueError, match="takes no path"):
        FillSpec(Fill.RANDOM, "/etc/hosts").validate()
