"""Releases of Windows Server, in their order."""

from itertools import pairwise

from ferry_types.eras import Era


def test_an_era_is_before_all_later_ones_and_never_before_itself() -> None:
    assert not any(era.is_before(era) for era in Era)
    for earlier, later in pairwise([Era.WS2008R2, Era.WS2012, Era.WS2012R2, Era.WS2016]):
        assert earlier.is_before(later)
        assert not later.is_before(earlier)
    assert Era.WS2008R2.is_before(Era.WS2016)
