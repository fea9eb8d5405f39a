"""The matrix of a whole bench, and the parts of it that can be asked for."""

from itertools import product
from pathlib import Path

import pytest
from tests.unit.bench.bench_samples import the_group

from ferry_cli.bench import cells
from ferry_cli.bench.catalogue import PEERS, choose_peers
from ferry_cli.bench.cells import all_groups, chosen
from ferry_cli.bench.estimate import estimate_s
from ferry_cli.bench.memory import SETTLE_S
from ferry_cli.bench.results import FORMAT, SuiteResult
from ferry_types.errors import ErrorCode, FerryError
from ferry_types.migrations import TransportOption

MIB = 2**20
WHOLE_S_MAX = 45 * 60
PEERS_OF_THE_COMMAND_LINE = {"qemu", "qemu-multifd", "grpc", "socket"}


def test_every_option_is_measured_on_every_memory_with_both_guests_over_every_wire() -> None:
    measured = {
        (group.wire.name, group.contents, group.guest.name, option)
        for group in all_groups()
        for option in group.options
    }
    assert measured == set(
        product(
            ("unshaped", "10Gbit/s", "1Gbit/s"),
            ("random", "files", "zero"),
            ("idle", "dirtying"),
            TransportOption,
        )
    )
    assert all(group.runs >= 5 for group in all_groups())


def test_every_peer_stands_beside_idle_random_memory_on_every_wire() -> None:
    for wire in cells.WIRES:
        assert set(the_group(wire.name, "random", "idle").peers) >= PEERS_OF_THE_COMMAND_LINE
        if wire.rate_bytes_per_s is not None:
            assert "qemu-zstd" in the_group(wire.name, "files", "idle").peers
    assert {peer for group in all_groups() for peer in group.peers} <= PEERS.keys()


def test_peers_have_idle_memory_and_do_not_stand_beside_guests_that_write() -> None:
    assert not any(group.peers for group in all_groups() if group.guest.name == "dirtying")


def test_times_that_are_compared_are_measured_on_a_quiet_machine() -> None:
    compared = [group for group in all_groups() if group.peers or group.contents in {"random", "files"}]
    assert all(group.is_compared for group in compared if not group.is_distribution)
    assert not any(group.is_compared for group in all_groups() if group.is_distribution)


def test_black_outs_of_an_idle_guest_are_a_hundred_and_unshaped() -> None:
    (distribution,) = (group for group in all_groups() if group.is_distribution)
    assert distribution.runs >= 100
    assert (distribution.wire.rate_bytes_per_s, distribution.guest.name) == (None, "idle")


def test_the_whole_takes_no_longer_than_is_allowed() -> None:
    assert 0 < estimate_s(all_groups()) <= WHOLE_S_MAX


def test_an_estimate_follows_what_is_asked_for() -> None:
    whole = estimate_s(all_groups())
    assert estimate_s(all_groups(runs=10)) > 1.5 * whole
    assert estimate_s(chosen(all_groups(), ["1Gbit/s"])) < whole / 2
    assert estimate_s(chosen(all_groups(1, 5), [], (), 64 * MIB)) < 120


def test_an_estimate_counts_a_rest_before_each_black_out() -> None:
    assert estimate_s(chosen(all_groups(1, 100), ["blackout"])) > 100 * SETTLE_S


def test_words_of_one_kind_add_up_and_kinds_narrow_each_other() -> None:
    left = chosen(all_groups(), ["smb", "direct", "zero", "1Gbit/s"])
    assert [(group.contents, group.guest.name, group.options) for group in left] == [
        ("zero", "idle", ("smb", "direct")),
        ("zero", "dirtying", ("smb", "direct")),
    ]
    assert all(group.wire.name == "1Gbit/s" for group in left)


def test_black_outs_can_be_asked_for_alone() -> None:
    (only,) = chosen(all_groups(), ["blackout"])
    assert only.is_distribution


def test_peers_and_memory_can_be_chosen() -> None:
    left = chosen(all_groups(), ["random", "idle"], ["grpc"], 32 * MIB)
    assert [group.peers for group in left] == [("grpc",), (), ("grpc",), ("grpc",)]
    assert {group.wire.memory_bytes for group in left} == {32 * MIB}
    assert not any(group.peers for group in chosen(all_groups(), [], []))


@pytest.mark.parametrize(("words", "told"), [(["xen"], "no 'xen'"), (["smb", "blackout"], "smb, blackout")])
def test_what_names_nothing_is_malformed(words: list[str], told: str) -> None:
    with pytest.raises(FerryError, match=told) as raised:
        chosen(all_groups(), words)
    assert raised.value.refusal.code is ErrorCode.MALFORMED


def test_each_cell_says_what_measures_it_by_itself() -> None:
    command = the_group("10Gbit/s", "files", "dirtying").command("smb")
    assert command == (
        "ferry bench migrate --memory 512MiB --fill files --workload sql --write-rate 50MiB/s "
        "--rate 10Gbit/s --option smb --runs 5"
    )
    beside = the_group("unshaped", "zero", "idle").command("tcpip")
    assert beside.endswith("--against qemu,qemu-multifd")
    assert [peer.name for peer in choose_peers(beside.rpartition(" ")[2])] == ["qemu", "qemu-multifd"]


def test_a_result_that_stands_in_the_documents_is_one_of_this_format() -> None:
    made = Path(__file__).parents[3] / "docs" / "benchmarks.json"
    if made.exists():
        assert SuiteResult.model_validate_json(made.read_bytes()).format == FORMAT
        assert made.stat().st_size < 100_000
