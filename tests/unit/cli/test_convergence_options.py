"""``ferry vm migrate``: help to converge is asked for, and an estimate is shown beside the outcome."""

from typing import Any

from ferry.v1 import admin_pb2, common_pb2
from ferry_cli import tables, views

ESTIMATE = common_pb2.MoveEstimate(
    passes=3,
    brownout_s=4.0,
    blackout_s=0.012,
    bytes_sent=512 * 2**20,
    rate_bytes_per_s=119 * 2**20,
    write_bytes_per_s=32 * 2**20,
    explanation="switched after pass 3: it fits",
)


async def test_help_that_is_asked_for_is_passed_on_and_no_other(ferry: Any, cluster: Any) -> None:
    await ferry("vm", "migrate", "a", "--detach", "--throttle", "--abort-over-blackout")
    chosen = cluster.requests[0].options
    assert (chosen.throttle, chosen.switch_at_minimum, chosen.abort_over_blackout) == (True, False, True)


async def test_contradictions_are_refused_by_name(ferry: Any, cluster: Any) -> None:
    both = ("--switch-at-minimum", "--abort-over-blackout")
    ran = await ferry("vm", "migrate", "a", *both, "-o", "json")
    assert ran.code == 2
    assert ran.document["error"]["code"] == "malformed"
    assert "--switch-at-minimum and --abort-over-blackout" in ran.document["error"]["message"]
    assert cluster.requests == []


def record(**fields: Any) -> admin_pb2.MigrationRecord:
    return admin_pb2.MigrationRecord(vm="a", source="n1", target="n2", state="completed", **fields)


def test_an_estimate_is_shown_beside_the_outcome() -> None:
    figures = common_pb2.MigrationFigures(
        passes=[common_pb2.PassFigures(index=2, throttle_percent=40)],
        final=common_pb2.PassFigures(),
        brownout_s=4.2,
        blackout_s=0.013,
    )
    moved = record(estimate=ESTIMATE, figures=figures)
    lines = tables.migration_lines(moved)
    at = lines.index("brown-out 4.200 s, black-out 13.0 ms")
    assert lines[at + 1] == "estimate: 3 passes, brown-out 4.000 s, black-out 12.0 ms, 512 MiB sent"
    assert lines[at + 2].endswith(
        "119 MiB/s on the wire and 32 MiB/s written by the guest: switched after pass 3: it fits"
    )
    assert any(line.endswith("dirty afterwards, the guest slowed by 40 %") for line in lines)
    view = views.migration_view(moved)
    assert (view["estimate"]["passes"], view["estimate"]["blackout_s"]) == (3, 0.012)
    assert view["passes"][0]["throttle_percent"] == 40
    assert view["estimate_reason"] is None


def test_a_move_that_would_be_given_up_has_no_blackout() -> None:
    given_up = common_pb2.MoveEstimate(passes=10, explanation="given up at the limit of 10 passes")
    planned = record(estimate=given_up)
    assert views.migration_view(planned)["estimate"]["blackout_s"] is None
    assert "given up" in tables.estimate_lines(planned)[0]


def test_without_an_estimate_a_plan_says_why() -> None:
    planned = record(estimate_reason="a is paused")
    assert views.migration_view(planned)["estimate"] is None
    assert views.migration_view(planned)["estimate_reason"] == "a is paused"
    assert tables.estimate_lines(planned) == ["no estimate: a is paused"]
    assert tables.estimate_lines(record()) == []
