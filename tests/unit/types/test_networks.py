"""Networks, NICs and teams: what they may be, and how people write them."""

import re
from dataclasses import replace
from typing import Any

import pytest

from ferry_types.links import TrafficClass
from ferry_types.network_words import (
    network_words,
    nic_words,
    parse_network,
    parse_nic,
    parse_qos,
    parse_team,
    qos_words,
    team_words,
)
from ferry_types.networks import (
    Network,
    NetworkRole,
    Nic,
    Team,
    TeamMode,
    membership_problem,
    networks_problem,
    nics_problem,
    path_mtu,
)
from ferry_types.qos import QosPolicy, qos_problem

NIC = Nic("live", "migration", "10.0.1.5", 1_250_000_000, 0.00025, 9000, True, "")
TEAM = Team("front", TeamMode.DYNAMIC)
NETWORK = Network("migration", NetworkRole.MIGRATION, 1000, "10.0.1.0/24")


def test_a_nic_is_written_with_units_and_read_back() -> None:
    text = "name=live, network=migration,address=10.0.1.5,rate=10Gbit/s,latency=250us,mtu=9000,rdma=yes"
    assert parse_nic(text) == NIC
    table = {
        "name": "live", "network": "migration", "address": "10.0.1.5", "rate": "10Gbit/s",
        "latency": "250us", "mtu": 9000, "rdma": True,
    }  # fmt: skip
    assert parse_nic(table) == NIC
    assert parse_nic(nic_words(NIC)) == NIC
    plain = Nic("a", "n", "fd00::1", team="front", latency_s=0.000_001)
    assert parse_nic(nic_words(plain)) == plain
    assert parse_team(team_words(TEAM)) == TEAM
    assert parse_network(network_words(NETWORK)) == NETWORK
    assert parse_network("name=a,role=storage") == Network("a", NetworkRole.STORAGE)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rate": "0"}, "a rate of zero lets nothing through"),
        ({"rate": 0}, "a rate of zero lets nothing through"),
        ({"rate": "10"}, "write it per second"),
        ({"rate": "1bit/s"}, "a rate of zero"),
        ({"rate": "1kbit/s"}, "a rate of 1kbit/s is out of range: from 8kbit/s to 400Gbit/s"),
        ({"rate": "500Gbit/s"}, "out of range: from 8kbit/s to 400Gbit/s"),
        ({"rate": True}, "no rate"),
        ({"mtu": "575"}, "MTU 575 of NIC live is out of range: from 576 to 9216 bytes"),
        ({"mtu": 9217}, "out of range"),
        ({"mtu": "jumbo"}, "mtu 'jumbo' is no whole number"),
        ({"latency": "2s"}, "latency of 2 s of NIC live is out of range"),
        ({"latency": "nan"}, "is not a duration"),
        ({"address": "10.0.1.5:7000"}, "is no IP address: write it as 10.0.1.5, without port"),
        ({"address": "0.0.0.0"}, "is not that of one adapter"),
        ({"address": "224.0.0.1"}, "is not that of one adapter"),
        ({"address": "FD00::1"}, "is to be written as fd00::1"),
        ({"name": "a b"}, "NIC name 'a b' is not valid"),
        ({"network": "-"}, "network name of NIC live '-' is not valid"),
        ({"team": "?"}, "team name"),
        ({"rdma": "maybe"}, "rdma 'maybe' is neither yes nor no"),
        ({"colour": "red"}, "a NIC has no 'colour': it has name, network, address"),
    ],
)
def test_what_a_nic_cannot_be_is_told(changes: dict[str, Any], said: str) -> None:
    words = {"name": "live", "network": "migration", "address": "10.0.1.5", **changes}
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_nic(words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name=a,role=lan", "role 'lan' is not one of client, cluster, migration, csv, storage, management"),
        ("name=a", "a network needs a role"),
        ("name=a,name=b,role=csv", "name is there twice"),
        ("name=a,role", "'role' in a network is not of the form name=value"),
        ("name=a,role=csv,metric=268435456", "metric 268435456 of network a is out of range"),
        ("name=a,role=csv,subnet=10.0.1.5/24", "is no subnet: write it as 10.0.1.0/24"),
        (7, "7 is no network: write it as name=...,role=..., or as a table"),
    ],
)
def test_what_a_network_cannot_be_is_told(text: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_network(text)


def nic(name: str, address: str, **changes: Any) -> Nic:
    return replace(Nic(name, "front", address), **changes)


@pytest.mark.parametrize(
    ("nics", "teams", "rule"),
    [
        ([nic("a", "10.0.0.1"), nic("a", "10.0.0.2")], [], "nic names"),
        ([nic("a", "10.0.0.1"), nic("b", "10.0.0.1")], [], "nic addresses"),
        ([nic("a", "10.0.0.1", team="t")], [], "known team"),
        ([nic("a", "10.0.0.1")], [Team("t", TeamMode.STATIC)], "team members"),
        ([nic("a", "10.0.0.1", team="t")], [Team("t", TeamMode.STATIC)] * 2, "team names"),
        ([nic("a", "10.0.0.1", team="t", rdma=True)], [Team("t", TeamMode.STATIC)], "rdma in a team"),
        (
            [nic("a", "10.0.0.1", team="t"), nic("b", "10.0.0.2", team="t", network="back")],
            [Team("t", TeamMode.STATIC)],
            "team of one network",
        ),
        ([nic(f"n{i}", f"10.0.0.{i}") for i in range(33)], [], "nic limit"),
    ],
)
def test_nics_that_do_not_go_together_are_refused_by_rule(
    nics: list[Nic], teams: list[Team], rule: str
) -> None:
    problem = nics_problem(nics, teams)
    assert problem is not None
    assert problem.rule == rule


def test_sound_nics_are_not_refused() -> None:
    nics = [nic("a", "10.0.0.1", team="t"), nic("b", "10.0.0.2", team="t"), nic("c", "10.0.0.3", rdma=True)]
    assert nics_problem(nics, [Team("t", TeamMode.STATIC)]) is None
    assert nics_problem([], []) is None


def test_networks_have_names_and_subnets_of_their_own() -> None:
    one = Network("a", NetworkRole.CSV, subnet="10.0.0.0/16")
    for other, rule in (
        (Network("a", NetworkRole.CLIENT), "network names"),
        (Network("b", NetworkRole.CLIENT, subnet="10.0.7.0/24"), "subnets"),
    ):
        problem = networks_problem([one, other])
        assert problem is not None
        assert problem.rule == rule
    assert networks_problem([one, Network("b", NetworkRole.CLIENT, subnet="fd00::/64")]) is None


def test_a_nic_is_of_a_network_that_there_is_and_in_its_subnet() -> None:
    networks = [Network("front", NetworkRole.CLIENT, subnet="10.0.0.0/24")]
    assert membership_problem([nic("a", "10.0.0.1")], networks) is None
    for wrong, rule in (
        (nic("a", "10.0.1.1"), "subnet"),
        (nic("a", "10.0.0.1", network="back"), "known network"),
    ):
        problem = membership_problem([wrong], networks)
        assert problem is not None
        assert problem.rule == rule


def test_jumbo_frames_need_both_ends() -> None:
    small, jumbo = nic("a", "10.0.0.1"), nic("b", "10.0.0.2", mtu=9000)
    assert path_mtu(jumbo, jumbo) == 9000
    assert path_mtu(jumbo, small) == path_mtu(jumbo, nic("c", "10.0.0.3", mtu=4000)) == 1500
    assert path_mtu(nic("d", "10.0.0.4", mtu=1400), jumbo) == 1400


@pytest.mark.parametrize(
    "policy",
    [QosPolicy(TrafficClass.MIGRATION, 50_000_001, 40), QosPolicy(TrafficClass.CSV, weight=1)],
    ids=str,
)
def test_what_a_class_gets_is_read_as_it_is_written(policy: QosPolicy) -> None:
    assert parse_qos(qos_words(policy)) == policy


@pytest.mark.parametrize(
    ("policies", "has_nics", "rule"),
    [
        ([QosPolicy(TrafficClass.CSV, weight=1), QosPolicy(TrafficClass.CSV, 10**6)], True, "qos classes"),
        (
            [QosPolicy(TrafficClass.CSV, weight=50), QosPolicy(TrafficClass.CLIENT, weight=51)],
            True,
            "qos weights",
        ),
        ([QosPolicy(TrafficClass.CSV, weight=50)], False, "qos without nic"),
    ],
)
def test_limits_and_weights_that_do_not_go_together_are_refused_by_rule(
    policies: list[QosPolicy], has_nics: bool, rule: str
) -> None:
    problem = qos_problem(policies, has_nics=has_nics)
    assert problem is not None
    assert problem.rule == rule


def test_sound_limits_and_weights_are_not_refused() -> None:
    policies = [QosPolicy(TrafficClass.CSV, 10**6, 50), QosPolicy(TrafficClass.CLIENT, weight=50)]
    assert qos_problem(policies, has_nics=True) is None
    assert qos_problem([], has_nics=False) is None
