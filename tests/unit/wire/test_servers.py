"""Servers and channels over real sockets: addresses, caps, health, deadlines, errors on their way."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from ferry.v1 import admin_pb2, admin_pb2_grpc, common_pb2, host_pb2, host_pb2_grpc
from ferry_types.errors import ErrorCode, FerryError, Refusal, failed, malformed, not_found, refused
from ferry_types.limits import MESSAGE_BYTES_MAX
from ferry_wire import servers
from ferry_wire.channels import BULK_OPTIONS, open_channel
from ferry_wire.servers import BoundServer, StreamOutbox, create_server
from ferry_wire.status import STATUS_CODES, refusal_of

ANY_PORT = "127.0.0.1:0"
Context = Any


class ScriptedHost(host_pb2_grpc.HostServicer):
    """Does what the name of the VM says."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.entered = asyncio.Event()
        self.left = asyncio.Event()

    async def TurnNic(self, request: host_pb2.TurnNicRequest, context: Context) -> host_pb2.HostNic:
        raise NotImplementedError

    async def SetFailpoint(self, request: host_pb2.Failpoint, context: Context) -> host_pb2.FailpointList:
        raise NotImplementedError

    async def EstimateMove(
        self, request: host_pb2.EstimateRequest, context: Context
    ) -> common_pb2.MoveEstimate:
        raise NotImplementedError

    async def ListFailpoints(
        self, request: host_pb2.FailpointQuery, context: Context
    ) -> host_pb2.FailpointList:
        raise NotImplementedError

    async def Audit(self, request: host_pb2.AuditRequest, context: Context) -> host_pb2.AuditReport:
        if self.error is not None:
            raise self.error
        if request.vm == "slow":
            self.entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        return host_pb2.AuditReport(ok=True, errors=[request.vm])

    async def RoundTrip(
        self, request_iterator: AsyncIterator[host_pb2.Probe], context: Context
    ) -> AsyncIterator[host_pb2.Probe]:
        try:
            async for probe in request_iterator:
                yield probe
                if self.error is not None:
                    raise self.error
        finally:
            self.left.set()


@asynccontextmanager
async def serving(
    host: ScriptedHost, listen: str = ANY_PORT, **limits: int
) -> AsyncIterator[tuple[BoundServer, host_pb2_grpc.HostStub]]:
    server = create_server(listen, (host_pb2.DESCRIPTOR,), **limits)
    host_pb2_grpc.add_HostServicer_to_server(host, server.grpc)
    await server.start()
    try:
        async with open_channel(server.address) as channel:
            yield server, host_pb2_grpc.HostStub(channel)
    finally:
        await server.stop(0)


async def refusal_from(host: ScriptedHost, error: Exception) -> Refusal:
    host.error = error
    async with serving(host) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Audit(host_pb2.AuditRequest(vm="vm1"), timeout=5)
    return refusal_of(raised.value)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        malformed("memory is no size", "write 256MiB"),
        not_found("no VM vm9"),
        refused("same node", "vm1 is on node1 already", "choose another"),
        failed("the store is corrupt"),
        Refusal(ErrorCode.UNREACHABLE, "node3 is away"),
        failed("größer: 日本語", "☃"),
    ],
    ids=lambda refusal: refusal.message,
)
async def test_a_refusal_arrives_as_it_was_raised(refusal: Refusal) -> None:
    assert await refusal_from(ScriptedHost(), FerryError(refusal)) == refusal


def test_every_kind_of_failure_has_a_status_of_its_own() -> None:
    assert set(STATUS_CODES) == set(ErrorCode)
    assert len(set(STATUS_CODES.values())) == len(STATUS_CODES)


async def test_the_status_code_and_the_message_are_there_for_other_clients() -> None:
    host = ScriptedHost()
    host.error = FerryError(refused("same node", "vm1 is on node1 already"))
    async with serving(host) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Audit(host_pb2.AuditRequest(), timeout=5)
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert raised.value.details() == "vm1 is on node1 already"


@pytest.mark.parametrize("letter", ["x", "日", "\U0001f6a2", "%"])
async def test_a_refusal_too_long_for_metadata_is_cut(letter: str) -> None:
    long = letter * 50_000
    received = await refusal_from(ScriptedHost(), FerryError(refused(long, long, long)))
    assert received.code is ErrorCode.REFUSED
    for text in (received.rule, received.message, received.hint):
        assert text.endswith("...")
        assert text[:-3] == letter * (len(text) - 3)


@pytest.mark.parametrize("error", [ValueError("secret"), KeyError("secret"), TimeoutError()])
async def test_a_defect_is_logged_and_not_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    received = await refusal_from(ScriptedHost(), error)
    assert received.code is ErrorCode.FAILED
    assert "/ferry.v1.Host/Audit failed unexpectedly" in received.message
    assert "secret" not in received.message
    [record] = [record for record in caplog.records if record.name == "ferry_wire.status"]
    assert record.exc_info is not None
    assert record.exc_info[1] is error


async def test_a_stream_may_be_refused_after_it_has_answered() -> None:
    host = ScriptedHost()
    host.error = FerryError(refused("deposed", "another coordinator took over"))
    async with serving(host) as (_, stub):
        call = stub.RoundTrip(iter([host_pb2.Probe(sequence=1), host_pb2.Probe(sequence=2)]), timeout=5)
        first = await anext(aiter(call))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await anext(aiter(call))
    assert first.sequence == 1
    assert refusal_of(raised.value).rule == "deposed"


async def test_bytes_that_are_no_message_are_malformed_and_nobodys_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(ScriptedHost()) as (server, _), open_channel(server.address) as channel:
        stream: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream("/ferry.v1.Host/RoundTrip")()
        await stream.write(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    refusal = refusal_of(caught.value)
    assert refusal.code is ErrorCode.MALFORMED
    assert refusal.message == "a message of 3 bytes is none that /ferry.v1.Host/RoundTrip takes"
    assert not [record for record in caplog.records if record.name == "ferry_wire.status"]


async def test_a_cancelled_stream_ends_its_handler() -> None:
    host = ScriptedHost()
    async with serving(host) as (_, stub):
        call = stub.RoundTrip(timeout=5)
        await call.write(host_pb2.Probe(sequence=1))
        answer = await call.read()
        assert isinstance(answer, host_pb2.Probe)
        call.cancel()
        await asyncio.wait_for(host.left.wait(), 5)


async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # not listening: connections are refused, and nobody else gets the port
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        async with open_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await host_pb2_grpc.HostStub(channel).Audit(host_pb2.AuditRequest(), timeout=5)
    refusal = refusal_of(raised.value, address)
    assert refusal.code is ErrorCode.UNREACHABLE
    assert refusal.message.startswith(f"{address} cannot be reached")
    assert refusal.hint


async def test_no_answer_in_time_is_unreachable() -> None:
    host = ScriptedHost()
    async with serving(host) as (server, stub):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Audit(host_pb2.AuditRequest(vm="slow"), timeout=0.05)
        refusal = refusal_of(raised.value, server.address)
        assert refusal == Refusal(
            ErrorCode.UNREACHABLE, f"{server.address} did not answer in time", refusal.hint
        )


async def test_an_unknown_call_names_the_version() -> None:
    async with serving(ScriptedHost()) as (server, _), open_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await admin_pb2_grpc.AdminStub(channel).ListVms(admin_pb2.ListVmsRequest(), timeout=5)
    refusal = refusal_of(raised.value)
    assert refusal.code is ErrorCode.FAILED
    assert "version" in refusal.hint


# --- limits -------------------------------------------------------------------------------------


async def test_the_server_bounds_unary_calls_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "DEADLINES", {"/ferry.v1.Host/Audit": 0.05})
    host = ScriptedHost()
    async with serving(host) as (_, stub):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Audit(host_pb2.AuditRequest(vm="slow"), timeout=10)
        assert host.left.is_set()
    refusal = refusal_of(raised.value)
    assert refusal.code is ErrorCode.FAILED
    assert "did not finish within 0.05 s" in refusal.message


async def test_a_message_larger_than_the_cap_does_not_get_in() -> None:
    keeps_to_no_cap = [("grpc.max_send_message_length", -1)]
    async with (
        serving(ScriptedHost()) as (server, _),
        grpc.aio.insecure_channel(server.address, options=keeps_to_no_cap) as channel,
    ):
        stub = host_pb2_grpc.HostStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Audit(host_pb2.AuditRequest(vm="x" * (MESSAGE_BYTES_MAX + 1)), timeout=5)
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal_of(raised.value).code is ErrorCode.FAILED


async def test_calls_beyond_the_limit_are_refused_however_often() -> None:
    host = ScriptedHost()
    async with serving(host, concurrent_rpcs_max=1) as (_, stub):
        slow = stub.Audit(host_pb2.AuditRequest(vm="slow"), timeout=10)
        waiting = asyncio.ensure_future(slow)
        await asyncio.wait_for(host.entered.wait(), 5)
        for _again in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Audit(host_pb2.AuditRequest(), timeout=5)
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        slow.cancel()
        await asyncio.wait({waiting})


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", [ANY_PORT, "localhost:0"])
async def test_a_server_knows_its_port_before_it_starts(listen: str) -> None:
    server = create_server(listen, (host_pb2.DESCRIPTOR,))
    try:
        host, _, port = server.address.rpartition(":")
        assert host == listen.rpartition(":")[0]
        assert int(port) > 0
    finally:
        await server.stop(0)


async def test_a_port_in_use_is_named_and_nothing_else_is_said(capfd: pytest.CaptureFixture[str]) -> None:
    async with serving(ScriptedHost()) as (server, _):
        with pytest.raises(FerryError) as raised:
            create_server(server.address, (host_pb2.DESCRIPTOR,))
    refusal = raised.value.refusal
    assert refusal.code is ErrorCode.FAILED
    assert f"port {server.address.rpartition(':')[2]} on 127.0.0.1 is in use" in refusal.message
    assert refusal.hint
    assert capfd.readouterr().err == ""  # gRPC's core would write a line of its own


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(FerryError, match=r"192\.0\.2\.1 is not an address of this machine"):
        create_server("192.0.2.1:0", (host_pb2.DESCRIPTOR,))


async def test_a_stopped_server_frees_its_port() -> None:
    async with serving(ScriptedHost()) as (server, _):
        address = server.address
    async with serving(ScriptedHost(), address) as (_, stub):
        assert (await stub.Audit(host_pb2.AuditRequest(vm="again"), timeout=5)).ok


async def test_stopping_does_not_wait_for_open_streams() -> None:
    async with serving(ScriptedHost()) as (server, stub):
        call = stub.RoundTrip(timeout=30)
        await call.write(host_pb2.Probe())
        await call.read()
        await asyncio.wait_for(server.stop(0.1), 3)


async def test_health_is_told_for_each_service() -> None:
    async with serving(ScriptedHost()) as (server, _), open_channel(server.address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        for service in ("", "ferry.v1.Host"):
            answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await check(health_pb2.HealthCheckRequest(service="ferry.v1.Other"), timeout=5)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services() -> None:
    async with serving(ScriptedHost()) as (server, _), open_channel(server.address) as channel:
        ask = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5)
        [answer] = [answer async for answer in call]
    assert "ferry.v1.Host" in {service.name for service in answer.list_services_response.service}


# --- channels -----------------------------------------------------------------------------------


async def test_a_channel_finds_a_server_that_comes_back_within_about_a_second() -> None:
    loop = asyncio.get_running_loop()
    async with serving(ScriptedHost()) as (server, _):
        address = server.address
    async with open_channel(address) as channel:
        stub = host_pb2_grpc.HostStub(channel)
        for _ in range(6):  # long enough for the back-off to reach its bound
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Audit(host_pb2.AuditRequest(), timeout=0.5, wait_for_ready=True)
        async with serving(ScriptedHost(), address):
            back_at = loop.time()
            await stub.Audit(host_pb2.AuditRequest(), timeout=10, wait_for_ready=True)
            assert loop.time() - back_at < 2.5


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setitem(os.environ, variable, "http://192.0.2.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with serving(ScriptedHost(), "localhost:0") as (_, stub):
        assert (await stub.Audit(host_pb2.AuditRequest(), timeout=5)).ok


async def test_each_channel_has_a_connection_of_its_own() -> None:
    peers = set()

    class Peers(ScriptedHost):
        async def Audit(self, request: host_pb2.AuditRequest, context: Context) -> host_pb2.AuditReport:
            peers.add(context.peer())
            return host_pb2.AuditReport()

    async with (
        serving(Peers()) as (server, stub),
        open_channel(server.address, BULK_OPTIONS) as bulk,
        open_channel(server.address, BULK_OPTIONS) as second_bulk,
    ):
        for each in (stub, host_pb2_grpc.HostStub(bulk), host_pb2_grpc.HostStub(second_bulk)):
            await each.Audit(host_pb2.AuditRequest(), timeout=5)
    assert len(peers) == 3


async def test_a_malformed_address_opens_no_channel() -> None:
    with pytest.raises(FerryError, match="host:port"):
        open_channel("unix:/tmp/socket")


# --- outbox -------------------------------------------------------------------------------------


async def test_an_outbox_keeps_order_and_ends_when_it_is_closed() -> None:
    outbox = StreamOutbox[int](10, "the stream of n1")
    for number in range(3):
        outbox.put(number)
    outbox.close()
    outbox.put(99)
    assert [number async for number in outbox] == [0, 1, 2]


async def test_an_outbox_wakes_its_reader() -> None:
    outbox = StreamOutbox[int](10, "the stream of n1")
    reading = asyncio.ensure_future(anext(outbox))
    await asyncio.sleep(0)
    assert not reading.done()
    outbox.put(7)
    assert await asyncio.wait_for(reading, 5) == 7


async def test_closing_an_outbox_wakes_its_reader() -> None:
    outbox = StreamOutbox[int](10, "the stream of n1")
    reading = asyncio.ensure_future(anext(outbox))
    await asyncio.sleep(0)
    outbox.close(refused("deposed", "another coordinator took over"))
    with pytest.raises(FerryError, match="took over"):
        await asyncio.wait_for(reading, 5)


async def test_a_refusal_comes_after_what_was_queued() -> None:
    outbox = StreamOutbox[int](10, "the stream of n1")
    outbox.put(1)
    outbox.close(refused("deposed", "another coordinator took over"))
    assert await anext(outbox) == 1
    with pytest.raises(FerryError, match="took over"):
        await anext(outbox)


async def test_a_reader_that_is_too_slow_loses_its_stream() -> None:
    outbox = StreamOutbox[int](3, "the stream of n1")
    for number in range(4):
        outbox.put(number)
    assert outbox.closed
    with pytest.raises(FerryError) as raised:
        await anext(outbox)
    assert "the stream of n1 fell 3 messages behind" in raised.value.refusal.message
