"""Commands against a coordinator that answers from a script: what is asked, printed and returned."""

import asyncio
import signal
from typing import Any

import pytest

from ferry.v1 import admin_pb2, common_pb2, events_pb2
from ferry_cli.main import execute
from ferry_types.errors import FerryError, failed, refused


async def test_list_prints_an_array_and_show_an_object(ferry: Any, cluster: Any, vm: Any) -> None:
    cluster.vms = [vm("a"), vm("b", "off")]
    listed = await ferry("vm", "list", "-o", "json")
    assert [(each["name"], each["state"]) for each in listed.document] == [("a", "running"), ("b", "off")]
    shown = await ferry("vm", "show", "b", "--output", "json")
    assert (shown.code, shown.document["name"], shown.err) == (0, "b", "")


async def test_tables_are_whole_when_nobody_looks(ferry: Any, cluster: Any) -> None:
    names = [f"virtual-machine-with-a-name-{number}" for number in range(20)]
    cluster.nodes = [admin_pb2.Node(name="n1", state="up", incarnation="ab" * 16, vms=names, address="h:1")]
    ran = await ferry("node", "list")
    header, row = ran.out.splitlines()
    assert header.startswith("NAME")
    assert ", ".join(names) in row
    assert "ab" * 16 in row


@pytest.mark.parametrize("noun", ["node", "migration"])
async def test_what_is_not_there_is_exit_4(ferry: Any, noun: str) -> None:
    ran = await ferry(noun, "show", "nobody", "-o", "json")
    assert ran.code == 4
    assert ran.document["error"]["code"] == "not_found"
    assert "nobody" in ran.document["error"]["message"]


async def test_a_refusal_of_a_rule_is_exit_5_and_names_the_rule(ferry: Any, cluster: Any) -> None:
    cluster.refusals["MigrateVm"] = FerryError(
        refused("same node", "a is on n1 already", "choose another node")
    )
    ran = await ferry("vm", "migrate", "a", "--to", "n1", "-o", "json")
    assert ran.code == 5
    assert ran.document == {
        "error": {
            "code": "refused",
            "rule": "same node",
            "message": "a is on n1 already",
            "hint": "choose another node",
        }
    }
    plain = await ferry("vm", "migrate", "a", "--to", "n1")
    assert (plain.code, plain.out) == (5, "")
    assert plain.err == "ferry: a is on n1 already; choose another node\n"


async def test_an_evicted_node_is_shown_as_it_was(ferry: Any, cluster: Any) -> None:
    cluster.nodes = [admin_pb2.Node(name="n1", state="down", incarnation="ab" * 16, address="h:1")]
    ran = await ferry("node", "evict", "n1", "-o", "json")
    assert (ran.code, ran.document["name"], ran.document["state"]) == (0, "n1", "down")
    assert (await ferry("node", "evict", "n1")).out == "n1 is evicted\n"
    cluster.refusals["EvictNode"] = FerryError(refused("node empty", "n1 has VMs: a", "move them first"))
    ran = await ferry("node", "evict", "n1", "-o", "json")
    assert (ran.code, ran.document["error"]["rule"]) == (5, "node empty")


async def test_other_failures_are_exit_1(ferry: Any, cluster: Any) -> None:
    cluster.refusals["CreateVm"] = FerryError(failed("n1: /x cannot be read"))
    assert (await ferry("vm", "create", "a", "--fill", "/x")).code == 1


async def test_a_coordinator_that_is_away_is_exit_3(isolated: Any, unused_tcp_port: int) -> None:
    ran = await isolated("vm", "list", "-o", "json", "--coordinator", f"127.0.0.1:{unused_tcp_port}")
    assert (ran.code, ran.document["error"]["code"]) == (3, "unreachable")
    assert str(unused_tcp_port) in ran.document["error"]["message"]


async def test_without_any_lab_there_is_nobody_to_ask(isolated: Any) -> None:
    ran = await isolated("node", "list", "-o", "json")
    assert ran.code == 3
    assert "ferry lab up" in ran.document["error"]["hint"]


async def test_the_option_beats_the_environment(ferry: Any, cluster: Any, unused_tcp_port: int) -> None:
    ferry.environment["FERRY_COORDINATOR"] = f"127.0.0.1:{unused_tcp_port}"
    assert (await ferry("node", "list", "--coordinator", cluster.address)).code == 0


async def test_create_sends_the_whole_specification(ferry: Any, cluster: Any) -> None:
    ran = await ferry(
        *("vm", "create", "a", "--memory", "64MiB", "--workload", "sql", "--write-rate", "50MiB/s"),
        *("--working-set", "16MiB", "--access", "sequential", "--compressibility", "0.25"),
        *("--fill", "image.bin", "--node", "n1", "--priority", "high", "--no-start", "-o", "json"),
    )
    assert ran.code == 0, ran.err
    request = cluster.requests[0]
    assert (request.spec.memory_bytes, request.spec.priority) == (64 * 2**20, "high")
    workload = request.spec.workload
    assert (workload.write_rate_bytes_per_s, workload.working_set_bytes) == (50 * 2**20, 16 * 2**20)
    assert (workload.access, workload.compressibility) == ("sequential", 0.25)
    assert request.spec.fill.kind == "file"
    assert request.spec.fill.path.startswith("/")
    assert request.spec.fill.path.endswith("/image.bin")
    assert (request.node, request.no_start) == ("n1", True)
    assert ran.document["name"] == "a"


async def test_migrate_asks_and_waits_for_the_end(ferry: Any, cluster: Any, move: Any) -> None:
    figures = common_pb2.MigrationFigures(
        final=common_pb2.PassFigures(pages_sent=3),
        brownout_s=0.5,
        blackout_s=0.001,
        explanation="nothing left",
    )
    done = move("completed", figures=figures, total_s=0.7, reason="nothing left")
    cluster.moves = [move("queued"), move("copying"), done]
    ran = await ferry(
        *("vm", "migrate", "a", "--to", "n2", "--verify", "--pass-limit", "3"),
        *("--blackout-allowed", "5ms", "-o", "json"),
    )
    assert (ran.code, ran.document["state"], ran.document["blackout_s"]) == (0, "completed", 0.001)
    request = cluster.requests[0]
    assert (request.vm, request.to, request.dry_run) == ("a", "n2", False)
    options = request.options
    assert (options.type, options.option, options.verify) == ("live", "", True)
    assert (options.pass_limit, options.blackout_allowed_s) == (3, 0.005)
    plain = await ferry("vm", "migrate", "a", "--option", "direct")
    asked = [one for one in cluster.requests if isinstance(one, admin_pb2.MigrateVmRequest)]
    assert asked[1].options.option == "direct"
    assert "black-out 1.0 ms" in plain.out
    assert "nothing left" in plain.out


@pytest.mark.parametrize("state", ["failed", "cancelled"])
async def test_a_move_that_did_not_move_is_exit_1(ferry: Any, cluster: Any, move: Any, state: str) -> None:
    cluster.moves = [move("copying"), move(state, reason="n2 was lost")]
    ran = await ferry("vm", "migrate", "a", "-o", "json")
    assert ran.code == 1
    assert ran.document["state"] == state
    assert "n2 was lost" in ran.document["error"]["message"]
    plain = await ferry("vm", "migrate", "a")
    assert plain.code == 1
    assert "n2 was lost" in plain.err


async def test_detach_returns_at_once_and_dry_run_only_plans(ferry: Any, cluster: Any) -> None:
    detached = await ferry("vm", "migrate", "a", "--detach", "-o", "json")
    assert (detached.code, detached.document["id"], detached.document["state"]) == (0, "m1", "queued")
    assert "ferry migration watch m1" in detached.err
    planned = await ferry("vm", "migrate", "a", "--dry-run", "-o", "json")
    assert planned.code == 0
    moves = [each for each in cluster.requests if isinstance(each, admin_pb2.MigrateVmRequest)]
    assert [request.dry_run for request in moves] == [False, True]


async def test_ctrl_c_detaches_from_a_move(ferry: Any, cluster: Any, move: Any) -> None:
    cluster.moves = [move("copying")]
    process = await ferry.start("vm", "migrate", "a")
    async with asyncio.timeout(20):
        assert b"m1" in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    assert process.returncode == 130
    assert b"ferry migration watch m1" in err
    assert b"ferry migration cancel m1" in err
    assert not any(isinstance(request, admin_pb2.MigrationRequest) for request in cluster.requests[2:])


async def test_watch_prints_an_object_a_line_until_the_end(ferry: Any, cluster: Any, move: Any) -> None:
    cluster.moves = [move("queued"), move("copying"), move("completed", total_s=1.0)]
    ran = await ferry("migration", "watch", "m1", "-o", "json")
    assert ran.code == 0
    assert [line["state"] for line in ran.lines] == ["queued", "copying", "completed"]
    assert ran.lines[1]["pass_index"] == 1


async def test_events_are_asked_for_by_time_node_and_vm(ferry: Any, cluster: Any) -> None:
    cluster.events = [events_pb2.Event(id=1, event_id=1135, level="critical", node="n1", message="lost")]
    ran = await ferry("events", "--since", "10m", "--node", "n1", "--vm", "a", "-o", "json")
    assert [event["id"] for event in ran.document] == [1135]
    query = cluster.requests[0]
    assert (query.node, query.vm) == ("n1", "a")
    assert query.since_us > 0


async def test_following_events_goes_on_until_interrupted(ferry: Any, cluster: Any) -> None:
    cluster.events = [events_pb2.Event(id=number, message=f"event {number}") for number in (1, 2)]
    process = await ferry.start("events", "--follow", "-o", "json")
    async with asyncio.timeout(20):
        first, second = await process.stdout.readline(), await process.stdout.readline()
    assert (b"event 1" in first, b"event 2" in second) == (True, True)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(20):
        assert await process.wait() == 130


@pytest.mark.parametrize(
    "arguments",
    [
        ("vm", "create", "a", "--memory", "12Q"),
        ("vm", "create", "a", "--memory", "1KiB"),
        ("vm", "create", "a", "--memory", "5000000"),
        ("vm", "create", "a b"),
        ("vm", "create", "a", "--workload", "chess"),
        ("vm", "create", "a", "--write-rate", "50MiB"),
        ("vm", "create", "a", "--memory", "16MiB", "--working-set", "1GiB"),
        ("vm", "create", "a", "--compressibility", "2"),
        ("vm", "create", "a", "--priority", "urgent"),
        ("vm", "migrate", "a", "--type", "quick"),
        ("vm", "migrate", "a", "--option", "carrier-pigeon"),
        ("vm", "migrate", "a", "--pass-limit", "0"),
        ("vm", "migrate", "a", "--blackout-allowed", "1h"),
        ("vm", "ping", "a", "--interval", "0ms"),
        ("vm", "ping", "a", "--count", "many"),
        ("events", "--since", "yesterday"),
        ("quorum", "set"),
        ("cluster", "quorum", "set"),
        ("quorum", "set", "--witness", "nowhere"),
        ("quorum", "set", "--witness", ""),
        ("quorum", "set", "--witness", "127.0.0.1:0"),
        ("quorum", "set", "--witness", "0.0.0.0:7010"),
        ("quorum", "set", "--witness", "[::]:7010"),
        ("quorum", "set", "--dynamic=yes"),
        ("lab", "up", "--hosts", "0"),
        ("lab", "up", "--era", "2003"),
        ("lab", "kill", "node1", "--signal", "TERM"),
        ("bench", "migrate", "--memory", "5000"),
        ("bench", "migrate", "--option", "carrier-pigeon"),
        ("bench", "migrate", "--against", "vmware"),
        ("bench", "migrate", "--rate", "0"),
        ("bench", "migrate", "--write-rate", "fast"),
        ("bench", "suite", "--only", "carrier-pigeon"),
        ("bench", "suite", "--against", "vmware"),
        ("vm", "list", "--no-such-option"),
        ("vm",),
        (),
    ],
    ids=" ".join,
)
def test_malformed_values_and_options_are_exit_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setenv("FERRY_COORDINATOR", "127.0.0.1:1")
    code = execute(arguments)
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("ferry: ")
    assert captured.err.count("\n") == 1


async def test_usage_errors_are_json_for_programs(isolated: Any) -> None:
    ran = await isolated("vm", "create", "-ojson")
    assert (ran.code, ran.document["error"]["code"]) == (2, "malformed")


async def test_help_names_the_cmdlet(isolated: Any) -> None:
    ran = await isolated("vm", "migrate", "--help")
    assert (ran.code, "Move-VM" in ran.out) == (0, True)
