"""A dry run asks the source what the move would take, or says why that is not known."""

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from ferry.v1 import admin_pb2, common_pb2, host_pb2, host_pb2_grpc
from ferry_cluster.records import MigrationRecord
from ferry_cluster.views import MigrationView
from ferry_coordinator.answers import migration_answer, plan_answer
from ferry_coordinator.estimates import add_estimate
from ferry_types.errors import FerryError, refused
from ferry_types.migrations import (
    MigrationFigures,
    MigrationOptions,
    MigrationState,
    MoveEstimate,
    TransportOption,
    WireFigures,
)
from ferry_wire.servers import create_server

WIRE = WireFigures(1e8, 0.002)
ESTIMATE = MoveEstimate(3, 4.0, 0.012, 1 << 29, 1e8, 5e6, "switched after pass 3: it fits")
PLANNED = MigrationRecord(
    "m1",
    "a",
    "n1",
    "n2",
    1,
    "token",
    MigrationOptions(option=TransportOption.TCPIP),
    MigrationState.QUEUED,
    1 << 28,
    1,
)


class FakeHost(host_pb2_grpc.HostServicer):
    """Estimates, or refuses."""

    def __init__(self) -> None:
        self.refusal: FerryError | None = None
        self.asked: list[host_pb2.EstimateRequest] = []

    async def EstimateMove(self, request: Any, context: Any) -> common_pb2.MoveEstimate:
        self.asked.append(request)
        if self.refusal is not None:
            raise self.refusal
        return common_pb2.MoveEstimate(passes=3, brownout_s=4.0)

    async def Audit(self, request: Any, context: Any) -> host_pb2.AuditReport:
        raise NotImplementedError

    async def RoundTrip(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for probe in request:
            yield probe

    async def TurnNic(self, request: Any, context: Any) -> host_pb2.HostNic:
        raise NotImplementedError

    async def SetFailpoint(self, request: Any, context: Any) -> host_pb2.FailpointList:
        raise NotImplementedError

    async def ListFailpoints(self, request: Any, context: Any) -> host_pb2.FailpointList:
        raise NotImplementedError


class FakeDriver:
    """Shows one node's address, and what is known of the wire from it."""

    def __init__(self, address: str, wire: WireFigures | None) -> None:
        self.address = address
        self.wire = wire

    async def read(self, look: Any) -> Any:
        return look(self)

    def wire_figures(self, source: str, target: str, option: TransportOption | None) -> WireFigures | None:
        assert (source, target, option) == ("n1", "n2", TransportOption.TCPIP)
        return self.wire

    def node_view(self, name: str) -> "FakeDriver":
        assert name == "n1"
        return self


@pytest.fixture
async def host() -> AsyncIterator[tuple[FakeHost, str]]:
    fake = FakeHost()
    server = create_server("127.0.0.1:0", (host_pb2.DESCRIPTOR,))
    host_pb2_grpc.add_HostServicer_to_server(fake, server.grpc)
    await server.start()
    yield fake, server.address
    await server.stop(grace_s=0)


async def planned(address: str, wire: WireFigures | None) -> admin_pb2.MigrationRecord:
    plan = plan_answer(PLANNED)
    await add_estimate(plan, PLANNED, cast("Any", FakeDriver(address, wire)))
    return plan


async def test_the_source_is_asked(host: tuple[FakeHost, str]) -> None:
    fake, address = host
    plan = await planned(address, WIRE)
    assert (plan.estimate.passes, plan.estimate.brownout_s, plan.estimate_reason) == (3, 4.0, "")
    assert (fake.asked[0].vm, fake.asked[0].options.pass_limit) == ("a", 10)
    assert (fake.asked[0].wire.rate_bytes_per_s, fake.asked[0].wire.blackout_floor_s) == (1e8, 0.002)


async def test_nobody_is_asked_while_the_wire_is_unknown(host: tuple[FakeHost, str]) -> None:
    fake, address = host
    plan = await planned(address, None)
    assert not plan.HasField("estimate")
    assert plan.estimate_reason == "no move between n1 and n2 has shown yet what the wire carries"
    assert fake.asked == []


async def test_what_the_source_says_against_it_is_passed_on(host: tuple[FakeHost, str]) -> None:
    fake, address = host
    fake.refusal = FerryError(refused("guest measured", "a is paused", "ask again"))
    plan = await planned(address, WIRE)
    assert not plan.HasField("estimate")
    assert plan.estimate_reason == "a is paused"


@pytest.mark.parametrize("address", ["127.0.0.1:1", ""])
async def test_a_source_that_is_away_does_not_fail_the_plan(address: str) -> None:
    plan = await planned(address, WIRE)
    assert plan.vm == "a"
    assert not plan.HasField("estimate")
    assert plan.estimate_reason


def test_a_moves_estimate_stands_beside_its_figures() -> None:
    answer = migration_answer(
        MigrationView(
            MigrationRecord(
                *("m1", "a", "n1", "n2", 1, "token", MigrationOptions(), MigrationState.COMPLETED, 1, 1),
                figures=MigrationFigures(estimate=ESTIMATE),
            ),
            None,
        )
    )
    assert (answer.estimate.passes, answer.estimate.blackout_s) == (3, 0.012)
    assert not migration_answer(MigrationView(PLANNED, None)).HasField("estimate")
