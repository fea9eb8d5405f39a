"""Figures of a whole bench: medians, ratios, targets, and the page that shows them."""

import json
from pathlib import Path

import pytest
from tests.unit.bench.bench_samples import FLOOR, a_group, a_result, own_run, peer_runs, the_group

from ferry_cli.bench import markdown, results, rows
from ferry_cli.bench.cells import all_groups
from ferry_cli.bench.document import PeerRuns
from ferry_cli.bench.results import GroupResult
from ferry_cli.bench.targets import Target, targets
from ferry_types.errors import ErrorCode, FerryError

RANDOM = the_group("unshaped", "random", "idle")


def compared() -> GroupResult:
    own = {
        "tcpip": [own_run(1.0), own_run(4.0), own_run(2.0)],
        "smb": [own_run(1.8)],
        "direct": [own_run(0.5)],
    }
    peers = (
        peer_runs("qemu-multifd", 0.6),
        peer_runs("grpc", 1.5, 9.0, 1.0),
        peer_runs("grpc-2", 1.5),
        peer_runs("socket", 0.4),
        peer_runs("socket-2", 0.45),
    )
    return a_group(RANDOM, own, peers)


def found(result: list[Target], what: str) -> Target:
    (target,) = (each for each in result if each.what.startswith(what))
    return target


def test_figures_are_medians_and_ratios_are_ours_over_the_peers() -> None:
    tcpip = compared().option("tcpip")
    assert tcpip is not None
    assert tcpip.total_s == 2.0
    assert tcpip.throughput_bytes_per_s == 2**29
    assert tcpip.spread == 1.5
    assert tcpip.ratios["grpc"] == 0.75
    assert tcpip.runs_total_s == (1.0, 4.0, 2.0)
    assert tcpip.processors == (0.9, 1.1)


def test_a_peer_that_did_not_run_is_shown_with_the_reason_and_has_no_ratio() -> None:
    group = a_group(RANDOM, {"tcpip": [own_run(1.0)]}, (PeerRuns("qemu", "", (), "not installed"),))
    assert group.own[0].ratios == {}
    assert group.peer("qemu") is None
    ours, qemu = rows.group_rows(group)
    assert ours[-1] == "-"
    assert qemu[1] == "not measured: not installed"
    assert len(ours) == len(qemu) == len(rows.group_columns(group))


def test_options_are_measured_by_their_equals() -> None:
    asked = targets(a_result(compared()))
    assert found(asked, "tcpip over grpc,").measured == 0.75
    assert found(asked, "smb over grpc-2").measured == 0.833
    assert found(asked, "smb over tcpip").measured == pytest.approx(2 / 1.8, rel=1e-3)
    assert found(asked, "direct over qemu-multifd").measured == 1.2
    assert found(asked, "direct over socket").what == "direct over socket, random, unshaped"
    assert [each.is_met for each in asked] == [False, False, True, True, False]


def test_zeros_are_asked_of_every_option() -> None:
    zero = the_group("unshaped", "zero", "idle")
    own = {"tcpip": [own_run(0.1)], "direct": [own_run(0.2)]}
    asked = targets(a_result(a_group(zero, own, (peer_runs("qemu", 0.15),))))
    assert [(each.measured, each.is_met) for each in asked] == [(1.5, True), (0.75, False)]


def test_compression_is_held_to_the_rate_of_the_link() -> None:
    files = the_group("1Gbit/s", "files", "idle")
    run = own_run(2.2, brownout_s=2.08, bytes_sent=250_000_000)
    (target,) = targets(a_result(a_group(files, {"compression": [run]})))
    assert target.measured == pytest.approx(1.04)
    assert target.is_met


def test_black_outs_are_held_to_the_floor_of_their_run() -> None:
    (group,) = (each for each in all_groups() if each.is_distribution)
    runs = [own_run(1.0, blackout_s=0.001 + number * 1e-5) for number in range(100)]
    median, p95 = targets(a_result(a_group(group, {"tcpip": runs})))
    assert median.measured == pytest.approx(1.495)
    assert p95.measured == pytest.approx(1.94)
    assert "100 moves" in median.what


def test_the_black_out_of_a_writing_guest_may_hold_the_last_pages_and_three_floors() -> None:
    group = the_group("unshaped", "random", "dirtying")
    run = own_run(1.0, blackout_s=0.006, brownout_s=1.0, bytes_sent=10**9 + 10**6, last_bytes_sent=10**6)
    (target,) = targets(a_result(a_group(group, {"tcpip": [run]})))
    assert target.measured == pytest.approx(0.006 / (0.001 + 3 * FLOOR.total_s))
    assert not target.is_met


def test_what_was_not_measured_is_not_asked() -> None:
    shaped = the_group("10Gbit/s", "random", "idle")
    assert targets(a_result(a_group(shaped, {"tcpip": [own_run(1.0)]}))) == []


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    result = a_result(compared(), a_group(the_group("1Gbit/s", "zero", "idle"), {"smb": [own_run(0.1)]}))
    file = tmp_path / "result.json"
    file.write_text(results.as_text(result))
    assert results.read(file) == result
    assert json.loads(file.read_text()) == results.as_document(result)


@pytest.mark.parametrize(
    ("text", "told"), [("{}", "made_at"), ("[1", "not a result"), ('{"format": 2}', "format")]
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(text)
    with pytest.raises(FerryError, match=told) as raised:
        results.read(file)
    assert raised.value.refusal.code is ErrorCode.MALFORMED


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FerryError, match="nowhere"):
        results.read(tmp_path / "nowhere.json")


def test_the_page_names_the_machine_and_shows_every_group() -> None:
    (blackout,) = (each for each in all_groups() if each.is_distribution)
    page = markdown.render(a_result(compared(), a_group(blackout, {"tcpip": [own_run(1.0)] * 3})))
    lines = page.splitlines()
    assert "| processor | A Processor, 2 cores |" in lines
    assert "| QEMU | not installed |" in lines
    assert "| tcpip over grpc, random, unshaped | at least 0.85 | 0.75 | not met |" in lines
    assert "### unshaped, 1 GiB of random, idle guest" in lines
    assert "| grpc-2 | 1.500 s | 0.72 GB/s | 0% |  |  |  |  |  |  |  |  |" in lines
    assert any(line.startswith("| over floor | 1.0 | 2.0 | 2.0 | 2.0 | 2.0 | 2.0 |") for line in lines)
    for option in ("tcpip", "compression", "smb", "direct"):
        assert f"**{option}.**" in page


def test_the_page_says_how_many_runs_were_made_again() -> None:
    disturbed = compared().model_copy(update={"set_aside": 3})
    assert "Floor of a black-out: 1.0 ms. 3 runs were made again" in markdown.render(a_result(disturbed))
    assert "made again:" not in markdown.render(a_result(compared()))


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    page = markdown.render(a_result(compared()))
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) >= 3
    for table in tables:
        assert len({line.count(" | ") for line in table}) == 1, table[0]
