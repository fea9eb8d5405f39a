"""Watchers outlast a coordinator that is away for a while, and no longer."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc.aio
import pytest

from ferry.v1 import admin_pb2, common_pb2
from ferry_cli import moving
from ferry_cli.admin import watch
from ferry_types.limits import PAGE_SIZE


def broken(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


class Streams:
    """Each call opens the next stream of a script: numbers that arrive, or the error that ends it."""

    def __init__(self, *scripts: tuple[int | grpc.StatusCode, ...]) -> None:
        self._scripts: Iterator[tuple[int | grpc.StatusCode, ...]] = iter(scripts)
        self._last: tuple[int | grpc.StatusCode, ...] = (grpc.StatusCode.UNAVAILABLE,)

    async def __call__(self) -> AsyncIterator[admin_pb2.Vm]:
        for step in next(self._scripts, self._last):
            if isinstance(step, grpc.StatusCode):
                raise broken(step)
            yield admin_pb2.Vm(epoch=step)
            await asyncio.sleep(0)


async def collect(streams: Streams, seen: list[int], **options: Any) -> None:
    async for vm in watch(streams, **options):
        seen.append(vm.epoch)  # noqa: PERF401 - what came before an error counts


async def test_a_stream_that_breaks_is_opened_again() -> None:
    away: list[str] = []
    seen: list[int] = []
    lost = grpc.StatusCode.UNAVAILABLE
    await collect(Streams((1, lost), (lost,), (2, 3)), seen, on_away=lambda: away.append("away"))
    assert (seen, away) == ([1, 2, 3], ["away"])


async def test_a_coordinator_that_stays_away_is_given_up() -> None:
    seen: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError):
        await collect(Streams((1, grpc.StatusCode.UNAVAILABLE)), seen, away_s=0.3)
    assert seen == [1]


async def test_one_that_was_never_reached_is_not_waited_for() -> None:
    streams = Streams((grpc.StatusCode.UNAVAILABLE,), (1,))
    seen: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError):
        await collect(streams, seen, reached=False)
    assert seen == []


async def test_a_refusal_is_not_repeated() -> None:
    streams = Streams((1, grpc.StatusCode.NOT_FOUND), (2,))
    seen: list[int] = []
    with pytest.raises(grpc.aio.AioRpcError):
        await collect(streams, seen)
    assert seen == [1]


def status(state: str, **fields: Any) -> admin_pb2.MigrationStatus:
    return admin_pb2.MigrationStatus(record=admin_pb2.MigrationRecord(id="m1", vm="a", state=state), **fields)


def test_progress_tells_pass_dirty_pages_rate_and_time_left() -> None:
    copying = status(
        "copying",
        pass_index=2,
        pages_done=100,
        pages_total=400,
        dirty_pages=212,
        rate_bytes_per_s=512.0 * PAGE_SIZE,
    )
    assert moving.remaining_s(copying) == 1.0
    assert moving.describe(copying) == "pass 2, 212 pages dirty (848 KiB), 2 MiB/s, about 1.000 s left"


def test_a_queued_move_says_what_it_waits_for() -> None:
    queued = status("queued")
    queued.record.reason = "waits for a free slot on n2 (2 of 2 in use)"
    assert moving.describe(queued) == queued.record.reason


@pytest.mark.parametrize(("state", "ended"), [("copying", False), ("cancelled", True), ("completed", True)])
def test_three_states_are_ends(state: str, ended: bool) -> None:
    assert moving.has_ended(status(state).record) is ended


def test_only_a_completed_move_is_no_failure() -> None:
    completed = admin_pb2.MigrationRecord(state="completed", figures=common_pb2.MigrationFigures())
    assert moving.failure(completed) is None
    failure = moving.failure(admin_pb2.MigrationRecord(id="m1", vm="a", target="n2", state="failed"))
    assert failure is not None
    assert "m1" in failure.hint
