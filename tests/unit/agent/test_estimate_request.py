"""What a host answers that is asked for an estimate."""

from collections.abc import Iterator
from typing import Any, cast

import grpc.aio
import pytest

from ferry.v1 import common_pb2, host_pb2
from ferry_agent import estimates
from ferry_agent.failpoints import Failpoints
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.vcpu import Vcpu
from ferry_agent.host_service import HostServicer
from ferry_agent.network.listeners import NicListeners
from ferry_agent.network.nics import Nics
from ferry_agent.rack import Image
from ferry_types.errors import ErrorCode, FerryError
from ferry_types.migrations import MigrationOptions, WireFigures
from ferry_types.vms import VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve
from ferry_wire.conversion import to_proto

MIB = 2**20
WIRE = to_proto(WireFigures(1e6, 0.25), common_pb2.WireFigures)
OPTIONS = to_proto(MigrationOptions(), common_pb2.MigrationOptions)
CONTEXT = cast("grpc.aio.ServicerContext[Any, Any]", None)


class OpenGate:
    def is_open(self) -> bool:
        return True


@pytest.fixture
def image() -> Iterator[Image]:
    """A guest of 4 MiB that is paused."""
    memory = GuestMemory(4 * MIB)
    workload = resolve("idle", 4 * MIB)
    spec = VmSpec("a", 4 * MIB, workload, FillSpec(Fill.RANDOM))
    guest = Guest.boot("a", memory, workload, spec.fill, 1)
    vcpu = Vcpu(guest, OpenGate(), on_first_quantum=lambda *_: None, on_crash=lambda *_: None)
    yield Image(spec, guest, vcpu)
    vcpu.stop()
    memory.close()


@pytest.fixture
def servicer(image: Image) -> HostServicer:
    class OneImage:
        def get(self, vm: str) -> Image | None:
            return image if vm == "a" else None

    nics = Nics(())
    listeners = NicListeners(nics, "127.0.0.1:7000", (), lambda _server: None)
    return HostServicer(cast("Any", OneImage()), Failpoints(enabled=False), nics, listeners)


async def ask(servicer: HostServicer, **changes: Any) -> common_pb2.MoveEstimate:
    request: dict[str, Any] = {"vm": "a", "options": OPTIONS, "wire": WIRE, **changes}
    return await servicer.EstimateMove(host_pb2.EstimateRequest(**request), CONTEXT)


async def test_a_guest_that_runs_is_estimated(
    servicer: HostServicer, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "writes_per_s", 0.0)
    made = await ask(servicer)
    assert made.passes == 1
    sent = estimates.pages_to_send(image.memory) * 4096
    assert (made.bytes_sent, made.brownout_s, made.blackout_s) == (sent, sent / 1e6, 0.25)


async def test_a_guest_that_is_paused_cannot_be_measured(servicer: HostServicer) -> None:
    with pytest.raises(FerryError, match="a is paused, or has run for too short a time") as caught:
        await ask(servicer)
    assert caught.value.refusal.rule == "guest measured"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"vm": "b"}, ErrorCode.NOT_FOUND),
        ({"options": None}, ErrorCode.MALFORMED),
        ({"wire": None}, ErrorCode.MALFORMED),
        ({"wire": common_pb2.WireFigures(rate_bytes_per_s=-1)}, ErrorCode.MALFORMED),
        ({"wire": common_pb2.WireFigures(rate_bytes_per_s=1, blackout_floor_s=-1)}, ErrorCode.MALFORMED),
    ],
)
async def test_requests_that_make_no_sense_are_refused(
    servicer: HostServicer, changes: dict[str, Any], code: ErrorCode
) -> None:
    with pytest.raises(FerryError) as caught:
        await ask(servicer, **changes)
    assert caught.value.refusal.code is code
