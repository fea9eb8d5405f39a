"""How much of a link's rate is payload."""

import pytest

from ferry_types.links import goodput_bytes_per_s

GBIT = 125_000_000


@pytest.mark.parametrize(("mtu", "share"), [(1500, 1448 / 1538), (9000, 8948 / 9038)])
def test_goodput(mtu: int, share: float) -> None:
    assert goodput_bytes_per_s(GBIT, mtu) == pytest.approx(GBIT * share)


@pytest.mark.parametrize("mtu", [575, 65_536])
def test_an_mtu_has_bounds(mtu: int) -> None:
    with pytest.raises(ValueError, match=f"an MTU of {mtu}"):
        goodput_bytes_per_s(GBIT, mtu)
