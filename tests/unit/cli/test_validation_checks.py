"""``ferry cluster validate``: what each named test makes of the facts; no process is asked here."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from ferry_cli.validation.checks import TESTS, run_tests
from ferry_cli.validation.facts import (
    COORDINATOR,
    WITNESS,
    EchoFacts,
    EventFacts,
    Facts,
    NodeFacts,
    PathFacts,
    ProcessFacts,
    QuorumFacts,
    VmFacts,
)
from ferry_cli.validation.verdicts import SHOWN_MAX, Finding, Outcome, judge
from ferry_types.eras import Era
from ferry_types.inspection import ClusterReport, DirectoryReport, HostReport, MachineReport, SelfReport
from ferry_types.vms import Capacity, Processor

GIB = 2**30
COORDINATOR_ADDRESS = "10.0.0.9:7000"
WITNESS_ADDRESS = "10.0.0.8:7000"
CAPACITY = Capacity(memory_bytes=8 * GIB, processors=4, migration_limit=2)
NAMES = ("n1", "n2", "n3")

Change = Callable[[Facts], Facts]


def make_report(host: HostReport | None, machine: str) -> SelfReport:
    return SelfReport(
        version="1.0",
        time_us=1_800_000_000_000_000,
        machine=MachineReport(machine, 64 * GIB, 60 * GIB),
        directory=DirectoryReport("/var/lib/ferry", 100 * GIB, 0.002, ""),
        listening=("10.0.0.1:7001",),
        host=host,
        cluster=None if host else ClusterReport("east", Era.WS2012R2, 1.0),
    )


def make_node(number: int) -> NodeFacts:
    name, address = f"n{number}", f"10.0.0.{number}:7001"
    report = make_report(HostReport(name, CAPACITY, COORDINATOR_ADDRESS), f"machine {number}")
    return NodeFacts(
        name=name,
        state="up",
        reason="",
        address=address,
        echo_address=f"10.0.0.{number}:7002",
        recorded_version="1.0",
        recorded_capacity=CAPACITY,
        used_bytes=2 * GIB,
        process=ProcessFacts(name, address, report, ahead_s=0.001, uncertainty_s=0.002),
    )


def healthy() -> Facts:
    """Three nodes on three machines, each with a VM, and a witness."""
    ends = [*permutations((*NAMES, COORDINATOR), 2), *((name, WITNESS) for name in (*NAMES, COORDINATOR))]
    return Facts(
        cluster=ClusterReport("east", Era.WS2012R2, 1.0),
        coordinator=ProcessFacts(COORDINATOR, COORDINATOR_ADDRESS, make_report(None, "machine 9")),
        nodes=tuple(make_node(number) for number in (1, 2, 3)),
        vms=tuple(VmFacts(f"vm-{name}", "running", name, 2 * GIB) for name in NAMES),
        paths=tuple(PathFacts(*pair, "10.0.0.1:7001", 0.001, 0.002, "") for pair in ends),
        echoes=tuple(EchoFacts(f"vm-{name}", name, "10.0.0.1:7002", answered=True) for name in NAMES),
        quorum=QuorumFacts(
            WITNESS_ADDRESS, "answers", dynamic=True, forced=False, nodes=3, votes=3, majority=2, reason=""
        ),
        critical_events=(),
    )


def find(facts: Facts, test: str) -> Finding:
    return next(finding for finding in run_tests(facts) if finding.test == test)


# --- changes to a healthy cluster -----------------------------------------------------------------


def node(name: str, **changes: Any) -> Change:
    return lambda facts: replace(
        facts, nodes=tuple(replace(each, **changes) if each.name == name else each for each in facts.nodes)
    )


def process(name: str, **changes: Any) -> Change:
    def change(facts: Facts) -> Facts:
        [named] = [each for each in facts.nodes if each.name == name]
        return node(name, process=replace(named.process, **changes))(facts)

    return change


def report(name: str, **changes: Any) -> Change:
    def change(facts: Facts) -> Facts:
        [named] = [each for each in facts.nodes if each.name == name]
        assert named.process.report is not None
        return process(name, report=replace(named.process.report, **changes))(facts)

    return change


def offers(name: str, **changes: Any) -> Change:
    host = HostReport(name, replace(CAPACITY, **changes), COORDINATOR_ADDRESS)
    return report(name, host=host)


def directory(name: str, **changes: Any) -> Change:
    present = DirectoryReport("/var/lib/ferry", 100 * GIB, 0.002, "")
    return report(name, directory=replace(present, **changes))


def path(source: str, target: str, **changes: Any) -> Change:
    return lambda facts: replace(
        facts,
        paths=tuple(
            replace(each, **changes) if (each.source, each.target) == (source, target) else each
            for each in facts.paths
        ),
    )


def votes(**changes: Any) -> Change:
    return lambda facts: replace(facts, quorum=replace(facts.quorum, **changes))


def facts_with(**changes: Any) -> Change:
    return lambda facts: replace(facts, **changes)


def both(*changes: Change) -> Change:
    def change(facts: Facts) -> Facts:
        for each in changes:
            facts = each(facts)
        return facts

    return change


# --- the tests ------------------------------------------------------------------------------------


def test_a_healthy_cluster_passes_every_test_without_advice() -> None:
    findings = run_tests(healthy())
    assert [finding.test for finding in findings] == [test.name for test in TESTS]
    assert {finding.test for finding in findings if finding.outcome is not Outcome.PASS} == set()
    assert all(finding.found and not finding.advice for finding in findings)
    assert {finding.category for finding in findings} == {
        "inventory", "network", "storage", "system", "cluster"
    }  # fmt: skip


ONE_MACHINE = MachineReport("machine 1", 64 * GIB, 10 * GIB)
FAILURES: Iterable[tuple[str, Change, tuple[str, ...]]] = (
    ("List hosts and processors", facts_with(nodes=()), ("no nodes",)),
    ("List software versions", report("n2", version="0.9"), ("n2 runs version 0.9, the coordinator 1.0",)),
    (
        "List software versions",
        both(node("n3", recorded_version="0.8"), process("n3", report=None, problem="unknown method")),
        ("n3 runs version 0.8",),
    ),
    ("List memory information", offers("n2", memory_bytes=65 * GIB), ("too little memory: n2", "65 GiB")),
    (
        "List memory information",
        offers("n2", memory_bytes=640 * GIB, scale=8),
        ("too little memory: n2 offers 640 GiB (80 GiB really, at scale 8) to VMs, its machine has 64 GiB",),
    ),
    (
        "Validate that processes answer",
        process("n2", report=None, problem="connection refused"),
        ("n2 does not answer: connection refused",),
    ),
    (
        "Validate that processes answer",
        report("n2", host=HostReport("n3", CAPACITY, COORDINATOR_ADDRESS)),
        ("at the address of n2, n3 answers",),
    ),
    ("Validate IP configuration", node("n2", address="10.0.0.1:7001"), ("n1 and n2 have the same address",)),
    (
        "Validate IP configuration",
        node("n2", echo_address="10.0.0.1:7002"),
        ("n1 (echo) and n2 (echo) have the same address",),
    ),
    (
        "Validate network communication",
        path("n1", "n2", problem="no answer in time"),
        ("n1 does not reach n2: no answer in time (but n2 reaches n1: the path is cut one way)",),
    ),
    (
        "Validate coordinator communication",
        path("n1", COORDINATOR, problem="no route"),
        ("n1 does not reach the coordinator: no route",),
    ),
    (
        "Validate coordinator communication",
        path(COORDINATOR, "n1", problem="no route"),
        ("the coordinator does not reach n1: no route (but n1 is still up",),
    ),
    (
        "Validate witness communication",
        path("n3", WITNESS, problem="no route"),
        ("n3 does not reach the witness",),
    ),
    (
        "Validate data directories",
        directory("n2", problem="Read-only file system"),
        ("n2 cannot write into /var/lib/ferry: Read-only file system",),
    ),
    ("Validate clocks", process("n2", ahead_s=-300.0), ("n2 is 5.0 min behind the coordinator's",)),
    ("Validate clocks", process("n3", ahead_s=61.0), ("n3 is 61.000 s ahead of the coordinator's",)),
    (
        "Validate processor vendors",
        offers("n3", processor=Processor("amd", 1)),
        ("n3 has a processor of amd, others of intel",),
    ),
    (
        "Validate Active Directory configuration",
        offers("n3", domain="other.local"),
        ("n3 is in the domain other.local, others in ferry.local",),
    ),
    (
        "Validate functional levels",
        offers("n3", level="2012"),
        ("n3 is of level 2012, older than the cluster's 2012r2",),
    ),
    ("Validate functional levels", offers("n3", level="2044"), ("n3 is of level 2044",)),
    ("Validate nodes", node("n2", state="down", reason="killed"), ("n2 is down: killed",)),
    ("Validate nodes", node("n2", state="isolated"), ("n2 is isolated",)),
    ("Validate quorum configuration", votes(witness_state="silent"), (f"{WITNESS_ADDRESS} is silent",)),
)


@pytest.mark.parametrize(("test", "change", "words"), FAILURES)
def test_it_fails_and_names_what_is_wrong(test: str, change: Change, words: tuple[str, ...]) -> None:
    finding = find(change(healthy()), test)
    assert finding.outcome is Outcome.FAILURE
    for word in words:
        assert word in "; ".join(finding.found)
    assert finding.advice


WARNINGS: Iterable[tuple[str, Change, tuple[str, ...]]] = (
    (
        "List memory information",
        both(report("n1", machine=ONE_MACHINE), report("n2", machine=ONE_MACHINE)),
        ("n1 and n2, on one machine, still offer 12 GiB together, but 10 GiB",),
    ),
    (
        "List memory information",
        report("n3", machine=MachineReport("machine 3", 64 * GIB, 5 * GIB)),
        ("n3 still offers 6 GiB, but 5 GiB of its memory are available",),
    ),
    (
        "List memory information",
        both(
            offers("n3", memory_bytes=50 * GIB, scale=8),
            report("n3", machine=MachineReport("machine 3", 64 * GIB, 5 * GIB)),
        ),
        ("n3 still offers 6 GiB of real memory, but 5 GiB of its memory are available",),
    ),
    (
        "Validate that processes answer",
        facts_with(unmeasured=(("n2", "it took too long"),)),
        ("n2 did not measure its paths: it took too long",),
    ),
    (
        "Validate IP configuration",
        node("n2", address="127.0.0.1:7001"),
        ("for one machine alone: n2 127.0.0.1:7001", "n1 10.0.0.1:7001"),
    ),
    ("Validate network latency", path("n2", "n3", median_s=0.21), ("n2 to n3: 210.0 ms",)),
    (
        "Validate echo ports",
        facts_with(echoes=(EchoFacts("vm-n2", "n2", "10.0.0.2:7002", answered=False),)),
        ("vm-n2 on n2 does not answer at 10.0.0.2:7002 (UDP)",),
    ),
    ("Validate data directories", directory("n2", free_bytes=GIB - 1), ("n2 has 1024.0 MiB left",)),
    ("Validate write latency", directory("n2", write_s=0.06), ("n2 took 60.0 ms",)),
    ("Validate clocks", process("n2", ahead_s=-1.5), ("n2 is 1.500 s behind the coordinator's",)),
    (
        "Validate processor generations",
        offers("n3", processor=Processor("intel", 4)),
        ("n1 and n2: intel:1, n3: intel:4",),
    ),
    (
        "Validate virtual switches",
        offers("n3", switches=("external", "storage")),
        ("n1 has no virtual switch storage", "n2 has no virtual switch storage"),
    ),
    (
        "Validate functional levels",
        offers("n3", level="2016"),
        ("n3 is of level 2016, newer than the cluster's 2012r2",),
    ),
    ("Validate nodes", node("n2", state="paused"), ("n2 is paused",)),
    (
        "Validate quorum configuration",
        votes(nodes=4, witness="", witness_state=""),
        ("4 nodes and no witness",),
    ),
    ("Validate quorum configuration", votes(nodes=1), ("one node: nothing fails over",)),
    ("Validate quorum configuration", votes(forced=True), ("overridden quorum",)),
    ("Validate quorum configuration", votes(reason="n9 does not answer"), ("n9 does not answer",)),
    (
        "Validate capacity to lose a node",
        both(node("n2", used_bytes=7 * GIB), node("n3", used_bytes=7 * GIB)),
        ("without n1 there is no room for vm-n1 (2 GiB)",),
    ),
    (
        "Validate event log",
        facts_with(critical_events=(EventFacts(1_800_000_000_000_000, "node n2 is lost"),)),
        ("08:00:00 UTC: node n2 is lost",),
    ),
)


@pytest.mark.parametrize(("test", "change", "words"), WARNINGS)
def test_it_warns_and_names_what_is_wrong(test: str, change: Change, words: tuple[str, ...]) -> None:
    finding = find(change(healthy()), test)
    assert finding.outcome is Outcome.WARNING, finding
    for word in words:
        assert word in "; ".join(finding.found)
    assert finding.advice


@pytest.mark.parametrize(
    ("test", "change"),
    [
        ("Validate clocks", process("n2", ahead_s=1.1, uncertainty_s=0.2)),
        ("Validate witness communication", votes(witness="", witness_state="")),
        ("Validate echo ports", facts_with(echoes=())),
        ("List virtual machines", facts_with(vms=())),
        ("Validate functional levels", offers("n3", level="2012r2")),
        ("Validate IP configuration", node("n2", address="n2.example:7001")),
        ("Validate network latency", path("n2", "n3", median_s=0.19)),
        ("Validate network latency", facts_with(paths=())),
        ("List memory information", process("n2", report=None, problem="refused")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_concern_passes(test: str, change: Change) -> None:
    assert find(change(healthy()), test).outcome is Outcome.PASS


def test_both_directions_that_are_cut_are_named_each() -> None:
    cut = both(path("n1", "n2", problem="no answer"), path("n2", "n1", problem="no answer"))
    finding = find(cut(healthy()), "Validate network communication")
    assert finding.found == ("n1 does not reach n2: no answer", "n2 does not reach n1: no answer")


def test_a_cluster_whose_nodes_are_all_silent_is_judged_all_the_same() -> None:
    silence = both(*(process(name, report=None, problem="refused") for name in NAMES), facts_with(paths=()))
    findings = run_tests(silence(healthy()))
    assert [finding.test for finding in findings if finding.outcome is Outcome.FAILURE] == [
        "Validate that processes answer"
    ]


def test_an_empty_cluster_is_judged_all_the_same() -> None:
    empty = facts_with(nodes=(), vms=(), paths=(), echoes=())
    assert len(run_tests(empty(healthy()))) == len(TESTS)


def test_a_host_at_scale_may_offer_more_than_its_machine_has() -> None:
    finding = find(offers("n2", memory_bytes=500 * GIB, scale=64)(healthy()), "List memory information")
    assert finding.outcome is Outcome.PASS
    assert any(
        "n2 offers 500 GiB (7.8 GiB really, at scale 64), 2 GiB in use" in line for line in finding.found
    )


def test_the_vms_of_a_lost_node_are_placed_one_by_one_not_by_the_sum() -> None:
    """Room of 1 GiB on each of two hosts is no room for a VM of 2 GiB."""
    tight = both(*(node(name, used_bytes=7 * GIB) for name in NAMES))
    finding = find(tight(healthy()), "Validate capacity to lose a node")
    assert len(finding.found) == 3


def test_a_vm_that_is_placed_takes_the_room_of_the_next_one() -> None:
    """Of three VMs of 1 GiB, two hosts with 1.5 GiB each take two."""
    small = tuple(VmFacts(f"vm-{number}", "running", "n1", GIB) for number in (1, 2, 3))
    full = both(*(node(name, used_bytes=int(6.5 * GIB)) for name in ("n2", "n3")), facts_with(vms=small))
    finding = find(full(healthy()), "Validate capacity to lose a node")
    assert finding.found == ("without n1 there is no room for vm-3 (1 GiB)",)


def test_a_test_lists_so_many_things_and_counts_the_rest() -> None:
    verdict = judge("", failures=[f"path {number}" for number in range(SHOWN_MAX + 7)])
    assert len(verdict.found) == SHOWN_MAX + 1
    assert verdict.found[-1] == "and 7 more"
