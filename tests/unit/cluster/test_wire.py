"""What is known of the wire between two hosts: from the rates of their NICs, or from earlier moves."""

from collections.abc import Mapping
from dataclasses import astuple, replace
from typing import Any

import pytest
from tests.unit.cluster.core_bench import MIB, Bench, orders
from tests.unit.cluster.test_networks import LIVE, Wired, nic

from ferry_cluster.records import MigrationRecord
from ferry_cluster.wire import HAND_OFF_S, MOVES_MAX
from ferry_types.eras import Era
from ferry_types.links import TrafficClass, goodput_bytes_per_s
from ferry_types.messages import BeginOutgoing, IncomingPrepared
from ferry_types.migrations import (
    MigrationFigures,
    MigrationOptions,
    MigrationState,
    PassFigures,
    TransportOption,
    WireFigures,
)
from ferry_types.networks import Team, TeamMode
from ferry_types.qos import QosPolicy
from ferry_types.units import parse_rate

TCPIP = TransportOption.TCPIP


def sent(mib: int, duration_s: float, index: int = 1, zero_pages: int = 0) -> PassFigures:
    return PassFigures(index, mib * 256, zero_pages, mib * MIB, duration_s, 0)


def moved(number: int, told: MigrationFigures, **changes: object) -> MigrationRecord:
    record = MigrationRecord(
        f"m{number}",
        "a",
        "h1",
        "h2",
        1,
        "token",
        MigrationOptions(option=TCPIP),
        MigrationState.COMPLETED,
        64 * MIB,
        1,
        figures=told,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def known(*moves: MigrationRecord) -> Any:
    cluster = Bench().cluster
    cluster.state.migrations |= {move.id: move for move in moves}
    return cluster.wire_figures("h1", "h2", TCPIP)


def about(rate_bytes_per_s: float, blackout_floor_s: float) -> Any:
    return pytest.approx(astuple(WireFigures(rate_bytes_per_s, blackout_floor_s)))


def test_without_a_move_nothing_is_known() -> None:
    assert known() is None


def test_the_rate_is_that_of_passes_and_the_floor_is_the_pause_without_its_pages() -> None:
    figures = MigrationFigures((sent(50, 0.5), sent(10, 0.1, 2)), sent(1, 0.001, 0), blackout_s=0.014)
    assert astuple(known(moved(1, figures))) == about(100 * MIB, 0.004)


def test_moves_the_other_way_count_as_well() -> None:
    figures = MigrationFigures((sent(50, 0.5),))
    assert known(moved(1, figures, source="h2", target="h1")) == WireFigures(100 * MIB, HAND_OFF_S)


@pytest.mark.parametrize(
    "changes",
    [{"target": "h3"}, {"source": "h3"}, {"state": MigrationState.FAILED}, {"figures": None}],
)
def test_other_hosts_and_moves_that_failed_tell_nothing(changes: dict[str, object]) -> None:
    assert known(moved(1, MigrationFigures((sent(50, 0.5),)), **changes)) is None


@pytest.mark.parametrize(
    "passed", [sent(3, 0.5), sent(50, 0.5, zero_pages=50 * 256 + 1), sent(50, 0.0)], ids=str
)
def test_passes_that_were_not_about_the_wire_tell_nothing(passed: PassFigures) -> None:
    assert known(moved(1, MigrationFigures((passed,)))) is None


def test_only_the_latest_moves_count() -> None:
    slow = moved(1, MigrationFigures((sent(50, 50.0),)))
    fast = [moved(number, MigrationFigures((sent(50, 0.5),))) for number in range(2, MOVES_MAX + 2)]
    assert known(slow, *fast) == WireFigures(100 * MIB, HAND_OFF_S)


def test_one_odd_move_does_no_harm() -> None:
    durations_s = (0.5, 25.0, 0.5)
    moves = [moved(number, MigrationFigures((sent(50, s),))) for number, s in enumerate(durations_s, 1)]
    assert known(*moves) == WireFigures(100 * MIB, HAND_OFF_S)


def test_moves_that_tell_nothing_do_not_displace_those_that_do() -> None:
    idle = [moved(number, MigrationFigures((sent(1, 0.5),))) for number in range(2, MOVES_MAX + 2)]
    assert known(moved(1, MigrationFigures((sent(50, 0.5),))), *idle) == WireFigures(100 * MIB, HAND_OFF_S)


def test_the_floor_is_the_median_and_never_less_than_nothing() -> None:
    blackouts_s = (0.001, 0.012, 0.5)  # of which the last pages took 10 ms
    moves = [
        moved(number, MigrationFigures((sent(50, 0.5),), sent(1, 0.0, 0), blackout_s=blackout_s))
        for number, blackout_s in enumerate(blackouts_s, 1)
    ]
    assert astuple(known(*moves)) == about(100 * MIB, 0.002)
    assert known(moves[0]) == WireFigures(100 * MIB, 0.0)


def test_the_source_is_told_what_is_known() -> None:
    bench = Bench()
    bench.run_vm("a", 1)
    bench.migrate("a", "h2")
    before = moved(0, MigrationFigures((sent(50, 0.5),)))
    bench.cluster.state.migrations[before.id] = before
    (order,) = orders(bench.say(2, IncomingPrepared("m1")), 1)
    assert isinstance(order, BeginOutgoing)
    assert order.wire == WireFigures(100 * MIB, HAND_OFF_S)


GIGABIT = parse_rate("1Gbit/s")


def pair(
    *of_both: Mapping[str, object],
    team: TeamMode | None = None,
    era: Era = Era.WS2012R2,
    limits: tuple[int, int] = (0, 0),
) -> Wired:
    """Two hosts with NICs on one network, alike."""
    bench = Wired(LIVE, hosts=0)
    bench.settings = bench.cluster.settings = replace(bench.settings, era=era)
    for number in (1, 2):
        name = "team" if team else ""
        nics = [nic(number, LIVE, index, team=name, **changes) for index, changes in enumerate(of_both)]
        limit = limits[number - 1]
        qos = (QosPolicy(TrafficClass.MIGRATION, limit),) if limit else ()
        bench.wire(number, *nics, teams=(Team(name, team),) if team else (), qos=qos)
    return bench


def rate(bench: Wired, option: TransportOption = TCPIP) -> float | None:
    figures = bench.cluster.wire_figures("h1", "h2", option)
    return None if figures is None else figures.rate_bytes_per_s


def test_nics_with_a_rate_tell_what_the_wire_carries_before_any_move() -> None:
    assert rate(pair({"rate_bytes_per_s": GIGABIT})) == goodput_bytes_per_s(GIGABIT, 1500)
    assert rate(pair({"rate_bytes_per_s": GIGABIT, "mtu": 9000})) == goodput_bytes_per_s(GIGABIT, 9000)


def test_before_any_move_a_hand_off_is_taken_to_last_as_usual() -> None:
    figures = pair({"rate_bytes_per_s": GIGABIT}).cluster.wire_figures("h1", "h2", TCPIP)
    assert figures == WireFigures(goodput_bytes_per_s(GIGABIT, 1500), HAND_OFF_S)


def test_nics_without_one_tell_nothing() -> None:
    assert rate(pair({})) is None


def test_compressed_pages_are_not_as_fast_as_the_nics_but_as_moves_have_shown() -> None:
    assert rate(pair({"rate_bytes_per_s": GIGABIT}), TransportOption.COMPRESSION) is None


@pytest.mark.parametrize(
    ("option", "times"), [(TCPIP, 1), (TransportOption.SMB, 2), (TransportOption.DIRECT, 2)]
)
def test_several_nics_add_up_where_the_option_uses_them(option: TransportOption, times: int) -> None:
    one = {"rate_bytes_per_s": GIGABIT, "rdma": True}
    assert rate(pair(one, one), option) == goodput_bytes_per_s(times * GIGABIT, 1500)


@pytest.mark.parametrize(("mode", "times"), [(TeamMode.STATIC, 1), (TeamMode.DYNAMIC, 2)])
def test_one_stream_is_spread_over_a_dynamic_team_only(mode: TeamMode, times: int) -> None:
    one = {"rate_bytes_per_s": GIGABIT}
    assert rate(pair(one, one, team=mode)) == goodput_bytes_per_s(times * GIGABIT, 1500)


def test_windows_server_2008_r2_uses_70_percent_of_a_fast_link() -> None:
    fast, slow = {"rate_bytes_per_s": 10 * GIGABIT}, {"rate_bytes_per_s": GIGABIT}
    assert rate(pair(fast, era=Era.WS2008R2)) == pytest.approx(goodput_bytes_per_s(7 * GIGABIT, 1500))
    assert rate(pair(slow, era=Era.WS2008R2)) == goodput_bytes_per_s(GIGABIT, 1500)


@pytest.mark.parametrize(("mode", "times"), [(TeamMode.STATIC, 5), (TeamMode.DYNAMIC, 7)])
def test_a_team_is_one_link_of_which_the_era_leaves_70_percent(mode: TeamMode, times: int) -> None:
    half = {"rate_bytes_per_s": 5 * GIGABIT}
    bench = pair(half, half, team=mode, era=Era.WS2008R2)
    assert rate(bench) == pytest.approx(goodput_bytes_per_s(times * GIGABIT, 1500))


def test_a_member_that_is_down_takes_its_own_rate_away_only() -> None:
    half = {"rate_bytes_per_s": 5 * GIGABIT}
    bench = pair(half, half, team=TeamMode.DYNAMIC, era=Era.WS2008R2)
    bench.turn(1, "live1")
    assert rate(bench) == pytest.approx(goodput_bytes_per_s(5 * GIGABIT, 1500))


def test_moves_under_way_share_the_nics_each_way_by_itself() -> None:
    bench = pair({"rate_bytes_per_s": GIGABIT})
    alone = goodput_bytes_per_s(GIGABIT, 1500)
    bench.slow = True
    for vm in ("a", "b", "c"):
        bench.create(vm, "h1")
    for vm in ("a", "b", "c"):  # the last one waits for a slot, and takes nothing
        bench.move("h2", vm)
    rates = [order.wire.rate_bytes_per_s for order in bench.begun if order.wire is not None]
    assert rates == [alone, alone / 2]
    assert rate(bench) == alone / 3, "a move that would come in addition"
    back = bench.cluster.wire_figures("h2", "h1", TCPIP)
    assert back is not None
    assert back.rate_bytes_per_s == alone


def test_each_end_is_shared_by_its_own_moves() -> None:
    bench = pair({"rate_bytes_per_s": 10 * GIGABIT})
    bench.wire(3, nic(3, LIVE, rate_bytes_per_s=GIGABIT))
    bench.slow = True
    for vm, target in (("a", "h2"), ("b", "h3")):
        bench.create(vm, "h1")
        bench.move(target, vm)
    first, second = (order.wire for order in bench.begun)
    assert first is not None
    assert first.rate_bytes_per_s == goodput_bytes_per_s(10 * GIGABIT, 1500)
    assert second is not None
    assert second.rate_bytes_per_s == goodput_bytes_per_s(GIGABIT, 1500), "half of the source's is more"


@pytest.mark.parametrize(("option", "times"), [(TransportOption.SMB, 8), (TransportOption.DIRECT, 2)])
def test_no_more_routes_count_than_the_option_has_connections(option: TransportOption, times: int) -> None:
    one = {"rate_bytes_per_s": GIGABIT, "rdma": True}
    assert rate(pair(*[one] * 10), option) == goodput_bytes_per_s(times * GIGABIT, 1500)


@pytest.mark.parametrize(
    ("nic_rate", "era", "limits", "expected"),
    [
        (GIGABIT, Era.WS2012R2, (GIGABIT // 4, 0), GIGABIT / 4),
        (GIGABIT, Era.WS2012R2, (GIGABIT // 2, GIGABIT // 4), GIGABIT / 4),
        (GIGABIT, Era.WS2012R2, (2 * GIGABIT, 0), GIGABIT),
        (0, Era.WS2012R2, (0, GIGABIT // 4), GIGABIT / 4),
        (10 * GIGABIT, Era.WS2008R2, (8 * GIGABIT, 0), 7 * GIGABIT),
        (10 * GIGABIT, Era.WS2008R2, (6 * GIGABIT, 0), 6 * GIGABIT),
    ],
)
def test_the_smallest_of_rate_era_and_limits_of_both_ends_holds(
    nic_rate: int, era: Era, limits: tuple[int, int], expected: float
) -> None:
    bench = pair({"rate_bytes_per_s": nic_rate}, era=era, limits=limits)
    assert rate(bench) == pytest.approx(goodput_bytes_per_s(expected, 1500))


def test_a_limit_holds_on_each_nic() -> None:
    one = {"rate_bytes_per_s": GIGABIT}
    bench = pair(one, one, limits=(GIGABIT // 4, 0))
    assert rate(bench, TransportOption.SMB) == pytest.approx(goodput_bytes_per_s(GIGABIT / 2, 1500))
    assert rate(pair(one, one, team=TeamMode.DYNAMIC, limits=(GIGABIT // 4, 0))) == pytest.approx(
        goodput_bytes_per_s(GIGABIT / 4, 1500)
    )
