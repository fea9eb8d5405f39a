"""The VM images of this host: memory, guest and vCPU, without any rule about when they may run.

Memory and guest are real, smaller than their specification says by the host's scale; what an image tells of
them is in emulated units.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ferry_agent.gate import LeaseGate
from ferry_agent.guest.audit import AuditReport
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.registers import Registers
from ferry_agent.guest.trace import RunTrace
from ferry_agent.guest.vcpu import EchoReply, Vcpu
from ferry_agent.guest.workload import Pace
from ferry_agent.redirects import Redirect, Redirects
from ferry_host.scale import UNSCALED, Scale
from ferry_types.errors import FerryError
from ferry_types.limits import PAGE_SIZE
from ferry_types.vms import VmSpec

_T = TypeVar("_T")


class Image:
    """One VM image, whose vCPU is paused until it is told to run."""

    def __init__(self, spec: VmSpec, guest: Guest, vcpu: Vcpu, scale: Scale = UNSCALED) -> None:
        """``guest`` has the real memory and workload of ``spec``."""
        self.spec = spec
        self.vcpu = vcpu
        self.scale = scale
        self._guest = guest
        self._arrived: Registers | None = None
        vcpu.start()

    @property
    def memory(self) -> GuestMemory:
        """The guest's memory, as large as it really is."""
        return self._guest.memory

    @property
    def working_set_pages(self) -> int:
        """Pages among which the guest really chooses."""
        return self._guest.spec.working_set_bytes // PAGE_SIZE

    @property
    def writes_per_s(self) -> float | None:
        """Pages that the guest chooses to write per second, lately; None if that cannot be told."""
        steps_per_s = self.vcpu.steps_per_s
        if steps_per_s is None:
            return None
        return self.scale.emulated_rate(steps_per_s * self._guest.pace.writes_per_step)

    @property
    def write_bytes_per_s(self) -> float:
        """Bytes of its own pages that the guest wrote per second lately; 0 while it is paused."""
        return self.scale.emulated_rate(self.vcpu.write_bytes_per_s)

    @property
    def pages_written(self) -> int:
        """Pages that the guest has written here."""
        return self.scale.emulated(self.vcpu.pages_written)

    @property
    def dirty_pages(self) -> int:
        """Pages that are dirty now."""
        return self.scale.emulated(self.memory.dirty.count())

    def arrive(self, device_state: bytes) -> None:
        """All memory of an expected image is here; ``take_over`` is due before it runs.

        Raises FerryError if the state is not one of this VM.
        """
        guest = self._guest
        self._arrived = Registers.load(device_state, guest.name, guest.memory.memory_bytes, guest.spec)

    def take_over(self) -> None:
        """Have an image that has arrived go on from its device state."""
        arrived, self._arrived = self._arrived, None
        if arrived is not None:
            self._guest.go_on_from(arrived)

    def run(self, epoch: int) -> None:
        """Let the vCPU run."""
        self.vcpu.resume(epoch)

    def hold(self) -> None:
        """Pause the vCPU between two quanta."""
        self.vcpu.request_pause(lambda _last_ran_at_s: None)

    async def pause(self) -> float:
        """Pause the vCPU; the monotonic time at which the guest last ran, in seconds."""
        loop = asyncio.get_running_loop()
        paused: asyncio.Future[float] = loop.create_future()
        asking = threading.get_ident()

        def done(last_ran_at_s: float) -> None:
            if threading.get_ident() == asking:
                paused.set_result(last_ran_at_s)  # at once: the loop's next turn is black-out already
            else:
                _settle(loop, paused, last_ran_at_s)

        self.vcpu.request_pause(done)
        return await paused

    async def audit(self) -> AuditReport | None:
        """Let the guest check its books; None if it was stopped meanwhile.

        Pages are counted in emulated units; errors name real pages by their numbers.
        """
        loop = asyncio.get_running_loop()
        audited: asyncio.Future[AuditReport | None] = loop.create_future()
        self.vcpu.request_audit(lambda report: _settle(loop, audited, report))
        report = await audited
        if report is None:
            return None
        return replace(report, pages_checked=self.scale.emulated(report.pages_checked))

    async def destroy(self) -> None:
        """Stop the vCPU and free the memory, while the host's other guests run on."""
        await asyncio.to_thread(self._end)
        self.memory.close()

    def _end(self) -> None:
        self.vcpu.stop()
        self.memory.discard()


def _settle(loop: asyncio.AbstractEventLoop, future: "asyncio.Future[_T]", value: _T) -> None:
    """Give a waiting task its answer, from a vCPU's thread."""

    def unless_cancelled() -> None:
        if not future.done():
            future.set_result(value)

    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(unless_cancelled)


class Rack:
    """All images of the host, by VM name."""

    def __init__(
        self,
        gate: LeaseGate,
        trace: RunTrace | None,
        on_first_quantum: Callable[[str, int, float], None],
        on_crash: Callable[[str, int, Exception], None],
        scale: Scale = UNSCALED,
    ) -> None:
        """Both are called from a vCPU's thread.

        ``on_first_quantum(vm, epoch, monotonic seconds)``; ``on_crash(vm, epoch, error)``: the guest raised.
        """
        self._gate = gate
        self._trace = trace
        self._on_first_quantum = on_first_quantum
        self._on_crash = on_crash
        self.scale = scale
        self._images: dict[str, Image] = {}
        self._redirects = Redirects()

    def get(self, vm: str) -> Image | None:
        """The image of a VM, if it is here."""
        return self._images.get(vm)

    def all(self) -> list[Image]:
        """Every image, by name."""
        return [self._images[name] for name in sorted(self._images)]

    async def boot(self, spec: VmSpec, epoch: int) -> Image:
        """Make and fill memory; the image is not on the rack yet.

        Raises FerryError if there is no memory, or nothing to fill it with, or if it does not fit the scale.
        """
        memory = self.map_memory(spec)
        workload = self.scale.real_workload(spec)
        filling = asyncio.get_running_loop().run_in_executor(
            None, Guest.boot, spec.name, memory, workload, spec.fill, epoch, self._pace(spec)
        )
        try:
            guest = await asyncio.shield(filling)
        except asyncio.CancelledError:
            await asyncio.wait({filling})
            memory.close()
            raise
        except FerryError:
            memory.close()
            raise
        return self._image(spec, guest)

    def map_memory(self, spec: VmSpec) -> GuestMemory:
        """Memory for a VM, untouched. Raises FerryError if there is none, or if it does not fit the scale."""
        return GuestMemory(self.scale.real_memory_bytes(spec))

    def expect(self, spec: VmSpec, memory: GuestMemory) -> Image:
        """An image around memory that will arrive, which ``arrive`` completes; not on the rack yet."""
        workload = self.scale.real_workload(spec)
        nobody = Registers.at_boot(spec.name, memory.memory_bytes, workload, boot_epoch=0)
        return self._image(spec, Guest(spec.name, memory, workload, nobody, self._pace(spec)))

    def add(self, image: Image) -> None:
        """Put an image on the rack."""
        self._images[image.spec.name] = image
        self._redirects.forget(image.spec.name)

    def run(self, vm: str, epoch: int) -> None:
        """Start or resume a VM's vCPU under an epoch."""
        self._images[vm].run(epoch)

    def hold(self, vm: str) -> None:
        """Pause a VM's vCPU; it may still be booting, or be gone."""
        image = self._images.get(vm)
        if image is not None:
            image.hold()

    def poke(self) -> None:
        """The gate may have opened: vCPUs that wait look again."""
        for image in self._images.values():
            image.vcpu.poke()

    def echo(self, vm: str, sequence: int, reply: Callable[[EchoReply], None]) -> None:
        """Ask a guest for an answer; one that is not here, or paused, gives none."""
        image = self._images.get(vm)
        if image is not None:
            image.vcpu.submit_echo(sequence, reply)

    def redirect(self, vm: str, where: Redirect) -> None:
        """Say for some time where a VM answers that has left the rack."""
        self._redirects.add(vm, where, time.monotonic())

    def moved_to(self, vm: str) -> Redirect | None:
        """Where a VM answers that has left this host lately; None of all others."""
        return self._redirects.find(vm, time.monotonic())

    def take(self, vm: str) -> Image | None:
        """Take an image off the rack."""
        return self._images.pop(vm, None)

    async def close(self) -> None:
        """Destroy everything."""
        await asyncio.gather(*(image.destroy() for image in self._images.values()))
        self._images.clear()

    def _pace(self, spec: VmSpec) -> Pace:
        return Pace.of(spec.workload).divided(self.scale.factor)

    def _image(self, spec: VmSpec, guest: Guest) -> Image:
        name = spec.name
        vcpu = Vcpu(
            guest,
            self._gate,
            on_first_quantum=lambda epoch, at_s: self._on_first_quantum(name, epoch, at_s),
            on_crash=lambda epoch, error: self._on_crash(name, epoch, error),
            trace=self._trace,
        )
        return Image(spec, guest, vcpu, self.scale)
