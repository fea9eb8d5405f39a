"""A host's attempts to move VMs away, as its core sees and ends them."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.unit.migration.ends import DEADLINE_S, EPOCH, MOVE, TOKEN, VM, guest_writes, random_memory

from ferry_agent import outgoing
from ferry_agent.failpoints import Failpoints
from ferry_agent.outgoing import OutgoingMoves
from ferry_agent.rack import Rack
from ferry_host import inputs
from ferry_host.scale import UNSCALED
from ferry_types.messages import BeginOutgoing
from ferry_types.migrations import MigrationOptions, WireFigures

NOBODY = "127.0.0.1:9"


async def test_an_attempt_that_fails_tells_it_once_and_has_its_marks_back_though_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    estimated = []
    monkeypatch.setattr(outgoing, "estimate_move", lambda *of: estimated.append(of))
    memory = random_memory(8)
    guest_writes(memory, 3, 1)
    image = SimpleNamespace(memory=memory, scale=UNSCALED)
    rack = cast(Rack, SimpleNamespace(get=lambda _vm: image))
    told: list[Any] = []
    has_failed = asyncio.Event()

    def submit(event: inputs.Event) -> None:
        """As the core does, which ends an attempt that has failed there and then."""
        told.append(event)
        moves.stop(MOVE)
        has_failed.set()

    moves = OutgoingMoves(rack, Failpoints(enabled=False), submit)
    wire = WireFigures(rate_bytes_per_s=1e9)
    moves.start(BeginOutgoing(MOVE, TOKEN, VM, EPOCH, "node2", NOBODY, MigrationOptions(), wire=wire))
    async with asyncio.timeout(DEADLINE_S):
        await has_failed.wait()
        await moves.close()

    (failed,) = told
    assert isinstance(failed, inputs.OutgoingFailed)
    assert NOBODY in failed.reason.message
    assert memory.dirty.take().tolist() == [3]
    assert not estimated, "estimates wait until the streams are open"
