"""What the event log says about a lost host, with the times counted from its death."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc

from ferry.v1 import admin_pb2, events_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli.admin import watch
from ferry_types.events import NODE_LOST
from ferry_types.vms import VmState


@dataclass(frozen=True, slots=True)
class FailoverStory:
    """A failover as it was seen. Times in seconds since the host was killed."""

    events: tuple[tuple[float, str], ...]
    lost_after_s: float | None
    runs_after_s: float
    vm: admin_pb2.Vm


async def watch_failover(
    admin: AdminStub, vm: str, former: admin_pb2.Vm, killed_at_us: int, after_id: int
) -> FailoverStory:
    """Follow the event log until the VM runs under a later epoch than ``former``'s, on another host."""
    told: list[tuple[float, str]] = []
    lost_after_s = None
    async for event in _events(admin, after_id):
        after_s = (event.time_us - killed_at_us) / 1e6
        told.append((after_s, event.message))
        if event.event_id == NODE_LOST.event_id and event.node == former.node:
            lost_after_s = after_s
        if event.vm == vm:
            answer = await admin.ListVms(admin_pb2.ListVmsRequest(name=vm), timeout=5)
            now = answer.vms[0]
            if now.state == VmState.RUNNING and now.epoch > former.epoch and now.node != former.node:
                return FailoverStory(tuple(told), lost_after_s, after_s, now)
    raise asyncio.InvalidStateError("the event log ended")


async def newest_event_id(admin: AdminStub) -> int:
    """Where the event log ends now."""
    answer = await admin.ListEvents(admin_pb2.EventQuery(limit=1), timeout=5)
    return max((event.id for event in answer.events), default=0)


async def _events(admin: AdminStub, after_id: int) -> AsyncIterator[events_pb2.Event]:
    query = admin_pb2.EventQuery(after_id=after_id)

    def opened() -> "grpc.aio.UnaryStreamCall[admin_pb2.EventQuery, events_pb2.Event]":
        return admin.WatchEvents(query)

    async for event in watch(opened):
        query.after_id = event.id
        yield event
