"""The witness's client: everything that can go wrong is a FerryError, and in time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from ferry.v1 import quorum_pb2, quorum_pb2_grpc
from ferry_types.errors import ErrorCode, FerryError, Refusal, failed
from ferry_types.quorum import NO_RECORD, Claim, VotingRecord, WitnessRecord
from ferry_wire import witness
from ferry_wire.conversion import to_proto
from ferry_wire.servers import BoundServer, create_server
from ferry_wire.witness import CHANNELS_MAX, WitnessClient

FIRST = NO_RECORD.promising(Claim("u1", "life", 1, 0, 1))


class ScriptedWitness(quorum_pb2_grpc.WitnessServicer):
    """Answers what it is told to."""

    def __init__(self) -> None:
        self.record = to_proto(FIRST, quorum_pb2.WitnessRecord)
        self.replaced = False
        self.error: FerryError | None = None
        self.hangs = False
        self.peers: list[str] = []
        self.called = asyncio.Event()

    async def Read(self, request: quorum_pb2.WitnessQuery, context: Any) -> quorum_pb2.WitnessRecord:
        await self._called(context)
        return self.record

    async def Replace(
        self, request: quorum_pb2.WitnessReplacement, context: Any
    ) -> quorum_pb2.WitnessOutcome:
        await self._called(context)
        return quorum_pb2.WitnessOutcome(replaced=self.replaced, record=self.record)

    async def _called(self, context: Any) -> None:
        self.peers.append(context.peer())
        self.called.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def serving(scripted: ScriptedWitness, listen: str = "127.0.0.1:0") -> AsyncIterator[BoundServer]:
    server = create_server(listen, (quorum_pb2.DESCRIPTOR.services_by_name["Witness"],))
    quorum_pb2_grpc.add_WitnessServicer_to_server(scripted, server.grpc)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


@pytest.fixture
async def client() -> AsyncIterator[WitnessClient]:
    client = WitnessClient()
    yield client
    await client.close()


async def refusals(client: WitnessClient, address: str) -> list[Refusal]:
    """What both calls fail with."""
    found = []
    for call in (client.read(address, "east"), client.replace(address, "east", FIRST)):
        with pytest.raises(FerryError) as raised:
            await call
        found.append(raised.value.refusal)
    return found


async def test_answers_are_values(client: WitnessClient) -> None:
    scripted = ScriptedWitness()
    async with serving(scripted) as server:
        assert await client.read(server.address, "east") == FIRST
        assert await client.replace(server.address, "east", FIRST) == (False, FIRST)
        scripted.replaced = True
        assert await client.replace(server.address, "east", FIRST) == (True, FIRST)


async def test_nobody_there_is_unreachable(client: WitnessClient, unused_tcp_port: int) -> None:
    address = f"127.0.0.1:{unused_tcp_port}"
    for refusal in await refusals(client, address):
        assert refusal.code is ErrorCode.UNREACHABLE
        assert address in refusal.message


async def test_no_answer_in_time_is_unreachable(
    client: WitnessClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ScriptedWitness()
    scripted.hangs = True
    monkeypatch.setattr(witness, "CALL_S", 0.1)
    async with serving(scripted) as server:
        for refusal in await refusals(client, server.address):
            assert refusal.code is ErrorCode.UNREACHABLE
            assert f"{server.address} did not answer in time" in refusal.message


async def test_a_refusal_comes_as_it_was_made(client: WitnessClient) -> None:
    scripted = ScriptedWitness()
    scripted.error = FerryError(failed("the disk is full", "see to it"))
    async with serving(scripted) as server:
        assert await refusals(client, server.address) == [scripted.error.refusal] * 2


@pytest.mark.parametrize(
    "record",
    [
        quorum_pb2.WitnessRecord(),
        quorum_pb2.WitnessRecord(votes=quorum_pb2.VotingRecord(), promises=[quorum_pb2.WitnessPromise()]),
    ],
    ids=["no votes", "no name"],
)
async def test_an_answer_that_is_not_well_formed_is_a_failure(
    client: WitnessClient, record: quorum_pb2.WitnessRecord
) -> None:
    scripted = ScriptedWitness()
    scripted.record = record
    async with serving(scripted) as server:
        for refusal in await refusals(client, server.address):
            assert refusal.code is ErrorCode.FAILED
            assert f"the witness at {server.address} gave an answer that is not well" in refusal.message


async def test_another_record_than_the_one_that_was_given_is_a_failure(client: WitnessClient) -> None:
    scripted = ScriptedWitness()
    scripted.replaced = True
    async with serving(scripted) as server:
        with pytest.raises(FerryError, match="not by the one that it was given"):
            await client.replace(server.address, "east", WitnessRecord(1, VotingRecord(), ()))


async def test_bytes_that_are_no_message_are_a_failure(client: WitnessClient) -> None:
    async def babble(request: Any, context: Any) -> bytes:
        return b"\xff\xff\xff"

    handler: Any = grpc.unary_unary_rpc_method_handler(babble, response_serializer=bytes)
    server = create_server("127.0.0.1:0", ())
    server.grpc.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("ferry.v1.Witness", {"Read": handler, "Replace": handler}),)
    )
    await server.start()
    try:
        for refusal in await refusals(client, server.address):
            assert refusal.code is ErrorCode.FAILED
    finally:
        await server.stop(0)


async def test_a_process_that_is_no_witness_is_named(client: WitnessClient) -> None:
    server = create_server("127.0.0.1:0", ())
    await server.start()
    try:
        for refusal in await refusals(client, server.address):
            assert refusal.code is ErrorCode.FAILED
            assert "address is right" in refusal.hint
    finally:
        await server.stop(0)


@pytest.mark.parametrize("address", ["", "nowhere", "127.0.0.1:0", "unix:/tmp/socket"])
async def test_a_malformed_address_is_refused(client: WitnessClient, address: str) -> None:
    for refusal in await refusals(client, address):
        assert refusal.code is ErrorCode.MALFORMED


async def test_there_is_one_connection_for_each_witness(client: WitnessClient) -> None:
    here, there = ScriptedWitness(), ScriptedWitness()
    async with serving(here) as first, serving(there) as second:
        for address in (first.address, second.address) * 2:
            await asyncio.gather(client.read(address, "east"), client.replace(address, "west", FIRST))
    assert [len(set(each.peers)) for each in (here, there)] == [1, 1]


async def test_a_witness_that_comes_back_is_found(client: WitnessClient) -> None:
    async with serving(ScriptedWitness()) as server:
        address = server.address
        await client.read(address, "east")
    await refusals(client, address)
    async with serving(ScriptedWitness(), address), asyncio.timeout(5):
        while True:
            try:
                assert await client.read(address, "east") == FIRST
            except FerryError:
                await asyncio.sleep(0.02)  # the connection is not tried at every call
            else:
                break


async def test_connections_are_bounded_and_no_call_suffers(
    client: WitnessClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "CALL_S", 0.5)
    slow = ScriptedWitness()
    slow.hangs = True
    async with serving(slow) as server, serving(ScriptedWitness(), "0.0.0.0:0") as other:
        waiting = asyncio.create_task(client.read(server.address, "east"))
        await asyncio.wait_for(slow.called.wait(), 5)
        port = other.address.rpartition(":")[2]
        for number in range(1, CHANNELS_MAX + 1):  # all of them are this machine
            assert await client.read(f"127.0.0.{number}:{port}", "east") == FIRST
        with pytest.raises(FerryError) as raised:
            await waiting
        assert raised.value.refusal.code is ErrorCode.UNREACHABLE
