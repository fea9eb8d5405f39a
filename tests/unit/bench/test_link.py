"""The link of the peers carries what a NIC of its rate does."""

from pathlib import Path

import pytest

from ferry_cli.bench.arena import lab_spec
from ferry_cli.bench.link import link_goodput_bytes_per_s, shaped_link, shaping_command
from ferry_cli.bench.peers import PeerUnavailable
from ferry_types.network_words import parse_network, parse_nic
from ferry_types.networks import NetworkRole

GIGABIT_BYTES_PER_S = 125_000_000


def test_a_link_carries_the_goodput_of_jumbo_frames_and_the_headers_of_loopback() -> None:
    assert link_goodput_bytes_per_s(GIGABIT_BYTES_PER_S) == pytest.approx(
        0.99 * GIGABIT_BYTES_PER_S, rel=1e-3
    )
    words = shaping_command(GIGABIT_BYTES_PER_S).split()
    assert words[words.index("rate") + 1] == "991039888bit"
    assert int(words[words.index("limit") + 1]) > int(words[words.index("burst") + 1]) > 65_536


def test_hosts_have_a_nic_of_the_rate_over_which_every_option_can_move() -> None:
    spec = lab_spec(2**20, GIGABIT_BYTES_PER_S)
    nics = [parse_nic(dict(node.options)["nic"]) for node in spec.nodes]
    assert len({nic.address for nic in nics}) == 2
    for nic in nics:
        assert (nic.rate_bytes_per_s, nic.mtu, nic.rdma) == (GIGABIT_BYTES_PER_S, 9000, True)
    (network,) = map(parse_network, spec.networks)
    assert network.role is NetworkRole.MIGRATION


def test_an_unshaped_lab_has_no_nics() -> None:
    spec = lab_spec(2**20, None)
    assert not any(node.options for node in spec.all_nodes)


async def test_without_the_tools_there_is_no_link_and_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PeerUnavailable, match="unshare, nsenter, ip, tc"):
        async with shaped_link(GIGABIT_BYTES_PER_S):
            pytest.fail("there is no link")


async def test_where_namespaces_cannot_be_made_there_is_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tool in ("unshare", "nsenter", "ip", "tc"):
        program = tmp_path / tool
        program.write_text("#!/bin/sh\necho Operation not permitted >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PeerUnavailable, match="Operation not permitted"):
        async with shaped_link(GIGABIT_BYTES_PER_S):
            pytest.fail("there is no link")
