"""When a VM fails over, in which order, how often, at whose expense, and when it goes back."""

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.cluster.core_bench import MIB, ObedientBench, make_spec
from tests.unit.cluster.test_placement import move, refused_rule, set_rules

from ferry_cluster.commands import Commit
from ferry_cluster.failback import in_window
from ferry_cluster.inputs import CreateVm, EvictNode, TurnOnVm
from ferry_cluster.records import MigrationRecord
from ferry_types.errors import failed
from ferry_types.messages import ImageReport, OrderRefused, VmStopped
from ferry_types.roles import Failback, Priority, RoleRules
from ferry_types.vms import ImagePhase

HOUR_US = 3_600_000_000


def events(bench: ObedientBench, seconds: float) -> list[tuple[int, str]]:
    """IDs and VMs of what happens meanwhile."""
    told: list[tuple[int, str]] = []
    handle = bench.handle

    def noting(event: Any) -> Any:
        commands = handle(event)
        for command in commands:
            if isinstance(command, Commit):
                told.extend((one.kind.event_id, one.vm) for one in command.events)
        return commands

    bench.handle = noting  # type: ignore[method-assign] # this bench alone
    bench.wait(seconds)
    bench.handle = handle  # type: ignore[method-assign]
    return told


def test_high_priority_gets_the_memory_that_is_left() -> None:
    bench = ObedientBench(2)
    bench.create("filler", "h2", memory_bytes=16 * MIB, priority=Priority.HIGH)
    bench.create("z", "h1", memory_bytes=48 * MIB, priority=Priority.HIGH)
    bench.create("a", "h1", memory_bytes=16 * MIB, priority=Priority.LOW)
    bench.silent = {1}
    told = events(bench, 4.0)
    assert bench.place_of("z") == "h2"
    assert bench.place_of("a") == ""
    assert [(what, vm) for what, vm in told if what in {1153, 1205, 1251}] == [(1153, "z"), (1205, "a")]


def test_low_makes_room_for_high_and_comes_back_when_there_is_room() -> None:
    bench = ObedientBench(2)
    bench.create("high", "h1", memory_bytes=40 * MIB, priority=Priority.HIGH)
    bench.create("low", "h2", memory_bytes=32 * MIB, priority=Priority.LOW)
    bench.create("medium", "h2", memory_bytes=16 * MIB)
    bench.silent = {1}
    told = events(bench, 4.0)
    assert (1251, "low") in told
    assert bench.place_of("high") == "h2"
    assert bench.place_of("medium") == "h2", "ousting low was enough"
    view = bench.cluster.vm_view("low")
    assert (view.state, view.node) == ("failed", "")
    assert "makes room for high" in view.reason
    bench.silent = set()
    bench.join(1, stream=9, session=2)
    assert bench.place_of("low") == "h1"


def test_nobody_is_ousted_if_it_would_not_help() -> None:
    bench = ObedientBench(2)
    bench.create("high", "h1", memory_bytes=60 * MIB, priority=Priority.HIGH)
    bench.create("peer", "h2", memory_bytes=16 * MIB, priority=Priority.HIGH)
    bench.create("low", "h2", memory_bytes=32 * MIB, priority=Priority.LOW)
    bench.silent = {1}
    bench.wait(4.0)
    assert bench.place_of("high") == ""
    assert bench.place_of("low") == "h2"


def test_a_vm_that_fails_over_too_often_waits_for_an_admin() -> None:
    bench = ObedientBench(4)
    bench.create("a", "h1", rules=RoleRules(failover_threshold=2, preferred_owners=("h1", "h2", "h3", "h4")))
    for host in (1, 2):
        bench.silent.add(host)
        bench.wait(4.0)
        assert bench.place_of("a") == f"h{host + 1}"
    bench.silent.add(3)
    told = events(bench, 4.0)
    assert (1254, "a") in told
    view = bench.cluster.vm_view("a")
    assert (view.state, view.node) == ("failed", "")
    assert "failover threshold is exceeded: 2 within 6h" in view.reason
    assert bench.ask(TurnOnVm(4, "a")) == "a"
    assert bench.place_of("a") == "h4"


def test_a_lower_threshold_gives_nobody_up_before_the_next_failover() -> None:
    bench = ObedientBench(4)
    bench.create("a", "h1", rules=RoleRules(failover_threshold=3))
    bench.silent.add(1)
    bench.wait(4.0)
    set_rules(bench, "a", failover_threshold=1)
    bench.handle(EvictNode(3, bench.place_of("a"), force=True))
    bench.wait(1.0)
    assert bench.place_of("a")


def test_failovers_of_long_ago_do_not_count() -> None:
    bench = ObedientBench(4)
    rules = RoleRules(failover_threshold=1, failover_period_s=30.0, preferred_owners=("h1", "h2", "h3"))
    bench.create("a", "h1", rules=rules)
    bench.silent.add(1)
    bench.wait(34.0)
    bench.silent.add(2)
    bench.wait(4.0)
    assert bench.place_of("a") == "h3"


def test_a_vm_with_a_start_delay_starts_that_much_later() -> None:
    bench = ObedientBench(2)
    bench.create("a", "h1", rules=RoleRules(start_delay_s=10.0))
    bench.silent = {1}
    bench.wait(6.0)
    assert bench.place_of("a") == ""
    assert "starts 10 s later" in bench.cluster.vm_view("a").reason
    bench.wait(7.0)
    assert bench.place_of("a") == "h2"


@pytest.mark.parametrize("failback", list(Failback))
def test_a_vm_goes_back_to_its_preferred_owner_if_it_is_told_to(failback: Failback) -> None:
    bench = ObedientBench(2)
    rules = RoleRules((), ("h1",), failback=failback, failback_from_hour=13, failback_until_hour=14)
    bench.create("a", "h1", rules=rules)
    bench.silent = {1}
    bench.wait(4.0)
    assert bench.place_of("a") == "h2"
    bench.silent = set()
    bench.join(1, stream=9, session=2)
    bench.wait(2.0)
    assert bench.place_of("a") == ("h1" if failback is Failback.NOW else "h2")
    if failback is Failback.WINDOW:
        bench.now += 3600 - 200  # still not 13:00
        bench.wait(1.0)
        assert bench.place_of("a") == "h2"
        bench.now += 200
        bench.wait(8.0)
        assert bench.place_of("a") == "h1"


def test_a_vm_that_an_admin_has_moved_stays_there() -> None:
    bench = ObedientBench(3)
    bench.create("a", "h1", rules=RoleRules(preferred_owners=("h1",), failback=Failback.NOW))
    bench.silent = {1}
    bench.wait(4.0)
    there = bench.place_of("a")
    other = "h3" if there == "h2" else "h2"
    assert isinstance(move(bench, other), MigrationRecord)
    bench.silent = set()
    bench.join(1, stream=9, session=2)
    bench.wait(2.0)
    assert bench.place_of("a") == other


@pytest.mark.parametrize(
    ("begin", "end", "hour", "within"),
    [
        (22, 6, 23, True),
        (22, 6, 5, True),
        (22, 6, 6, False),
        (22, 6, 12, False),
        (1, 3, 2, True),
        (1, 3, 3, False),
    ],
)
def test_a_window_may_cross_midnight(begin: int, end: int, hour: int, within: bool) -> None:
    rules = RoleRules(failback=Failback.WINDOW, failback_from_hour=begin, failback_until_hour=end)
    assert in_window(rules, hour * HOUR_US) is within


def test_an_ousted_vm_is_turned_off_although_the_first_order_is_lost() -> None:
    bench = ObedientBench(2)
    bench.create("high", "h1", memory_bytes=40 * MIB, priority=Priority.HIGH)
    bench.create("low", "h2", memory_bytes=32 * MIB, priority=Priority.LOW)
    bench.silent = {1}
    bench.wait(2.0)
    bench.silent = {1, 2}
    bench.wait(0.4)
    assert bench.cluster.state.vms["low"].ousted
    low = bench.cluster.state.owners["low"]
    image = ImageReport("low", low.epoch, ImagePhase.RUNNING, "")
    bench.join(2, stream=8, images=(image,))
    bench.wait(1.0)
    assert bench.place_of("high") == "h2"


@pytest.mark.parametrize("victims", [2, 3, 6])
def test_room_is_kept_until_all_who_make_it_are_off(victims: int) -> None:
    bench = ObedientBench(2)
    bench.create("big", "h1", memory_bytes=victims * 8 * MIB, priority=Priority.HIGH)
    for number in range(8):
        bench.create(f"low{number}", "h2", memory_bytes=8 * MIB, priority=Priority.LOW)
    bench.silent = {1}
    told = events(bench, 6.0)
    assert bench.place_of("big") == "h2"
    assert len([vm for event, vm in told if event == 1251]) == victims


def test_whoever_waits_for_the_start_of_an_ousted_vm_is_told() -> None:
    bench = ObedientBench(2)
    bench.create("high", "h1", memory_bytes=40 * MIB, priority=Priority.HIGH)
    bench.silent = {1}
    bench.wait(1.9)
    bench.silent = {1, 2}
    bench.handle(CreateVm(7, replace(make_spec("low", 32 * MIB), priority=Priority.LOW), "h2", True))
    bench.wait(0.4)
    low = bench.cluster.state.owners["low"]
    assert bench.cluster.state.vms["low"].ousted
    bench.silent = {1}
    bench.say(2, VmStopped("low", low.epoch))
    assert refused_rule(bench.replies[7]) == "memory"
    assert bench.place_of("high") == "h2"


def test_a_crash_after_a_move_ousts_nobody() -> None:
    bench = ObedientBench(2)
    bench.create("a", "h1", memory_bytes=32 * MIB, priority=Priority.HIGH)
    move(bench, "h2", "a")
    bench.create("low", "h2", memory_bytes=32 * MIB, priority=Priority.LOW)
    bench.create("full", "h1", memory_bytes=64 * MIB, priority=Priority.HIGH)
    owner = bench.cluster.state.owners["a"]
    bench.report("h2", OrderRefused("a", owner.epoch, failed("its guest crashed")))
    assert (bench.place_of("a"), bench.place_of("low")) == ("h2", "h2")
