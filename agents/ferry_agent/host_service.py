"""The agent's gRPC service for people and tests: audits, round trips, NICs, failpoints."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from ferry.v1 import common_pb2, host_pb2, host_pb2_grpc
from ferry_agent.estimates import estimate_move
from ferry_agent.failpoints import Failpoints
from ferry_agent.network.listeners import NicListeners
from ferry_agent.network.nics import Nics
from ferry_agent.rack import Image, Rack
from ferry_types.errors import FerryError, failed, not_found, refused
from ferry_types.migrations import MigrationOptions, WireFigures
from ferry_types.networks import NicState
from ferry_wire.conversion import from_proto, to_proto

AUDIT_DEADLINE_S = 60.0

ESTIMATES_MAX = 2
"""Estimates made at a time; others wait for their turn."""


class HostServicer(host_pb2_grpc.HostServicer):
    """Implements ``ferry.v1.Host``."""

    def __init__(self, rack: Rack, failpoints: Failpoints, nics: Nics, listeners: NicListeners) -> None:
        self._rack = rack
        self._failpoints = failpoints
        self._nics = nics
        self._listeners = listeners
        self._estimating = asyncio.Semaphore(ESTIMATES_MAX)

    async def Audit(
        self, request: host_pb2.AuditRequest, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> host_pb2.AuditReport:
        """Let the guest check its own books."""
        image = self._image(request.vm)
        try:
            report = await asyncio.wait_for(image.audit(), AUDIT_DEADLINE_S)
        except TimeoutError:
            raise FerryError(
                failed(f"{request.vm} did not finish its audit in {AUDIT_DEADLINE_S:.0f} s", "is it paused?")
            ) from None
        if report is None:
            raise FerryError(failed(f"{request.vm} left this host during its audit", "ask again"))
        return host_pb2.AuditReport(ok=report.ok, pages_checked=report.pages_checked, errors=report.errors)

    async def EstimateMove(
        self, request: host_pb2.EstimateRequest, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> common_pb2.MoveEstimate:
        """What a move of a VM would take. Refused while its guest is paused or has hardly begun to run."""
        options = from_proto(request.options, MigrationOptions)
        wire = from_proto(request.wire, WireFigures)
        image = self._image(request.vm)
        async with self._estimating:
            made = await asyncio.to_thread(estimate_move, image, options, wire)
        if made is None:
            raise FerryError(
                refused(
                    "guest measured",
                    f"{request.vm} is paused, or has run for too short a time to be measured",
                    "ask again in a few seconds",
                )
            )
        return to_proto(made, common_pb2.MoveEstimate)

    async def RoundTrip(
        self,
        request_iterator: AsyncIterator[host_pb2.Probe],
        _context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> AsyncIterator[host_pb2.Probe]:
        """Answer every message with itself."""
        async for probe in request_iterator:
            yield probe

    async def TurnNic(
        self, request: host_pb2.TurnNicRequest, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> host_pb2.HostNic:
        """Take a NIC down or bring it up."""
        await self._listeners.turn(request.nic, up=request.up)
        nic = self._nics.get(request.nic)
        up = self._nics.is_up(nic.name)
        return host_pb2.HostNic(
            nic=to_proto(nic, common_pb2.Nic),
            state=NicState.UP if up else NicState.DOWN,
            reason=self._nics.reason(nic.name),
            cut_off=self._nics.is_cut_off,
        )

    async def SetFailpoint(
        self, request: host_pb2.Failpoint, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> host_pb2.FailpointList:
        """Switch a failpoint. Refused unless the agent was started with --failpoints."""
        self._require_failpoints()
        self._failpoints.set(request.name, request.action)
        return self._list()

    async def ListFailpoints(
        self, _request: host_pb2.FailpointQuery, _context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> host_pb2.FailpointList:
        """All failpoints and how often each was reached."""
        self._require_failpoints()
        return self._list()

    def _image(self, vm: str) -> Image:
        image = self._rack.get(vm)
        if image is None:
            raise FerryError(not_found(f"VM {vm} is not on this host", "ask again: it may have moved"))
        return image

    def _require_failpoints(self) -> None:
        if not self._failpoints.enabled:
            raise FerryError(
                refused("failpoints", "this agent has no failpoints", "start it with --failpoints")
            )

    def _list(self) -> host_pb2.FailpointList:
        return host_pb2.FailpointList(
            failpoints=[
                host_pb2.Failpoint(
                    name=point.name, action=point.action, reached=point.reached, holding=point.holding
                )
                for point in self._failpoints.list()
            ]
        )
