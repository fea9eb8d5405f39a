"""``ferry vm set|create|show``: what the cluster is to heed for a VM; ``migrate --dry-run``: who suits it."""

from typing import Any

import pytest

from ferry.v1 import admin_pb2, common_pb2
from ferry_cli import tables, views
from ferry_cli.main import execute
from ferry_types.roles import NO_RULES, Failback, Priority, RoleChanges, RoleRules
from ferry_wire.conversion import from_proto, to_proto

ALL_OPTIONS = (
    *("--possible-owners", "n1,n2", "--preferred-owners", "n2, n1", "--anti-affinity", "web,db"),
    *("--failback", "22-6", "--failover-threshold", "2", "--failover-period", "1h", "--start-delay", "30s"),
    *("--switch", "backup", "--processor-compatibility"),
)
ALL_RULES = RoleRules(
    possible_owners=("n1", "n2"),
    preferred_owners=("n2", "n1"),
    anti_affinity=("web", "db"),
    failback=Failback.WINDOW,
    failback_from_hour=22,
    failback_until_hour=6,
    failover_threshold=2,
    failover_period_s=3600.0,
    start_delay_s=30.0,
    switch="backup",
    processor_compatibility=True,
)


def proto(rules: RoleRules) -> common_pb2.RoleRules:
    return to_proto(rules, common_pb2.RoleRules)


@pytest.mark.parametrize(
    ("options", "fields", "rules"),
    [
        (("--possible-owners", ""), ("possible_owners",), NO_RULES),
        (("--anti-affinity", "web"), ("anti_affinity",), RoleRules(anti_affinity=("web",))),
        (("--no-processor-compatibility",), ("processor_compatibility",), NO_RULES),
        (("--failover-threshold", "0"), ("failover_threshold",), NO_RULES),
        (("--start-delay", "0s"), ("start_delay_s",), NO_RULES),
        (
            ("--failback", "now"),
            ("failback", "failback_from_hour", "failback_until_hour"),
            RoleRules(failback=Failback.NOW),
        ),
        (ALL_OPTIONS, tuple(RoleRules.__slots__), ALL_RULES),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_set_sends_what_was_named_and_nothing_else(
    ferry: Any, cluster: Any, vm: Any, options: tuple[str, ...], fields: tuple[str, ...], rules: RoleRules
) -> None:
    cluster.vms = [vm("a")]
    ran = await ferry("vm", "set", "a", *options, "-o", "json")
    assert (ran.code, ran.document["name"]) == (0, "a"), ran.err
    (request,) = cluster.requests
    changes = from_proto(request.changes, RoleChanges)
    assert (request.vm, sorted(changes.fields), changes.rules) == ("a", sorted(fields), rules)


async def test_set_changes_the_priority_alone(ferry: Any, cluster: Any, vm: Any) -> None:
    cluster.vms = [vm("a")]
    assert (await ferry("vm", "set", "a", "--priority", "high")).out == "a: priority medium\n"
    changes = from_proto(cluster.requests[0].changes, RoleChanges)
    assert changes == RoleChanges(("priority",), Priority.HIGH, NO_RULES)


async def test_set_tells_what_holds_now(ferry: Any, cluster: Any, vm: Any) -> None:
    rules = RoleRules(possible_owners=("n1", "n2"), failback=Failback.NOW)
    cluster.vms = [vm("a", rules=proto(rules))]
    ran = await ferry("vm", "set", "a", "--failback", "now")
    assert ran.out == "a: priority medium; possible owners n1, n2; failback now\n"


async def test_create_sends_the_rules(ferry: Any, cluster: Any) -> None:
    assert (await ferry("vm", "create", "a", *ALL_OPTIONS)).code == 0
    assert (await ferry("vm", "create", "b")).code == 0
    sent = [from_proto(request.rules, RoleRules) for request in cluster.requests]
    assert sent == [ALL_RULES, NO_RULES]


async def test_show_has_the_rules(ferry: Any, cluster: Any, vm: Any) -> None:
    cluster.vms = [vm("a", rules=proto(ALL_RULES))]
    shown = (await ferry("vm", "show", "a", "-o", "json")).document
    assert (shown["priority"], shown["rules"]) == (
        "medium",
        {
            "possible_owners": ["n1", "n2"],
            "preferred_owners": ["n2", "n1"],
            "anti_affinity": ["web", "db"],
            "failback": "window",
            "failback_from_hour": 22,
            "failback_until_hour": 6,
            "failover_threshold": 2,
            "failover_period_s": 3600.0,
            "start_delay_s": 30.0,
            "switch": "backup",
            "processor_compatibility": True,
        },
    )


def test_hours_outside_a_window_say_nothing(vm: Any) -> None:
    rules = views.vm_view(vm("a"))["rules"]
    assert (rules["failback"], rules["failback_from_hour"], rules["failback_until_hour"]) == (
        "off",
        None,
        None,
    )


def test_people_are_shown_the_rules_that_differ_from_the_defaults(vm: Any) -> None:
    assert tables.rules_pairs(vm("a")) == []
    assert tables.rules_pairs(vm("a", rules=proto(ALL_RULES))) == [
        ("possible owners", "n1, n2"),
        ("preferred owners", "n2, n1"),
        ("anti-affinity", "web, db"),
        ("failback", "from 22:00 to 6:00 UTC"),
        ("failover threshold", "2"),
        ("failover period", "1h"),
        ("start delay", "30s"),
        ("switch", "backup"),
        ("processor compatibility", "yes"),
    ]
    assert ("switch", "backup") in tables.vm_pairs(vm("a", rules=proto(RoleRules(switch="backup"))))


@pytest.mark.parametrize("verb", ["set", "create"])
@pytest.mark.parametrize(
    "options",
    [
        ("--possible-owners", "n1,n1"),
        ("--possible-owners", "n1,,n2"),
        ("--preferred-owners", ","),
        ("--preferred-owners", "n 1"),
        ("--anti-affinity", ",".join(f"c{number}" for number in range(65))),
        ("--failback", "later"),
        ("--failback", "22"),
        ("--failback", "22-24"),
        ("--failback", "-1-3"),
        ("--failback", ""),
        ("--failover-threshold", "-1"),
        ("--failover-threshold", "101"),
        ("--failover-period", "0s"),
        ("--failover-period", "169h"),
        ("--failover-period", "6 fortnights"),
        ("--start-delay", "2h"),
        ("--start-delay", "soon"),
        ("--switch", ""),
        ("--switch", "a b"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_malformed_values_are_exit_2_and_name_their_option(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str, options: tuple[str, str]
) -> None:
    monkeypatch.setenv("FERRY_COORDINATOR", "127.0.0.1:1")
    assert execute(("vm", verb, "a", *options)) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert options[0] in captured.err


def test_to_set_nothing_is_malformed(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(("vm", "set", "a")) == 2
    assert "nothing of a" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["best", "n2"])
async def test_a_dry_run_rates_every_host(ferry: Any, cluster: Any, to: str) -> None:
    cluster.ratings = [
        admin_pb2.HostRating(node="n2", stars=3, reason="4 GiB free"),
        admin_pb2.HostRating(node="n3", reason="node n3 is paused", rule="node paused"),
    ]
    ran = await ferry("vm", "migrate", "a", "--to", to, "--dry-run", "-o", "json")
    assert (ran.code, ran.document["vm"], ran.document["target"]) == (0, "a", "n2")
    assert ran.document["ratings"] == [
        {"node": "n2", "stars": 3, "reason": "4 GiB free", "rule": None},
        {"node": "n3", "stars": 0, "reason": "node n3 is paused", "rule": "node paused"},
    ]
    assert cluster.requests[1] == admin_pb2.VmRequest(name="a")
    lines = (await ferry("vm", "migrate", "a", "--to", to, "--dry-run")).out.splitlines()
    assert [line.strip().split(maxsplit=2) for line in lines[-3:]] == [
        ["NODE", "STARS", "REASON"],
        ["n2", "★★★☆☆", "4 GiB free"],
        ["n3", "☆☆☆☆☆", "node n3 is paused (node paused)"],
    ]


def test_help_names_the_cmdlets(capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(("vm", "set", "--help")) == 0
    out = capsys.readouterr().out
    assert "Set-VM" in out
    assert "Set-ClusterGroup" in out
