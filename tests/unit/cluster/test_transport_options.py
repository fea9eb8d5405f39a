"""Which performance option a move gets, and who is told why it is another one than was wished."""

from typing import Any

import pytest
from tests.unit.cluster.core_bench import ObedientBench
from tests.unit.cluster.test_networks import LIVE, SAN, Wired, nic
from tests.unit.cluster.test_placement import capacity, two_hosts

from ferry_cluster.commands import Commit
from ferry_cluster.inputs import MigrateVm
from ferry_cluster.records import MigrationRecord
from ferry_types.eras import Era
from ferry_types.migrations import MigrationOptions, TransportOption

TCPIP, COMPRESSION, SMB, DIRECT = TransportOption


def move(bench: ObedientBench, option: TransportOption | None) -> MigrationRecord:
    wish = MigrationOptions(option=option)
    answer: Any = bench.ask(MigrateVm(9, "a", "h2", wish, True, "token", 1))
    assert isinstance(answer, MigrationRecord)
    return answer


@pytest.mark.parametrize("option", TransportOption)
def test_a_move_gets_the_option_that_both_hosts_have(option: TransportOption) -> None:
    planned = move(two_hosts(capacity(), capacity()), option)
    assert (planned.options.option, planned.option_reason) == (option, "")


def test_without_a_wish_the_source_decides() -> None:
    planned = move(two_hosts(capacity(migration_option=SMB), capacity(migration_option=DIRECT)), None)
    assert (planned.options.option, planned.option_reason) == (SMB, "")
    assert move(two_hosts(capacity(), capacity(migration_option=DIRECT)), None).options.option is TCPIP


@pytest.mark.parametrize("wish", [SMB, DIRECT])
@pytest.mark.parametrize("levels", [("2012", "2012"), ("2012", "2012r2")])
def test_a_host_below_2012r2_has_only_tcpip(levels: tuple[str, str], wish: TransportOption) -> None:
    bench = two_hosts(capacity(level=levels[0]), capacity(level=levels[1]), Era.WS2012)
    planned = move(bench, wish)
    assert planned.options.option is TCPIP
    expected = f"tcpip in place of {wish}: h1 is of level 2012, which has only tcpip"
    assert planned.option_reason == f"{expected} (performance options level)"


def test_the_clusters_era_is_the_level_of_hosts_that_name_none() -> None:
    bench = two_hosts(capacity(migration_option=SMB), capacity(), Era.WS2008R2)
    assert move(bench, None).options.option is TCPIP


def test_a_downgrade_is_an_event() -> None:
    bench = two_hosts(capacity(level="2012"), capacity(level="2012r2"), Era.WS2012)
    commands = bench.handle(MigrateVm(9, "a", "h2", MigrationOptions(option=SMB), False, "token", 1))
    commits = [command for command in commands if isinstance(command, Commit)]
    told = [event.message for commit in commits for event in commit.events]
    assert sum("tcpip in place of smb: h1 is of level 2012" in message for message in told) == 1


@pytest.mark.parametrize(
    ("rdma", "got"), [((True, True), DIRECT), ((True, False), TCPIP), ((False, True), TCPIP)]
)
def test_direct_takes_rdma_at_both_ends(rdma: tuple[bool, bool], got: TransportOption) -> None:
    bench = Wired(LIVE, hosts=0)
    for number, has_rdma in enumerate(rdma, 1):
        bench.wire(number, nic(number, LIVE, rdma=has_rdma))
    bench.run_vm("a", 1)
    planned = move(bench, DIRECT)
    assert planned.options.option is got
    assert ("of h1 has no RDMA" in planned.option_reason) == (not rdma[0])
    assert ("(rdma at both ends)" in planned.option_reason) == (got is TCPIP)
    assert move(bench, SMB).options.option is SMB


def test_rdma_on_another_network_does_not_help() -> None:
    bench = Wired(LIVE, SAN, hosts=0)
    for number in (1, 2):
        bench.wire(number, nic(number, LIVE), nic(number, SAN, rdma=True))
    bench.run_vm("a", 1)
    assert move(bench, DIRECT).options.option is TCPIP
