"""``vm audit`` asks the owner of the VM."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ferry.v1 import common_pb2, host_pb2
from ferry.v1.host_pb2_grpc import HostServicer, add_HostServicer_to_server
from ferry_wire.servers import create_server


class FakeHost(HostServicer):
    """Answers audits with one report."""

    def __init__(self) -> None:
        self.report = host_pb2.AuditReport(ok=True, pages_checked=4096)
        self.asked: list[str] = []
        self.address = ""

    async def Audit(self, request: Any, context: Any) -> host_pb2.AuditReport:
        self.asked.append(request.vm)
        return self.report

    async def RoundTrip(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for probe in request:
            yield probe

    async def TurnNic(self, request: Any, context: Any) -> host_pb2.HostNic:
        raise NotImplementedError

    async def SetFailpoint(self, request: Any, context: Any) -> host_pb2.FailpointList:
        raise NotImplementedError

    async def EstimateMove(self, request: Any, context: Any) -> common_pb2.MoveEstimate:
        raise NotImplementedError

    async def ListFailpoints(self, request: Any, context: Any) -> host_pb2.FailpointList:
        raise NotImplementedError


@pytest.fixture
async def host() -> AsyncIterator[FakeHost]:
    fake = FakeHost()
    server = create_server("127.0.0.1:0", (host_pb2.DESCRIPTOR,))
    add_HostServicer_to_server(fake, server.grpc)
    await server.start()
    fake.address = server.address
    yield fake
    await server.stop(grace_s=0)


async def test_clean_books_are_exit_0(ferry: Any, cluster: Any, vm: Any, host: FakeHost) -> None:
    cluster.vms = [vm("a", host_address=host.address)]
    ran = await ferry("vm", "audit", "a", "-o", "json")
    assert (ran.code, ran.document) == (0, {"ok": True, "pages_checked": 4096, "errors": []})
    assert host.asked == ["a"]


async def test_books_with_errors_are_exit_1(ferry: Any, cluster: Any, vm: Any, host: FakeHost) -> None:
    host.report = host_pb2.AuditReport(ok=False, pages_checked=9, errors=["page 7 is torn"])
    cluster.vms = [vm("a", host_address=host.address)]
    ran = await ferry("vm", "audit", "a", "-o", "json")
    assert (ran.code, ran.document["ok"], ran.document["errors"]) == (1, False, ["page 7 is torn"])
    assert "page 7 is torn" in (await ferry("vm", "audit", "a")).out


async def test_a_vm_without_a_host_cannot_be_asked(ferry: Any, cluster: Any, vm: Any) -> None:
    cluster.vms = [vm("a", "off")]
    ran = await ferry("vm", "audit", "a", "-o", "json")
    assert (ran.code, ran.document["error"]["code"]) == (5, "refused")
