"""A guest on a vCPU of its own that moves over a link of a known rate."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.unit.migration.ends import EPOCH, MOVE, TOKEN, VM, Ends, Source, two_ends

from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.vcpu import Vcpu
from ferry_agent.migration.ports import UnshapedWire
from ferry_agent.migration.source import OutgoingMove
from ferry_agent.rack import Image
from ferry_types.messages import BeginOutgoing
from ferry_types.migrations import MigrationFigures, MigrationOptions
from ferry_types.vms import VmSpec
from ferry_types.workloads import AccessPattern, Fill, FillSpec, resolve

MIB = 2**20
MEMORY_BYTES = 8 * MIB
WORKING_SET_BYTES = 4 * MIB
WIRE_BYTES_PER_S = 32 * MIB
ALLOWED_S = 0.02
BURST_S = 0.02
"""So much of what it could have taken it makes up for."""
DEADLINE_S = 20.0


class PacedWire(UnshapedWire):
    """A wire that takes so many bytes a second."""

    rate_bytes_per_s: float = WIRE_BYTES_PER_S
    due_at_s = 0.0

    async def pass_bytes(self, size_bytes: int) -> None:
        now_s = time.monotonic()
        self.due_at_s = max(self.due_at_s, now_s - BURST_S) + size_bytes / self.rate_bytes_per_s
        await asyncio.sleep(self.due_at_s - now_s)


class OpenGate:
    def is_open(self) -> bool:
        return True


class GuestHost(Source):
    """A source whose guest runs on a vCPU."""

    def __init__(
        self,
        memory: GuestMemory,
        write_rate_bytes_per_s: float,
        working_set_bytes: int,
        access: AccessPattern,
    ) -> None:
        super().__init__()
        workload = resolve(
            "thrash",
            memory.memory_bytes,
            write_rate_bytes_per_s=round(write_rate_bytes_per_s),
            read_rate_bytes_per_s=0,
            working_set_bytes=working_set_bytes,
            access=access,
        )
        spec = VmSpec(VM, memory.memory_bytes, workload, FillSpec(Fill.RANDOM))
        self.guest = Guest.boot(VM, memory, workload, spec.fill, EPOCH)
        self.vcpu = Vcpu(
            self.guest,
            OpenGate(),
            on_first_quantum=lambda _epoch, _at_s: None,
            on_crash=lambda _epoch, error: pytest.fail(f"the guest crashed: {error}"),
        )
        self.image = Image(spec, self.guest, self.vcpu)
        self.image.run(EPOCH)

    def throttle(self, percent: int) -> None:
        super().throttle(percent)
        self.vcpu.throttle(percent)

    async def pause(self) -> float:
        self.paused = True
        return await self.image.pause()

    def device_state(self) -> bytes:
        return self.vcpu.device_state()

    async def steps_per_s(self) -> float:
        """How fast the guest is now."""
        began_at_s, steps = time.monotonic(), self.vcpu.steps
        await asyncio.sleep(0.25)
        return (self.vcpu.steps - steps) / (time.monotonic() - began_at_s)


@asynccontextmanager
async def busy_guest(
    times_the_wire: float = 2.0,
    access: AccessPattern = AccessPattern.UNIFORM,
    memory_bytes: int = MEMORY_BYTES,
    working_set_bytes: int = WORKING_SET_BYTES,
) -> AsyncIterator[tuple[Ends, GuestHost]]:
    """Two ends, and a guest at the source that writes so many times as fast as the wire carries."""
    async with two_ends(GuestMemory(memory_bytes)) as ends:
        write_rate_bytes_per_s = times_the_wire * PacedWire.rate_bytes_per_s
        host = GuestHost(ends.memory, write_rate_bytes_per_s, working_set_bytes, access)
        try:
            yield ends, host
        finally:
            await asyncio.to_thread(host.vcpu.stop)


def choose(**options: int | bool) -> MigrationOptions:
    """Options that allow the black-out of these tests."""
    chosen = MigrationOptions(blackout_allowed_s=ALLOWED_S, **options)  # type: ignore[arg-type]
    chosen.validate()
    return chosen


async def move(ends: Ends, host: GuestHost, **options: int | bool) -> MigrationFigures:
    """What a move measured until its last copy was sent. Raises MoveFailed."""
    order = BeginOutgoing(MOVE, TOKEN, VM, EPOCH, "node2", ends.address, choose(**options))
    wire = PacedWire()
    attempt = OutgoingMove(
        order,
        ends.memory,
        host,
        least_recently_used_first=True,
        channels=ends.channels,
        wire_of=lambda _nic_name, _mtu: wire,
    )
    awaiting = await asyncio.wait_for(attempt.run(), DEADLINE_S)
    ends.awaiting.append(awaiting)
    return awaiting.figures(None)


def pause_s(figures: MigrationFigures) -> float:
    """What the last copy took on the wire."""
    assert figures.final is not None
    return figures.final.bytes_sent / WIRE_BYTES_PER_S
