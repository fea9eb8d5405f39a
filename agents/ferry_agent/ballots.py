"""This host's vote, outside the core: its durable record, its questions to other voters, and their questions.

The record is the file ``votes.json`` in the data directory. It is written by a thread, one record after the
other, because a slow disk must not hold up the lease; what is not kept is not answered, and asked for again.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

import grpc.aio
import structlog

from ferry.v1 import quorum_pb2, quorum_pb2_grpc
from ferry_host import commands, inputs
from ferry_types.errors import ErrorCode, FerryError, Refusal, failed
from ferry_types.quorum import PromiseRequest, VotingRecord
from ferry_wire.channels import Channels
from ferry_wire.conversion import from_json, from_proto, to_json, to_proto
from ferry_wire.files import write_durably
from ferry_wire.status import answered
from ferry_wire.witness import CALL_S, WitnessClient

VOTES_NAME: Final = "votes.json"

VOTERS_MAX: Final = 64
"""Voters that a connection is kept to: as many as a cluster of the latest era has nodes."""

CUT_OFF: Final = "no NIC of this host that may carry the cluster's traffic is up"

_log = structlog.get_logger("votes")


def read_votes(directory: Path) -> VotingRecord | None:
    """What a former life of this host has kept; None if there was none.

    Raises FerryError if that cannot be read: a voter that has forgotten may not vote.
    """
    path = directory / VOTES_NAME
    try:
        text = path.read_text(encoding="utf-8")
        return from_json(text, quorum_pb2.VotingRecord, VotingRecord)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise FerryError(
            failed(
                f"{path} cannot be read: {error}",
                "restore it; or evict this node, and start it with a data directory of its own (--dir)",
            )
        ) from error


class Ballots:
    """Carries out what the core asks of votes. Use it from one event loop."""

    def __init__(self, directory: Path, submit: Callable[[inputs.Event], None]) -> None:
        self._path = directory / VOTES_NAME
        self._submit = submit
        self._to_keep: asyncio.Queue[VotingRecord] = asyncio.Queue()
        self._voters = Channels(VOTERS_MAX)
        self._witness = WitnessClient()
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._numbers = itertools.count(1)
        self.is_cut_off: Callable[[], bool] = lambda: False
        """Whether no traffic of the cluster passes this host's NICs: then nobody is asked, nor answered."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._keep_all())

    # --- commands of the core ---------------------------------------------------------------------

    def keep(self, command: commands.KeepVotes) -> None:
        """Make a record durable, behind those before it."""
        self._to_keep.put_nowait(command.record)

    def ask(self, command: commands.AskPromise) -> None:
        """Ask a voter."""
        if not self.is_cut_off():
            self._spawn(self._ask(command))

    def answer(self, command: commands.AnswerPromise) -> None:
        """Answer a peer that has asked."""
        self._answers.pop(command.reply).set_result(command.objection)

    def read_witness(self, command: commands.ReadWitness, cluster: str) -> None:
        """Ask the witness for its record."""
        if not self.is_cut_off():
            self._spawn(self._read_witness(command, cluster))

    def replace_witness(self, command: commands.ReplaceWitness, cluster: str) -> None:
        """Replace the witness's record."""
        if not self.is_cut_off():
            self._spawn(self._replace_witness(command, cluster))

    # --- questions of peers -----------------------------------------------------------------------

    async def promise(self, request: PromiseRequest) -> str:
        """What is against a promise to a peer; empty: it is given. Raises FerryError if it is cut off."""
        if self.is_cut_off():
            raise FerryError(Refusal(ErrorCode.UNREACHABLE, CUT_OFF, "bring one up: ferry nic up"))
        reply = next(self._numbers)
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[reply] = answer
        self._submit(inputs.PromiseAsked(reply, request))
        return await answer

    async def close(self) -> None:
        """End what is under way; nothing more is answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._voters.close()
        await self._witness.close()

    # --- work -------------------------------------------------------------------------------------

    async def _keep_all(self) -> None:
        while True:
            record = await self._to_keep.get()
            try:
                await asyncio.to_thread(write_durably, self._path, to_json(record))
            except OSError as error:
                _log.error("a vote is not kept, and so not given", path=str(self._path), error=str(error))
            else:
                self._submit(inputs.VotesKept(record))

    async def _ask(self, command: commands.AskPromise) -> None:
        voter = command.voter
        stub = quorum_pb2_grpc.VotingStub(await self._voters.get(voter.address))
        request = to_proto(command.request, quorum_pb2.PromiseRequest)
        try:
            answer = await answered(stub.Promise(request, timeout=CALL_S), voter.address)
        except FerryError as error:
            _log.info("a voter does not answer", voter=voter.name, reason=str(error))
            return
        if answer.objection:
            _log.info("a voter does not promise", voter=voter.name, reason=answer.objection)
        self._submit(inputs.PromiseAnswered(command.poll, voter.uuid, answer.objection))

    async def _read_witness(self, command: commands.ReadWitness, cluster: str) -> None:
        try:
            record = await self._witness.read(command.address, cluster)
        except FerryError as error:
            _log.info("the witness does not answer", reason=str(error))
            return
        self._submit(inputs.WitnessRead(command.poll, record))

    async def _replace_witness(self, command: commands.ReplaceWitness, cluster: str) -> None:
        try:
            replaced, record = await self._witness.replace(command.address, cluster, command.record)
        except FerryError as error:
            _log.info("the witness does not answer", reason=str(error))
            return
        self._submit(inputs.WitnessReplaced(command.poll, replaced, record))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a vote's work failed", exc_info=task.exception())


class VotingServicer(quorum_pb2_grpc.VotingServicer):
    """Implements ``ferry.v1.Voting``."""

    def __init__(self, ballots: Ballots) -> None:
        self._ballots = ballots

    async def Promise(
        self, request: quorum_pb2.PromiseRequest, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> quorum_pb2.PromiseAnswer:
        """Ask this host's core."""
        objection = await self._ballots.promise(from_proto(request, PromiseRequest))
        return quorum_pb2.PromiseAnswer(objection=objection)
