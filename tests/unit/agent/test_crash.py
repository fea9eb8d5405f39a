"""A guest that fails inside a running agent."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ferry_agent.failpoints import Failpoints
from ferry_agent.gate import LeaseGate
from ferry_agent.guest.guest import Guest
from ferry_agent.runtime import HostRuntime
from ferry_host import inputs
from ferry_host.state import HostIdentity
from ferry_types.messages import (
    EpochRaised,
    Grant,
    HostEnvelope,
    HostOrder,
    OrderRefused,
    RaiseEpoch,
    Renewal,
    StartVm,
    VmRunning,
    Welcome,
)
from ferry_types.vms import Capacity, VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve

MIB = 2**20


async def test_the_host_refuses_the_epoch_of_a_guest_that_crashed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime = HostRuntime(
        HostIdentity("h", "uuid", "life", "x:1", "x:2", Capacity(64 * MIB, 2, 2), "0"),
        LeaseGate(),
        None,
        Failpoints(enabled=False),
        tmp_path,
        None,
    )
    said: asyncio.Queue[HostEnvelope] = asyncio.Queue()
    runtime.send = said.put_nowait

    def order(body: Any) -> None:
        runtime.on_order(HostOrder(1, "life", runtime.host.state.session, body))

    async def hear(kind: type) -> Any:
        async with asyncio.timeout(10):
            while not isinstance(body := (await said.get()).body, kind):
                if isinstance(body, Renewal):
                    order(Grant(body.seq))
        return body

    runtime.submit(inputs.Connected())
    order(Welcome("c", 0.25, 2.0, "2012r2"))
    order(StartVm(VmSpec("a", 16 * MIB, resolve("web", 16 * MIB), FillSpec(Fill.ZERO)), 1))
    await hear(RaiseEpoch)
    order(EpochRaised("a", 1, True))
    await hear(VmRunning)

    def fail(_guest: Guest) -> int:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Guest, "step", fail)
    refusal = await hear(OrderRefused)
    assert (refusal.vm, refusal.epoch) == ("a", 1)
    assert "ZeroDivisionError: a defect" in refusal.reason.message
    assert runtime.rack.all() == []
    await runtime.close()
