"""A bar on a terminal, lines elsewhere."""

from io import StringIO

from rich.console import Console

from ferry.v1 import admin_pb2
from ferry_cli import draining, moving


def copying(pass_index: int, state: str = "copying", **figures: int) -> admin_pb2.MigrationStatus:
    record = admin_pb2.MigrationRecord(id="m1", vm="a", target="n2", state=state)
    return admin_pb2.MigrationStatus(record=record, pass_index=pass_index, **figures)


def test_a_move_gets_a_line_for_each_pass_until_it_has_ended() -> None:
    told = StringIO()
    with moving.progress_bar(Console(file=told, width=200), "m1") as show:
        for dirty in (7, 6):
            show(copying(1, dirty_pages=dirty))
        show(copying(2, dirty_pages=1))
        show(copying(2, "completed"))
    lines = ["m1: pass 1, 7 pages dirty (28 KiB)", "m1: pass 2, 1 pages dirty (4 KiB)"]
    assert told.getvalue().splitlines() == lines


def test_a_drain_gets_a_line_for_each_change() -> None:
    told = StringIO()
    with draining.progress_bar(Console(file=told, width=200), "drain of n1") as show:
        for left in (["a", "b"], ["a", "b"], ["b"]):
            show(admin_pb2.Drain(state="active", taken=["a", "b"], remaining=left))
    lines = ["0 of 2 VMs have left, on it: a, b", "1 of 2 VMs have left, on it: b"]
    assert told.getvalue().splitlines() == [f"drain of n1: {line}" for line in lines]


def test_a_terminal_gets_a_bar() -> None:
    told = StringIO()
    console = Console(file=told, width=200, force_terminal=True)
    with moving.progress_bar(console, "m1") as show:
        show(copying(1, pages_done=3, pages_total=4, dirty_pages=7))
    with draining.progress_bar(console, "drain of n1") as show_drain:
        show_drain(admin_pb2.Drain(state="active", taken=["a"], remaining=["a"]))
    assert "pass 1, 7 pages dirty" in told.getvalue()
    assert "0 of 1 VMs have left" in told.getvalue()
