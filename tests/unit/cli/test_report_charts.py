"""Charts: well-formed SVG in which the data is where it belongs."""

import math
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import pytest
from tests.unit.cli.report_samples import HOSTILE, a_log, a_move, a_pass, clock, run_of

from ferry_cli.pages import escaped
from ferry_cli.report import svg
from ferry_cli.report.distribution_chart import Series, cumulative, histogram
from ferry_cli.report.documents import Pass
from ferry_cli.report.figures import series
from ferry_cli.report.pass_chart import pass_chart
from ferry_cli.report.timeline_chart import timeline_chart
from ferry_cli.report.timelines import timelines


def drawn(text: str) -> ElementTree.Element:
    """The chart as XML; every number in it is within reach of its view box."""
    root = ElementTree.fromstring(text)
    assert root.get("aria-label")
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    for each in root.iter():
        for name, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            if name in each.attrib:
                assert -1 <= float(each.attrib[name]) <= most + 1, ElementTree.tostring(each)
    return root


def texts(root: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in root.iter("text")]


def of_class(root: ElementTree.Element, css: str) -> list[ElementTree.Element]:
    return [each for each in root.iter() if css in each.get("class", "").split()]


def passes(*documents: dict[str, Any]) -> tuple[Pass, ...]:
    return run_of(a_move(passes=list(documents))).moves[0].passes


# --- pieces ---------------------------------------------------------------------------------------


def test_values_are_escaped_and_controls_replaced() -> None:
    text = svg.element("text", escaped(HOSTILE), class_=HOSTILE, stroke_width=1.5)
    root = ElementTree.fromstring(text)
    assert root.text == root.get("class") == HOSTILE.replace("\x00", "\ufffd")
    assert root.get("stroke-width") == "1.5"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_place_is_no_attribute(value: float) -> None:
    with pytest.raises(ValueError, match="no place in a drawing"):
        svg.line(0, 0, value, 0, "axis")


@pytest.mark.parametrize("high", [0, 1e-6, 0.3, 1, 7, 99, 1234, 1e9])
def test_a_scale_from_zero_has_round_ticks_and_holds_its_highest(high: float) -> None:
    scale = svg.from_zero(high, 0, 100)
    assert scale.at(0) == 0
    assert scale.at(high) <= 100 + 1e-6
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 7
    assert ticks[0] == 0
    assert math.isclose(scale.at(ticks[-1]), 100)


def test_a_logarithmic_scale_has_the_ticks_of_its_decades() -> None:
    scale = svg.Scale(0.002, 0.1, 0, 100, is_log=True)
    assert [f"{tick:g}" for tick in scale.ticks()] == ["0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]
    assert scale.at(0.002) == 0
    assert math.isclose(scale.at(0.1), 100)


# --- passes ---------------------------------------------------------------------------------------


def test_bars_are_dirty_pages_and_the_line_is_the_rate() -> None:
    found = passes(a_pass(1, dirty_pages_after=400), a_pass(2, dirty_pages_after=100))
    root = drawn(pass_chart(found, Pass(**a_pass(0, pages_sent=30)), "label"))
    first, second = (float(bar.attrib["height"]) for bar in of_class(root, "dirty"))
    (last,) = (float(bar.attrib["height"]) for bar in of_class(root, "last"))
    assert math.isclose(first, 4 * second, rel_tol=0.01)
    assert math.isclose(second, last * 10 / 3, rel_tol=0.01)
    assert len(of_class(root, "rate-dot")) == 3
    assert len(of_class(root, "rate")) == 1
    assert {"400", "100", "30", "1", "2", "pause", "pass"} <= set(texts(root))
    assert {"dirty pages (4 KiB each)", "rate (MiB/s)"} <= set(texts(root))
    assert "1000 pages in 500.0 ms; 400 pages dirty afterwards" in ElementTree.tostring(root, "unicode")


@pytest.mark.parametrize(
    ("found", "final"),
    [
        ((a_pass(1),), None),
        ((), a_pass(0)),
        ((a_pass(1, dirty_pages_after=0, bytes_sent=0),), a_pass(0, pages_sent=0, bytes_sent=0)),
        ((a_pass(1, duration_s=0.0),), None),
        (tuple(a_pass(index, dirty_pages_after=2**40) for index in range(1, 1001)), a_pass(0)),
    ],
)
def test_few_and_many_passes(found: Sequence[dict[str, Any]], final: dict[str, Any] | None) -> None:
    last = None if final is None else Pass(**final)
    root = drawn(pass_chart(passes(*found), last, "label"))
    assert len(of_class(root, "dirty")) == len(found)
    known = [
        each for each in (*found, *([final] if final else [])) if each["bytes_sent"] and each["duration_s"]
    ]
    assert len(of_class(root, "rate-dot")) == len(known)
    assert len(texts(root)) < 60


# --- timeline -------------------------------------------------------------------------------------


def test_a_row_a_move_by_source_and_target() -> None:
    run = run_of([a_move("m1"), a_move("m2", vm="b", target="n3"), a_move("m3", vm="c", state="failed")])
    root = drawn(timeline_chart(timelines(run.moves, run_of(a_log()).events), "label"))
    shown = texts(root)
    assert shown.index("n1 → n2") < shown.index("a m1") < shown.index("c m3") < shown.index("n1 → n3")
    assert shown.index("n1 → n3") < shown.index("b m2")
    assert "✕ failed" in shown
    assert len(of_class(root, "phase-unknown")) == 2
    (copying,) = of_class(root, "phase-copying")
    (waiting,) = of_class(root, "phase-queued")
    assert math.isclose(float(copying.attrib["width"]), 2 * float(waiting.attrib["width"]), rel_tol=0.01)
    assert "a: black-out for 250.0 ms" in ElementTree.tostring(root, "unicode")


def test_a_short_black_out_is_still_seen_and_never_ends_late() -> None:
    move = a_move(blackout_s=1e-6)
    root = drawn(timeline_chart(timelines(run_of(move).moves, run_of(a_log()).events), "label"))
    (pause,), (after,) = of_class(root, "phase-blackout"), of_class(root, "phase-switching")
    assert float(pause.attrib["width"]) >= 1.5
    end = float(pause.attrib["x"]) + float(pause.attrib["width"])
    assert math.isclose(end, float(after.attrib["x"]), abs_tol=0.02)


def test_names_are_shown_as_they_are_and_cut() -> None:
    moves = run_of(a_move(vm=HOSTILE * 20, source=HOSTILE, target=HOSTILE)).moves
    root = drawn(timeline_chart(timelines(moves, []), HOSTILE))
    assert not list(root.iter("script"))
    assert any(text.startswith("<script>") and text.endswith("… m1") for text in texts(root))


def test_a_thousand_moves_and_moves_of_no_length() -> None:
    many = [a_move(f"m{number}", requested_at=clock(number / 20)) for number in range(1000)]
    root = drawn(timeline_chart(timelines(run_of(many).moves, []), "label"))
    assert len(of_class(root, "phase-unknown")) == 1000
    drawn(timeline_chart(timelines(run_of(a_move(total_s=0.0)).moves, []), "label"))


# --- black-outs -----------------------------------------------------------------------------------


def of(*values_s: float, name: str = "run", floor_s: float | None = None) -> Series:
    found = series(name, values_s, floor_s)
    assert found is not None
    return found


def heights(root: ElementTree.Element) -> list[list[float]]:
    """How high each stepped outline or curve gets at its corners, in view-box units from the top."""
    lines = [*of_class(root, "step"), *of_class(root, "curve")]
    return [[float(point.split()[1]) for point in line.attrib["d"][1:].split("L")] for line in lines]


def test_both_charts_show_every_run_its_floor_and_the_claim() -> None:
    runs = [of(0.003, 0.004, name="one", floor_s=0.002), of(0.005, 0.006, name="two", floor_s=0.001)]
    for chart in (histogram(runs, "label"), cumulative(runs, "label")):
        root = drawn(chart)
        assert len(heights(root)) == 2
        assert len(of_class(root, "floor")) == 4
        (claim,) = of_class(root, "claim")
        assert "2 ms" in texts(root)
        at_floor = [float(each.attrib["x1"]) for each in of_class(root, "floor")]
        assert at_floor[0] == float(claim.attrib["x1"]) == at_floor[3]


def test_a_single_run_names_its_floor() -> None:
    root = drawn(histogram([of(0.003, floor_s=0.002)], "label"))
    assert {"floor", "2x floor", "black-out (ms)", "share of the moves (%)"} <= set(texts(root))


def test_the_dots_are_the_median_and_the_95th_percentile() -> None:
    values = [number / 1000 for number in range(1, 101)]
    root = drawn(cumulative([of(*values)], "label"))
    hints = [each.findtext("title") for each in of_class(root, "dot")]
    assert hints == ["run: median 50.5 ms", "run: 95th percentile 95.0 ms"]
    assert "black-out (ms, logarithmic)" in texts(root)


def test_the_histogram_is_of_shares_not_counts() -> None:
    few, many = [0.003] * 2 + [0.006] * 2, [0.003] * 200 + [0.006] * 200
    first, second = heights(drawn(histogram([of(*few), of(*many)], "label")))
    assert first == second


@pytest.mark.parametrize(
    "values",
    [(0.0,), (0.005,), (0.005,) * 1000, (0.0, 900.0), (1e-6, 1e6), tuple(i / 1e4 for i in range(1, 1001))],
)
def test_one_value_equal_values_and_extreme_ones(values: tuple[float, ...]) -> None:
    for chart in (histogram, cumulative):
        (line,) = heights(drawn(chart([of(*values)], "label")))
        assert min(line) >= 30


def test_sixteen_runs_with_hostile_names() -> None:
    runs = [of(0.003 + number / 1e4, name=HOSTILE) for number in range(16)]
    root = drawn(cumulative(runs, HOSTILE))
    classes = [each.get("class") for each in of_class(root, "curve")]
    assert len(set(classes)) == 16
    assert not list(root.iter("script"))
