"""Figures of moves and drains beside what a scenario expects: what is off is told, and fails the run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ferry_sim.scenarios import model, runner
from ferry_sim.scenarios.bounds import parse_bound, parse_nearness
from ferry_sim.scenarios.document import Malformed
from ferry_sim.scenarios.figures import Check, checks, measured_of_move
from ferry_sim.scenarios.live_only import live_only
from ferry_sim.scenarios.outcome import Outcome, missed
from ferry_sim.scenarios.seen import Seen, SeenEvent, SeenMove
from ferry_types.migrations import MigrationFigures, MoveEstimate, PassFigures

REFERENCE = sorted((Path(__file__).parents[2] / "reference").glob("*.yaml"))
NIC = {"network": "live", "rate": "1Gbit/s"}
GOODPUT = 125e6 * 1448 / 1538
"""Of 1 Gbit/s at an MTU of 1500, in bytes per second."""

BROWNOUT_S, BLACKOUT_S, TOTAL_S = 10.0, 0.4, 10.5
PASS_BYTES = round(GOODPUT * BROWNOUT_S)
LAST_PAGES = 842
FIGURES = MigrationFigures(
    passes=(
        PassFigures(1, 1, 0, PASS_BYTES - 4096, 9.0, 1),
        PassFigures(2, 1, 0, 4096, 1.0, LAST_PAGES),
    ),
    final=PassFigures(0, LAST_PAGES, 0, LAST_PAGES * 4096, 0.3, 0),
    brownout_s=BROWNOUT_S,
    blackout_s=BLACKOUT_S,
    bytes_sent=PASS_BYTES + LAST_PAGES * 4096,
    estimate=MoveEstimate(2, 9.0, 0.3, PASS_BYTES, GOODPUT, 1e6, "because"),
)
MOVE = SeenMove("m1", "a", "n1", "n2", "completed", "", "tcpip", "live", "", 0, TOTAL_S, FIGURES)


def scenario(**changes: Any) -> model.Scenario:
    nics = changes.pop("nics", {"live": NIC})
    given = {
        "title": "t",
        "shows": "s",
        "rule": "r",
        "networks": {"live": "migration"},
        "nodes": {"n1": {"nics": nics}, "n2": {"nics": nics}},
        "vms": {"a": {"node": "n1"}, "b": {"node": "n1"}, "c": {"node": "n1"}},
        "steps": ["vm migrate a to n2", "wait"],
        **changes,
    }
    return model.load(yaml.safe_dump(json.loads(json.dumps(given)), sort_keys=False))


def expecting(figures: dict[str, Any] | None = None, estimate: dict[str, Any] | None = None) -> Any:
    return [{"vm": "a", "figures": figures or {}, "estimate": estimate or {}}]


def the_check(expected: model.Scenario, move: SeenMove = MOVE) -> Check:
    (check,) = checks(expected, Seen({}, {}, (), (move,)))
    return check


@pytest.mark.parametrize(
    ("figure", "right", "wrong", "measured"),
    [
        ("total_s", "about 10.5 within 1 %", "about 12 within 5 %", "10.5"),
        ("brownout_s", "9.9 to 10.1", "at most 9.9", "10"),
        ("blackout_s", "at most 0.4", "at least 0.41", "0.4"),
        ("passes", 2, 3, "2"),
        ("bytes_sent", "at least 1000", "at most 1000", str(FIGURES.bytes_sent)),
        ("last_dirty_pages", "500 to 1500", "about 900 within 5 %", "842"),
        ("link_share", "about 1 within 0.1 %", "about 0.7 within 5 %", "1"),
        ("times_arithmetic", "about 1.047 within 0.1 %", "about 1 within 1 %", "1.04693"),
    ],
)
def test_each_figure_is_held_against_its_bound(figure: str, right: Any, wrong: Any, measured: str) -> None:
    assert the_check(scenario(moves=expecting({figure: right}))).ok
    check = the_check(scenario(moves=expecting({figure: wrong})))
    assert (check.ok, check.figure, check.measured) == (False, figure, measured)
    assert check.words.startswith(f"moves[0] (a): {figure} is {measured}, expected {wrong}")


@pytest.mark.parametrize(
    ("figure", "right", "wrong"),
    [
        ("total_s", "within 12 %", "within 11 %"),
        ("brownout_s", "within 10 %", "within 9 %"),
        ("blackout_s", "within 5 % or 0.11", "within 20 %"),
        ("passes", "within 0", None),
        ("bytes_sent", "within 1 %", "within 0.1 %"),
    ],
)
def test_an_estimate_is_held_against_what_came_of_it(figure: str, right: str, wrong: str | None) -> None:
    assert the_check(scenario(moves=expecting(estimate={figure: right}))).ok
    if wrong is not None:
        check = the_check(scenario(moves=expecting(estimate={figure: wrong})))
        assert not check.ok
        assert f"estimated {figure} is" in check.words


def test_what_is_not_known_is_not_as_expected() -> None:
    unknown = replace(MOVE, figures=replace(FIGURES, estimate=None, final=None, blackout_s=None), total_s=0)
    for figure in ("blackout_s", "last_dirty_pages", "total_s"):
        check = the_check(scenario(moves=expecting({figure: "at least 0"})), unknown)
        assert (check.ok, check.measured) == (False, "not known")
    check = the_check(scenario(moves=expecting(estimate={"brownout_s": "within 50 %"})), unknown)
    assert (check.ok, check.measured) == (False, "not known")
    assert not the_check(scenario(moves=expecting({"passes": "at least 0"})), replace(MOVE, figures=None)).ok


def test_a_wrong_figure_fails_the_run() -> None:
    expected = scenario(moves=expecting({"total_s": 3}))
    seen = Seen({}, {}, (), (MOVE,))
    outcome = Outcome("t", 1, seen, (), (), 0, 1.0, tuple(checks(expected, seen)))
    assert missed(expected, seen) == [], "the move itself is as expected"
    assert not outcome.ok


def test_figures_are_not_taken_for_granted_on_virtual_time() -> None:
    outcome = runner.run(scenario(moves=expecting({"passes": "at least 0"})))
    assert (outcome.failures, outcome.ok) == ((), False)


def test_nics_add_up_and_early_eras_leave_a_part() -> None:
    ten = {"network": "live", "rate": "10Gbit/s"}
    share = 0.1
    two = scenario(nics={"one": ten, "two": ten}, moves=expecting({"passes": 2}))
    assert measured_of_move(two, MOVE)["link_share"] == pytest.approx(share / 2)
    early = scenario(nics={"one": ten}, era="2008r2", moves=expecting({"passes": 2}))
    figures = measured_of_move(early, MOVE)
    assert figures["link_share"] == pytest.approx(share), "of the whole link"
    times = figures["times_arithmetic"]
    assert times is not None
    assert times == pytest.approx(7 * 1.04693, rel=1e-4), "of what the era leaves"
    unshaped = scenario(nics={"one": {"network": "live"}}, moves=expecting({"passes": 2}))
    assert measured_of_move(unshaped, MOVE)["link_share"] is None


def test_a_team_is_one_link() -> None:
    member = {"network": "live", "rate": "5Gbit/s", "team": "t"}
    node = {"teams": {"t": "dynamic"}, "nics": {"one": member, "two": member}}
    early = scenario(nodes={"n1": node, "n2": node}, era="2008r2", moves=expecting({"passes": 2}))
    times = measured_of_move(early, MOVE)["times_arithmetic"]
    assert times == pytest.approx(7 * 1.04693, rel=1e-4)


# --- drains -------------------------------------------------------------------------------------------


def drained(*spans_s: tuple[str, float, float, float]) -> Seen:
    """Moves of a drain: VM, when it was asked for, got its slots and ended."""
    moves, events = [], []
    for vm, asked_s, begun_s, ended_s in spans_s:
        figures = replace(FIGURES, bytes_sent=round(GOODPUT * 2))
        moves.append(
            replace(
                MOVE,
                vm=vm,
                cause="drain",
                requested_at_us=round(asked_s * 1e6),
                total_s=ended_s - asked_s,
                figures=figures,
            )
        )
        for at_s, event_id in ((begun_s, 20413), (ended_s, 22507)):
            events.append(SeenEvent(round(at_s * 1e6), event_id, "log", "information", "n1", vm, ""))
    return Seen({}, {}, tuple(sorted(events, key=lambda event: event.time_us)), tuple(moves))


DRAINED = drained(("a", 100, 100, 104), ("b", 100, 100.5, 103), ("c", 100, 103, 106))


@pytest.mark.parametrize(
    ("figure", "right", "wrong"),
    [
        ("total_s", 6, "at most 5.9"),
        ("moves", 3, 4),
        ("at_once", 2, 3),
        ("link_share", 1, "at least 1.1"),
        ("times_arithmetic", 1, "at most 0.9"),
        ("order", ["a", "b", "c"], ["b", "a", "c"]),
    ],
)
def test_a_drain_is_judged_as_a_whole(figure: str, right: Any, wrong: Any) -> None:
    bound = right if isinstance(right, list) else f"about {right} within 0.1 %"
    (check,) = checks(scenario(drains=[{"node": "n1", figure: bound}]), DRAINED)
    assert check.ok, check.words
    (check,) = checks(scenario(drains=[{"node": "n1", figure: wrong}]), DRAINED)
    assert not check.ok


def test_a_slot_that_is_freed_is_given_away_at_once_and_one_too_many_is_seen() -> None:
    within = scenario(drains=[{"node": "n1", "at_once": 2}])
    assert checks(within, DRAINED)[0].ok
    over = drained(("a", 100, 100, 104), ("b", 100, 100, 104), ("c", 100, 103.9, 106))
    assert checks(within, over)[0].words == "drains[0] (n1): at_once is 3, expected 2"


def test_a_node_that_was_not_drained_has_no_figures() -> None:
    (check,) = checks(scenario(drains=[{"node": "n2", "total_s": "at least 0"}]), DRAINED)
    assert (check.ok, check.measured) == (False, "not known")


# --- what is written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["about 16", "16 %", "5 to 3", "under 3", "within 5 %", "-3", "about 1 within %"]
)
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a bound|ends before it begins"):
        parse_bound(text)


@pytest.mark.parametrize("text", ["15 %", "within", "within 0.1 or 5 %", "about 3 within 5 %"])
def test_what_is_not_how_near_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not how near"):
        parse_nearness(text)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"moves": expecting({"total_s": "16 or so"})},
            "moves[0].figures.total_s: '16 or so' is not a bound",
        ),
        ({"moves": expecting({"speed": 3})}, "moves[0].figures.speed: there is no such field"),
        ({"moves": expecting(estimate={"passes": 3})}, "moves[0].estimate.passes:"),
        ({"drains": [{"node": "n9"}]}, "drains[0].node: there is no node n9"),
        ({"drains": [{"node": "n1", "order": ["a", "x"]}]}, "drains[0].order[1]: there is no VM x"),
        ({"scale": 0}, "scale: it is too small: at least 1"),
        ({"scale": 64}, "vms.a.memory: a has 16 MiB of memory: at scale 64 a VM has at least 256 MiB"),
        ({"networks": {"live": "lan"}}, "networks.live: 'lan' is not one of client, cluster, migration"),
        ({"nics": {"live": {**NIC, "rate": 0}}}, "nodes.n1.nics.live.rate: a rate of zero"),
        ({"nics": {"live": {**NIC, "team": "t"}}}, "nodes.n1.nics.live.team: node n1 has no team t"),
        ({"nics": {"live": {**NIC, "address": "127.1.1.1"}}}, "127.1.1.1 is the address of live of n1, too"),
        ({"vms": {"a": {"fill": "ones"}}}, "vms.a.fill: 'ones' is no fill"),
        ({"vms": {"a": {"working_set": "1GiB"}}}, "vms.a: working set of 1 GiB does not fit"),
        ({"vms": {"a": {"access": "often"}}}, "vms.a.access:"),
        ({"steps": ["vm migrate a to n2 option=fast"]}, "steps[0].step: 'fast' is not an option: tcpip"),
        ({"steps": ["vm migrate a to n2 pass-limit=0"]}, "pass limit 0 is out of range"),
        ({"steps": ["vm migrate a to n2 speed=1"]}, "'speed=1' is not one of option="),
        ({"steps": ["vm create b2 write-rate=fast"]}, "'fast' is not a rate"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(changes: dict[str, Any], said: str) -> None:
    given = {"end": {"nodes": {"n1": "up"}}, **changes}
    with pytest.raises(Malformed) as raised:
        scenario(**given)
    assert said in raised.value.problems[0]


def test_a_nic_has_the_words_of_a_topology_and_a_role_or_a_network_may_stand_alone() -> None:
    nics = {"live": {"network": "live", "rate": "10Gbit/s", "latency": "50us", "mtu": 9000, "rdma": True}}
    described = scenario(nics=nics, end={"nodes": {"n1": "up"}}).capacities["n2"].nics
    assert [(nic.rate_bytes_per_s, nic.latency_s, nic.mtu, nic.rdma) for nic in described] == [
        (1_250_000_000, 5e-05, 9000, True)
    ]
    short = scenario(nics={"live": "live"}, end={"nodes": {"n1": "up"}})
    long = scenario(
        nics={"live": {"network": "live"}},
        networks={"live": {"role": "migration"}},
        end={"nodes": {"n1": "up"}},
    )
    assert (short.capacities, short.network_values) == (long.capacities, long.network_values)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"moves": expecting({"passes": 1})}, "it expects figures of moves"),
        ({"moves": expecting(estimate={"passes": "within 1"})}, "it expects figures of moves"),
        ({"drains": [{"node": "n1", "moves": 1}]}, "it expects figures of moves"),
        ({"scale": 4}, "scale is of real memory and real rates"),
        ({"nics": {"live": NIC}}, "NIC live of n1 has a rate or a latency"),
        ({"steps": ["vm migrate a to n2 pass-limit=3"]}, "'vm migrate a to n2 pass-limit=3' chooses how"),
    ],
)
def test_why_a_scenario_is_live_only(changes: dict[str, Any], why: str) -> None:
    (reason,) = live_only(scenario(**{"nics": {"live": "live"}, "end": {"nodes": {"n1": "up"}}, **changes}))
    assert why in reason


@pytest.mark.parametrize("file", REFERENCE, ids=lambda file: str(file.stem))
def test_the_reference_points_are_sound_and_check_an_estimate_too(file: Path) -> None:
    point = model.read(file)
    assert live_only(point)
    assert any(move.estimate.brownout_s for move in point.moves)
    bounds = [move.figures for move in point.moves] + [*point.drains]
    assert any(each.total_s or each.link_share for each in bounds)


def test_a_scenario_without_any_of_these_runs_on_virtual_time() -> None:
    assert live_only(scenario(nics={"live": "live"}, moves=[{"vm": "a"}])) == []
