"""The one reason why an attempt's streams cannot go on, shared by all who use them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from ferry_agent.migration import protocol
from ferry_types.errors import ErrorCode, FerryError, Refusal
from ferry_types.messages import BeginOutgoing
from ferry_wire.status import refusal_of


class Breakage:
    """Is fulfilled once; the first reason counts. For one event loop."""

    def __init__(self, order: BeginOutgoing) -> None:
        self.reason: asyncio.Future[Refusal] = asyncio.get_running_loop().create_future()
        self._order = order

    def break_off(self, reason: Refusal) -> None:
        """Give the attempt up."""
        if not self.reason.done():
            self.reason.set_result(reason)

    def raise_if_broken(self) -> None:
        """Raise FerryError with the reason, if there is one."""
        if self.reason.done():
            raise FerryError(self.reason.result())

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Give the attempt up, and raise FerryError, if what is inside takes longer than an answer may."""
        try:
            async with asyncio.timeout(protocol.ANSWER_S_MAX):
                yield
        except TimeoutError:
            self.break_off(self.silent(protocol.ANSWER_S_MAX))
            self.raise_if_broken()

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Raise FerryError if what is inside takes longer than an opening may, or gRPC reports a failure."""
        try:
            async with asyncio.timeout(protocol.OPENING_S_MAX):
                yield
        except TimeoutError:
            raise FerryError(self.silent(protocol.OPENING_S_MAX)) from None
        except grpc.aio.AioRpcError as error:
            raise FerryError(refusal_of(error, self._order.target_address)) from error

    def silent(self, duration_s: float) -> Refusal:
        """The reason of a target that says nothing."""
        return Refusal(
            ErrorCode.UNREACHABLE,
            f"{self._order.target} at {self._order.target_address} gave no answer for {duration_s:.0f} s",
            "see whether its agent runs and the network between the hosts works",
        )
