"""The JSON contract: names, nulls, units."""

import json
from typing import Any

from ferry.v1 import admin_pb2, common_pb2, events_pb2, host_pb2
from ferry_cli import tables, views
from ferry_types.errors import ErrorCode, Refusal
from ferry_types.mac import mac_address


def passed(index: int) -> common_pb2.PassFigures:
    return common_pb2.PassFigures(
        index=index, pages_sent=10, zero_pages=2, bytes_sent=40_960, duration_s=0.5, dirty_pages_after=3
    )


def record(**fields: Any) -> admin_pb2.MigrationRecord:
    options = common_pb2.MigrationOptions(type="live", option="tcpip", pass_limit=10, blackout_allowed_s=0.05)
    return admin_pb2.MigrationRecord(
        id="m1", vm="a", source="n1", target="n2", options=options, memory_bytes=4096, **fields
    )


def test_a_vm_has_the_fields_of_the_contract() -> None:
    spec = common_pb2.VmSpec(
        name="a",
        memory_bytes=2**28,
        workload=common_pb2.WorkloadSpec(profile="sql"),
        fill=common_pb2.FillSpec(kind="zero"),
        priority="medium",
    )
    view = views.vm_view(admin_pb2.Vm(spec=spec, state="off", epoch=3))
    wanted = {"name": "a", "state": "off", "node": None, "epoch": 3, "memory_bytes": 2**28, "workload": "sql"}
    assert wanted.items() <= view.items()
    assert view["fill"] == "zero"
    assert view["mac"] == mac_address("a")
    assert view["reason"] is None


def test_a_vm_filled_from_a_file_names_it() -> None:
    spec = common_pb2.VmSpec(fill=common_pb2.FillSpec(kind="file", path="/data/image"))
    assert views.vm_view(admin_pb2.Vm(spec=spec))["fill"] == "/data/image"


def test_a_node_has_the_fields_of_the_contract() -> None:
    node = admin_pb2.Node(name="n1", state="up", incarnation="0123", vms=["a", "b"], address="127.0.0.1:7000")
    view = views.node_view(node)
    assert view["incarnation"] == "0123"
    assert view["vms"] == ["a", "b"]
    assert {"name", "state", "incarnation", "vms", "address"} <= view.keys()
    assert views.node_view(admin_pb2.Node(name="n1", state="down"))["address"] is None


def test_a_node_shows_what_its_classes_of_traffic_get() -> None:
    qos = [common_pb2.QosPolicy(traffic_class="migration", limit_bytes_per_s=50_000_000, weight=40)]
    node = admin_pb2.Node(name="n1", capacity=common_pb2.Capacity(qos=qos))
    assert views.node_view(node)["qos"] == [
        {"class": "migration", "limit_bytes_per_s": 50_000_000, "weight": 40}
    ]
    assert ("traffic of migration", "at most 0.4 Gbit/s of each NIC, weight 40") in tables.node_pairs(node)


def test_votes_have_the_fields_of_the_contract() -> None:
    quorum = admin_pb2.Quorum(
        mode="file share witness",
        dynamic=True,
        witness="127.0.0.1:7010",
        number=4,
        majority=2,
        votes=[
            admin_pb2.Vote(name="n1", kind="node", state="up", has_vote=True),
            admin_pb2.Vote(name="witness", kind="witness", state="answers"),
        ],
        under_judgement=["n2"],
        reason="n2 is being voted on",
    )
    assert views.quorum_view(quorum) == {
        "mode": "file share witness",
        "dynamic": True,
        "witness": "127.0.0.1:7010",
        "forced": False,
        "number": 4,
        "majority": 2,
        "votes": [
            {"name": "n1", "kind": "node", "state": "up", "has_vote": True},
            {"name": "witness", "kind": "witness", "state": "answers", "has_vote": False},
        ],
        "under_judgement": ["n2"],
        "reason": "n2 is being voted on",
    }
    bare = views.quorum_view(admin_pb2.Quorum(mode="node majority"))
    assert [bare[name] for name in ("witness", "reason", "votes", "under_judgement")] == [None, None, [], []]


def test_a_queued_move_knows_nothing_yet() -> None:
    view = views.migration_view(record(state="queued", reason="waits for a free slot on n2"))
    assert view["passes"] == []
    unknown = ("final", "brownout_s", "blackout_s", "blackout", "total_s", "bytes_sent", "verified")
    assert [view[name] for name in unknown] == [None] * len(unknown)
    assert view["reason"] == "waits for a free slot on n2"


def test_a_move_that_copies_has_passes_but_no_brownout_yet() -> None:
    figures = common_pb2.MigrationFigures(passes=[passed(1)], bytes_sent=40_960, brownout_s=0.2)
    view = views.migration_view(record(state="copying", figures=figures))
    assert view["bytes_sent"] == 40_960
    assert (view["brownout_s"], view["final"]) == (None, None)
    wanted = {"index": 1, "pages_sent": 10, "bytes_sent": 40_960, "duration_s": 0.5, "dirty_pages_after": 3}
    assert wanted.items() <= view["passes"][0].items()


def test_a_completed_move_is_told_in_full() -> None:
    figures = common_pb2.MigrationFigures(
        passes=[passed(1), passed(2)],
        final=passed(0),
        brownout_s=0.2,
        blackout_s=0.002,
        blackout=common_pb2.BlackoutParts(
            last_pages_s=0.0002, ready_s=0.0003, commit_s=0.0007, resume_s=0.0008
        ),
        bytes_sent=99,
        verified=True,
    )
    view = views.migration_view(record(state="completed", figures=figures, total_s=0.4, reason="done"))
    assert [step["index"] for step in view["passes"]] == [1, 2]
    assert view["final"]["pages_sent"] == 10
    assert (view["brownout_s"], view["blackout_s"], view["total_s"]) == (0.2, 0.002, 0.4)
    assert view["verified"] is True
    parts = {"last_pages_s": 0.0002, "ready_s": 0.0003, "commit_s": 0.0007, "resume_s": 0.0008}
    assert view["blackout"] == parts


def test_what_was_compressed_is_told_for_each_pass() -> None:
    squeezed = passed(1)
    squeezed.compressed_pages, squeezed.compressed_bytes = 8, 16_384
    empty = common_pb2.PassFigures(index=2)
    figures = common_pb2.MigrationFigures(passes=[squeezed, passed(2), empty], compression="80% of the pages")
    done = record(state="completed", figures=figures)
    view = views.migration_view(done)
    told = [
        (step["raw_bytes"], step["compressed_share"], step["compressed_bytes"]) for step in view["passes"]
    ]
    assert told == [(40_960, 0.8, 16_384), (40_960, 0.0, 0), (0, None, 0)]
    assert view["compression"] == "80% of the pages"
    lines = tables.migration_lines(done)
    assert "10 pages (40 KiB, 80% compressed to 16 KiB)" in lines[1]
    assert "compressed" not in lines[2]
    assert "80% of the pages" in lines


def test_a_move_without_compression_says_nothing_of_it() -> None:
    figures = common_pb2.MigrationFigures(passes=[passed(1)])
    assert views.migration_view(record(figures=figures))["compression"] is None


def test_a_move_that_was_not_verified_does_not_say_false() -> None:
    figures = common_pb2.MigrationFigures(final=passed(0), blackout_s=0.0)
    view = views.migration_view(record(figures=figures))
    assert view["verified"] is None
    assert view["blackout_s"] == 0.0


def test_progress_adds_how_far_it_is() -> None:
    status = admin_pb2.MigrationStatus(
        record=record(state="copying"), pass_index=2, pages_done=5, pages_total=9, dirty_pages=4
    )
    view = views.progress_view(status)
    assert (view["id"], view["state"], view["pass_index"], view["dirty_pages"]) == ("m1", "copying", 2, 4)


def test_an_event_bears_windows_id_and_our_sequence() -> None:
    event = events_pb2.Event(
        id=7,
        time_us=1_700_000_000_000_001,
        log="System",
        level="critical",
        event_id=1135,
        node="n1",
        message="x",
    )
    view = views.event_view(event)
    assert view["time"] == "2023-11-14T22:13:20.000001Z"
    assert (view["id"], view["sequence"], view["node"], view["vm"]) == (1135, 7, "n1", None)
    assert views.event_view(events_pb2.Event(id=8))["id"] is None


def test_times_keep_their_microseconds_when_they_are_zero() -> None:
    assert views.rfc3339(0) == "1970-01-01T00:00:00.000000Z"


def test_an_error_names_its_rule_or_null() -> None:
    assert views.error_view(Refusal(ErrorCode.REFUSED, "no", "try", "same node")) == {
        "code": "refused",
        "rule": "same node",
        "message": "no",
        "hint": "try",
    }
    assert views.error_view(Refusal(ErrorCode.FAILED, "no"))["rule"] is None


def test_views_are_json() -> None:
    report = host_pb2.AuditReport(ok=False, pages_checked=3, errors=["page 1 is torn"])
    assert json.loads(json.dumps(views.audit_view(report))) == {
        "ok": False,
        "pages_checked": 3,
        "errors": ["page 1 is torn"],
    }
