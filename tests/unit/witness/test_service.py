"""The witness over the wire: of many that replace one record, one wins; what it answered it never loses."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2

from ferry.v1 import quorum_pb2, quorum_pb2_grpc
from ferry_types.errors import ErrorCode, FerryError
from ferry_types.quorum import NO_RECORD, Claim, WitnessRecord
from ferry_wire.channels import open_channel
from ferry_wire.witness import WitnessClient
from ferry_witness.service import serve
from ferry_witness.settings import load_settings

PATIENCE_S = 15.0
CLAIMS = [Claim(f"u{number}", "life", term=1, abandoned_round=0, votes_number=1) for number in range(20)]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("FERRY_"):
            monkeypatch.delenv(variable)


@pytest.fixture
async def client() -> AsyncIterator[WitnessClient]:
    client = WitnessClient()
    yield client
    await client.close()


@asynccontextmanager
async def serving(directory: Path, *options: str) -> AsyncIterator[str]:
    """A witness in this process; its address."""
    address_file = directory.with_name(f"{directory.name}.address")
    settings = load_settings(("--dir", str(directory), "--address-file", str(address_file), *options))
    witness = asyncio.create_task(serve(settings))
    try:
        yield await announced(address_file, witness)
    finally:
        witness.cancel()
        with suppress(asyncio.CancelledError):
            await witness
        address_file.unlink(missing_ok=True)


async def announced(address_file: Path, witness: "asyncio.Task[None] | None" = None) -> str:
    """Where a witness listens, once it does."""
    async with asyncio.timeout(PATIENCE_S):
        while not (address := text_of(address_file)):
            if witness is not None and witness.done():
                witness.result()
            await asyncio.sleep(0.01)
    return address


def text_of(path: Path) -> str:
    return path.read_text(encoding="ascii") if path.exists() else ""


class WitnessProcess:
    """``python -m ferry_witness`` on a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "witness"
        self._address_file = directory / "address"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> str:
        """Start it, and return its address."""
        self._address_file.unlink(missing_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "ferry_witness"),
            *("--dir", str(self.directory), "--address-file", str(self._address_file)),
            stderr=asyncio.subprocess.PIPE,
        )
        return await announced(self._address_file)

    async def end(self, number: signal.Signals) -> tuple[int | None, str]:
        """Signal it and wait until it has ended: its exit code and what it said."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        async with asyncio.timeout(PATIENCE_S):
            _, said = await self._process.communicate()
        return self._process.returncode, said.decode()


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[WitnessProcess]:
    witness = WitnessProcess(tmp_path)
    yield witness
    await witness.end(signal.SIGKILL)


async def test_a_record_is_read_and_replaced(tmp_path: Path, client: WitnessClient) -> None:
    async with serving(tmp_path / "w") as address:
        assert await client.read(address, "east") == NO_RECORD
        first = NO_RECORD.promising(CLAIMS[0])
        assert await client.replace(address, "east", first) == (True, first)
        assert await client.read(address, "east") == first
        assert await client.read(address, "west") == NO_RECORD


async def test_a_stale_replacement_gets_what_is_in_its_place(tmp_path: Path, client: WitnessClient) -> None:
    async with serving(tmp_path / "w") as address:
        first, other = NO_RECORD.promising(CLAIMS[0]), NO_RECORD.promising(CLAIMS[1])
        await client.replace(address, "east", first)
        assert await client.replace(address, "east", other) == (False, first)
        assert await client.replace(address, "east", replace(other, revision=3)) == (False, first)
        assert await client.replace(address, "east", first) == (False, first), "even by itself"


async def test_of_concurrent_replacements_exactly_one_wins(tmp_path: Path) -> None:
    clients = [WitnessClient() for _ in CLAIMS]
    async with serving(tmp_path / "w") as address:
        for revision in range(5):
            present = await clients[0].read(address, "east")
            assert present.revision == revision
            answers = await asyncio.gather(
                *(
                    client.replace(address, "east", present.promising(claim))
                    for client, claim in zip(clients, CLAIMS, strict=True)
                )
            )
            assert [replaced for replaced, _ in answers].count(True) == 1
            [winner] = {record for _, record in answers}
            assert answers[[replaced for replaced, _ in answers].index(True)][1] == winner
    for each in clients:
        await each.close()


async def test_a_write_that_fails_is_told_to_its_caller_alone(
    tmp_path: Path, client: WitnessClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = NO_RECORD.promising(CLAIMS[0])
    async with serving(tmp_path / "w") as address:

        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full)
            with pytest.raises(FerryError, match="No space left") as raised:
                await client.replace(address, "east", first)
        assert raised.value.refusal.code is ErrorCode.FAILED
        assert await client.read(address, "east") == NO_RECORD
        assert await client.replace(address, "east", first) == (True, first)


@pytest.mark.parametrize("cluster", ["", "../east", "x" * 65])
async def test_a_malformed_name_is_refused(tmp_path: Path, client: WitnessClient, cluster: str) -> None:
    async with serving(tmp_path / "w") as address:
        for call in (
            client.read(address, cluster),
            client.replace(address, cluster, NO_RECORD.promising(CLAIMS[0])),
        ):
            with pytest.raises(FerryError, match="cluster name") as raised:
                await call
            assert raised.value.refusal.code is ErrorCode.MALFORMED


@pytest.mark.parametrize(
    "record",
    [
        None,
        quorum_pb2.WitnessRecord(revision=1),
        quorum_pb2.WitnessRecord(
            revision=1,
            votes=quorum_pb2.VotingRecord(),
            promises=[quorum_pb2.WitnessPromise(node="../u1", incarnation="life")],
        ),
    ],
    ids=["absent", "no votes", "bad name"],
)
async def test_a_malformed_record_is_refused(
    tmp_path: Path, client: WitnessClient, record: quorum_pb2.WitnessRecord | None
) -> None:
    async with serving(tmp_path / "w") as address, open_channel(address) as channel:
        stub = quorum_pb2_grpc.WitnessStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Replace(quorum_pb2.WitnessReplacement(cluster="east", record=record), timeout=5)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await client.read(address, "east") == NO_RECORD


async def test_it_offers_its_own_service_alone(tmp_path: Path) -> None:
    async with serving(tmp_path / "w") as address, open_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        answer = await check(health_pb2.HealthCheckRequest(service="ferry.v1.Witness"), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await check(health_pb2.HealthCheckRequest(service="ferry.v1.Voting"), timeout=5)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_keeps_it_from_starting_is_named(tmp_path: Path) -> None:
    damaged, taken, file = (tmp_path / name for name in ("damaged", "taken", "file"))
    damaged.mkdir()
    (damaged / "east.json").write_text("{")
    file.touch()
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        port = occupant.getsockname()[1]
        async with serving(taken):
            cases = {
                ("--dir", str(taken)): (ErrorCode.REFUSED, str(taken)),
                ("--dir", str(damaged)): (ErrorCode.FAILED, str(damaged / "east.json")),
                ("--dir", str(file)): (ErrorCode.FAILED, str(file)),
                ("--dir", "/proc/witness"): (ErrorCode.FAILED, "/proc/witness"),
                ("--dir", str(tmp_path / "a"), "--listen", f"127.0.0.1:{port}"): (
                    ErrorCode.FAILED,
                    f"port {port} on 127.0.0.1 is in use",
                ),
                ("--dir", str(tmp_path / "b"), "--address-file", "/no/such/file"): (
                    ErrorCode.FAILED,
                    "/no/such/file",
                ),
            }
            for options, (code, words) in cases.items():
                with pytest.raises(FerryError) as raised:
                    await serve(load_settings(options))
                assert (raised.value.refusal.code, words in raised.value.refusal.message) == (code, True)
                assert raised.value.refusal.hint


async def test_killed_at_any_time_it_keeps_what_it_has_answered(
    process: WitnessProcess, client: WitnessClient
) -> None:
    address = await process.start()
    answered, sent, enough = NO_RECORD, NO_RECORD, asyncio.Event()

    async def go_on() -> None:
        nonlocal answered, sent
        while True:
            sent = answered.promising(CLAIMS[answered.revision % len(CLAIMS)])
            replaced, answered = await client.replace(address, "east", sent)
            assert replaced
            if answered.revision == 25:
                enough.set()

    working = asyncio.create_task(go_on())
    async with asyncio.timeout(PATIENCE_S):
        await enough.wait()
    await process.end(signal.SIGKILL)
    with pytest.raises(FerryError):
        await working
    kept: WitnessRecord = await client.read(await process.start(), "east")
    assert kept in (answered, sent)

    code, said = await process.end(signal.SIGTERM)
    assert (code, "Traceback" in said) == (0, False)


async def test_a_bad_start_is_one_message_and_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "east.json").write_text("{")
    ended = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "ferry_witness", "--dir", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_S):
        _, said = await ended.communicate()
    assert (ended.returncode, b"Traceback" in said) == (1, False)
    assert said.startswith(f"ferry witness run: the record {tmp_path / 'east.json'} cannot be read".encode())


@pytest.mark.parametrize(
    "options", [(), ("--dir", "d", "--listen", "7000"), ("--dir", "d", "--broker", "h:1"), ("--port", "1")]
)
def test_bad_options_are_exit_2(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(options)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("ferry witness run: ")


def test_the_defaults() -> None:
    settings = load_settings(("--dir", "d"))
    assert (settings.dir, settings.listen, settings.address_file) == (Path("d"), "127.0.0.1:0", None)
