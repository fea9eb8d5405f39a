"""A step is a line of words, as people type it."""

import pytest

from ferry_sim.scenarios import steps
from ferry_sim.scenarios.grammar import parse_step
from ferry_sim.scenarios.steps import Way
from ferry_types.drains import Stuck
from ferry_types.migrations import MigrationOptions
from ferry_types.roles import Failback, Priority


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("power n1 off", steps.Power("n1", on=False)),
        ("power n1 on", steps.Power("n1", on=True)),
        ("kill n1", steps.Kill("n1")),
        ("shutdown n1", steps.Shutdown("n1")),
        ("reboot n1", steps.Reboot("n1")),
        ("freeze n1 1500ms", steps.Freeze("n1", 1.5)),
        ("freeze coordinator 3s", steps.Freeze("coordinator", 3.0)),
        ("network n1 off", steps.Network("n1", False, ())),
        ("network n1 on", steps.Network("n1", True, ())),
        ("network n1 off to n2", steps.Network("n1", False, (Way("n1", "n2"),))),
        ("network n1 off from witness", steps.Network("n1", False, (Way("witness", "n1"),))),
        (
            "network n1 on with coordinator",
            steps.Network("n1", True, (Way("n1", "coordinator"), Way("coordinator", "n1"))),
        ),
        ("coordinator kill", steps.Coordinator(start=False)),
        ("coordinator start", steps.Coordinator(start=True)),
        ("witness kill", steps.Witness(start=False)),
        ("vm start a", steps.StartVm("a")),
        ("vm stop a", steps.StopVm("a")),
        ("vm remove a", steps.RemoveVm("a")),
        ("vm cancel a", steps.CancelMove("a")),
        ("vm crash a", steps.CrashGuest("a")),
        ("vm migrate a to best", steps.MigrateVm("a", "best", MigrationOptions())),
        ("vm relocate a to n2", steps.Relocate("a", "n2")),
        ("rule add a anti-affinity=web,db", steps.ChangeList("a", "anti_affinity", ("web", "db"), add=True)),
        ("rule remove a possible=n1", steps.ChangeList("a", "possible_owners", ("n1",), add=False)),
        ("node pause n1", steps.PauseNode("n1")),
        ("node drain n1", steps.DrainNode("n1", "", None, Stuck.STAY)),
        ("node drain n1 to=n2 within=10m stuck=stop", steps.DrainNode("n1", "n2", 600.0, Stuck.STOP)),
        ("node resume n1", steps.ResumeNode("n1", failback=False)),
        ("node resume n1 failback", steps.ResumeNode("n1", failback=True)),
        ("node evict n1 force", steps.EvictNode("n1", force=True)),
        ("cluster set enforced-anti-affinity=true", steps.SetPolicy(enforced_anti_affinity=True)),
        (
            "cluster set quarantine-threshold=2 quarantine-period=1h quarantine-duration=5m",
            steps.SetPolicy(None, 2, 3600.0, 300.0),
        ),
        ("quorum set dynamic=false", steps.SetQuorum(dynamic=False)),
        ("quorum set witness=false", steps.SetQuorum(witness=False)),
        ("delay 30s", steps.Delay(30.0)),
        ("wait", steps.Wait(60.0)),
        ("wait 5s", steps.Wait(5.0)),
        ("wait for a copying", steps.WaitFor("a", "copying", 60.0)),
        ("wait for n1 gone 2s", steps.WaitFor("n1", "gone", 2.0)),
    ],
)
def test_a_step_is_read(text: str, action: steps.Action) -> None:
    assert parse_step(text) == steps.Step(text, action)


def test_a_vm_is_created_with_all_that_is_said_of_it() -> None:
    step = parse_step(
        "vm create a memory=64MiB node=n1 start=false priority=high possible=n1,n2 preferred=n2 "
        "anti-affinity=web failback=22-5 failover-threshold=2 failover-period=1h start-delay=30s "
        "switch=dmz processor-compatibility=true"
    )
    created = step.action
    assert isinstance(created, steps.CreateVm)
    assert (created.spec.memory_bytes, created.spec.priority) == (64 * 2**20, Priority.HIGH)
    assert (created.node, created.start) == ("n1", False)
    rules = created.rules
    assert (rules.possible_owners, rules.preferred_owners) == (("n1", "n2"), ("n2",))
    assert (rules.failback, rules.failback_from_hour, rules.failback_until_hour) == (Failback.WINDOW, 22, 5)
    assert (rules.failover_threshold, rules.failover_period_s, rules.start_delay_s) == (2, 3600.0, 30.0)
    assert (rules.anti_affinity, rules.switch, rules.processor_compatibility) == (("web",), "dmz", True)


def test_only_what_is_named_changes() -> None:
    action = parse_step("vm set a priority=low failback=now").action
    assert isinstance(action, steps.SetVm)
    assert action.changes.fields == ("priority", "failback", "failback_from_hour", "failback_until_hour")
    assert action.changes.priority is Priority.LOW
    cleared = parse_step("vm set a possible=").action
    assert isinstance(cleared, steps.SetVm)
    assert (cleared.changes.fields, cleared.changes.rules.possible_owners) == (("possible_owners",), ())


def test_a_request_may_be_left_to_itself() -> None:
    assert parse_step("vm start a &") == steps.Step("vm start a", steps.StartVm("a"), background=True)
    with pytest.raises(ValueError, match="cannot be left to itself"):
        parse_step("power n1 off &")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the step is empty"),
        ("fly n1", "there is no step 'fly'"),
        ("power n1", "write it as: power NODE on|off"),
        ("power n1 maybe", "write it as: power NODE"),
        ("kill", "write it as: kill NODE"),
        ("kill n1!", "node name 'n1!' is not valid"),
        ("freeze n1", "write it as: freeze"),
        ("freeze n1 long", "'long' is not a duration"),
        ("network n1 off by n2", "write it as: network"),
        ("network n1 off to n1", "n1 always reaches itself"),
        ("coordinator stop", "write it as: coordinator kill|start"),
        ("vm explode a", "write it as: vm start"),
        ("vm migrate a n2", "write it as: vm start"),
        ("vm create a memory=1MiB", "out of range"),
        ("vm create a memory=16", "out of range"),
        ("vm create a colour=red", "'colour=red' is not one of memory="),
        ("vm create a memory=16MiB memory=32MiB", "memory= is there twice"),
        ("vm create a start=perhaps", "'perhaps' is neither true nor false"),
        ("vm set a", "write it as: vm start"),
        ("vm set a priority=urgent", "'urgent' is not a priority"),
        ("vm set a failback=25-3", "hour 25 of the failback window is out of range"),
        ("vm set a failback=late", "'late' is not a failback"),
        ("vm set a failover-threshold=-1", "'-1' is not a whole number"),
        ("rule add a possible=", "write it as: rule add"),
        ("rule add a priority=low", "'priority=low' is not one of possible="),
        ("rule add a anti-affinity=x,x", "x is named twice"),
        ("node drain n1 stuck=perhaps", "stuck=perhaps is not one of stay, stop"),
        ("node drain n1 until=5m", "'until=5m' is not one of to="),
        ("node resume n1 now", "write it as: node pause"),
        ("cluster set", "write it as: cluster set"),
        ("quorum set dynamic", "'dynamic' is not one of dynamic="),
        ("delay", "write it as: delay DURATION"),
        ("delay 1000h", "too long"),
        ("wait for a happy", "'happy' is not a state"),
        ("wait a b c", "write it as: wait"),
        ("x" * 1001, "at most 1000 characters"),
    ],
)
def test_a_step_that_is_malformed_says_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse_step(text)
    assert said in str(raised.value)
