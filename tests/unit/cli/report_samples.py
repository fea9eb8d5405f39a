"""Moves, events and bench runs as other commands print them."""

import json
from typing import Any

from ferry_cli.report.documents import Run, parse

HOSTILE = "<script>alert('x')</script>&\"\x00"


def clock(second: float) -> str:
    """A time of the sample's morning."""
    return f"2026-11-22T02:00:{second:09.6f}Z"


def a_pass(index: int = 1, **fields: Any) -> dict[str, Any]:
    usual = {"index": index, "pages_sent": 1000, "zero_pages": 24, "bytes_sent": 4_096_000}
    return {**usual, "duration_s": 0.5, "dirty_pages_after": 40, **fields}


def a_move(move_id: str = "m1", vm: str = "a", **fields: Any) -> dict[str, Any]:
    """A completed move of two seconds, requested at second 10."""
    return {
        "id": move_id,
        "vm": vm,
        "source": "n1",
        "target": "n2",
        "type": "live",
        "option": "tcpip",
        "state": "completed",
        "passes": [a_pass(1), a_pass(2, dirty_pages_after=5)],
        "final": a_pass(0, pages_sent=7),
        "brownout_s": 1.0,
        "blackout_s": 0.25,
        "total_s": 2.0,
        "memory_bytes": 2**22,
        "bytes_sent": 2**22,
        "verified": True,
        "reason": "switched after pass 2",
        "requested_at": clock(10),
        "cause": None,
        **fields,
    }


def an_event(second: float, message: str, event_id: int | None = None, **fields: Any) -> dict[str, Any]:
    usual = {"time": clock(second), "id": event_id, "log": "Hyperferry", "level": "information"}
    return {**usual, "node": "n1", "vm": "a", "message": message, **fields}


def a_log(move_id: str = "m1", vm: str = "a", begin: float = 10.0, cause: str = "") -> list[dict[str, Any]]:
    """What the coordinator logs of a move of two seconds that waited half a second for its slots."""
    why = f" ({cause})" if cause else ""
    where = "from n1 to n2"
    rows = [
        an_event(begin, f"move {move_id} of {vm} {where} was requested{why}"),
        an_event(begin + 0.5, f"{vm} moves {where} ({move_id})", 1641),
        an_event(begin + 0.5, f"live migration of {vm} begins {where} ({move_id})", 20413),
        an_event(begin + 1.95, f"{vm} runs on n2 under epoch 2"),
        an_event(begin + 2, f"{vm}: brown-out of 1.000 s while memory was copied {where}", 22508),
        an_event(begin + 2, f"{vm}: black-out of 0.250000 s; 7 dirty pages (28 KB) were sent in it", 22509),
        an_event(begin + 2, f"{vm} was moved {where} in 2.000 s ({move_id})", 22507),
    ]
    return [{**row, "vm": vm} for row in rows]


def a_bench(*blackouts_s: float, **fields: Any) -> dict[str, Any]:
    runs = [{"total_s": 0.2, "blackout_s": each, "throughput_bytes_per_s": 1e9} for each in blackouts_s]
    return {
        "memory_bytes": 2**26,
        "fill": "random",
        "workload": "idle",
        "option": "tcpip",
        "runs": runs,
        "floor_s": 0.002,
        "peers": {"qemu": {"median": None, "ratio": 0.5}},
        **fields,
    }


def a_scenario(**fields: Any) -> dict[str, Any]:
    move = {"id": "m1", "vm": "a", "source": "n1", "target": "n2", "state": "completed", "reason": None}
    return {
        "file": "drain.yaml",
        "title": "A drain",
        "ok": True,
        "seed": 1,
        "events": a_log(),
        "moves": [move],
        **fields,
    }


def run_of(document: Any, name: str = "run") -> Run:
    """The one run in a document."""
    (run,) = parse(name, json.dumps(document).encode())
    return run
