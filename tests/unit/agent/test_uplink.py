"""The stream to the coordinator: which refusals end an agent, and which it waits out."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ferry.v1 import membership_pb2, membership_pb2_grpc
from ferry_agent.uplink import BACKOFF_S_MIN, FATAL_RULES, Uplink
from ferry_types.errors import FerryError, refused
from ferry_types.messages import HostOrder, Wait
from ferry_wire.envelopes import host_order_to_proto
from ferry_wire.servers import create_server

PATIENCE_S = 10.0
ORDER = HostOrder(1, "life", 1, Wait("a look at the list", 2.0))


class Doorkeeper(membership_pb2_grpc.MembershipServicer):
    """A coordinator that turns a host away so many times by a rule, and then lets it in."""

    def __init__(self, rule: str, times: int) -> None:
        self.rule = rule
        self.left = times
        self.asked_at_s: list[float] = []

    async def Attend(self, request_iterator: Any, context: Any) -> AsyncIterator[membership_pb2.ToHost]:
        self.asked_at_s.append(asyncio.get_running_loop().time())
        if self.left > 0:
            self.left -= 1
            raise FerryError(refused(self.rule, "it may not join", "look at what it says"))
        yield host_order_to_proto(ORDER)
        await asyncio.Event().wait()

    async def CertifyDeath(
        self, request: membership_pb2.DeathCertificate, context: Any
    ) -> membership_pb2.DeathNoted:
        raise NotImplementedError


@asynccontextmanager
async def at_the_door(keeper: Doorkeeper) -> AsyncIterator[tuple[asyncio.Task[None], list[HostOrder]]]:
    """An uplink that runs, and the orders that it has been given."""
    server = create_server("127.0.0.1:0", [membership_pb2.DESCRIPTOR])
    membership_pb2_grpc.add_MembershipServicer_to_server(keeper, server.grpc)
    await server.start()
    orders: list[HostOrder] = []
    uplink = Uplink(server.address, on_open=lambda: None, on_close=lambda: None, on_order=orders.append)
    running = asyncio.create_task(uplink.run())
    try:
        yield running, orders
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError, FerryError):
            await running
        await server.stop()


async def test_a_host_waits_until_the_node_that_has_its_address_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda _low, _high: 1.0)  # no jitter
    keeper = Doorkeeper("nic addresses", times=4)
    async with at_the_door(keeper) as (running, orders):
        async with asyncio.timeout(PATIENCE_S):
            while not orders:  # noqa: ASYNC110 - there is nothing else to wait for
                await asyncio.sleep(0.005)
        assert not running.done()
    assert orders == [ORDER]
    asked = keeper.asked_at_s
    assert len(asked) == 5
    assert asked[4] - asked[3] > 16 * BACKOFF_S_MIN * 0.9, "it asks less and less often"


@pytest.mark.parametrize("rule", sorted(FATAL_RULES))
async def test_a_host_that_is_turned_away_for_good_ends(rule: str) -> None:
    keeper = Doorkeeper(rule, times=1)
    async with at_the_door(keeper) as (running, orders):
        with pytest.raises(FerryError) as caught:
            await asyncio.wait_for(running, PATIENCE_S)
    assert caught.value.refusal.rule == rule
    assert orders == []
    assert len(keeper.asked_at_s) == 1


def test_what_no_waiting_cures_ends_an_agent() -> None:
    assert {"known network", "subnet"} <= FATAL_RULES
