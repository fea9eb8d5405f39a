"""One measured move between two processes, as a program: ``target``, ``source`` or ``neighbour``.

Each prints lines of JSON. The source's guest really runs and counts its steps; a neighbour is a guest that
takes all it can get of a processor, as a second VM would.
"""

import argparse
import asyncio
import json
import resource
import sys
import time
from dataclasses import asdict
from typing import Any

from ferry.v1 import migration_pb2
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.vcpu import Vcpu
from ferry_agent.migration import compression
from ferry_agent.migration.ports import IncomingSlot
from ferry_agent.migration.processors import ProcessorMeter
from ferry_agent.migration.source import OutgoingMove
from ferry_agent.migration.target import MigrationServicer
from ferry_agent.network.adapters import Adapters
from ferry_agent.network.nics import Nics
from ferry_agent.service import SWITCH_INTERVAL_S
from ferry_types.errors import Refusal
from ferry_types.limits import PASS_LIMIT_DEFAULT
from ferry_types.messages import BeginOutgoing, MigrationProgress, Route
from ferry_types.migrations import MigrationOptions, TransportOption
from ferry_types.networks import Nic
from ferry_types.workloads import Fill, FillSpec, resolve
from ferry_wire.buffers import keep_freed_buffers
from ferry_wire.channels import IdleChannels
from ferry_wire.servers import create_server

MOVE, TOKEN, VM, EPOCH = "move-1", "a-token", "vm1", 1
NIC, NIC_MTU = "nic1", 9000
MIB = 2**20
SETTLED_S = 1.0
"""For so long a guest's speed is measured before it is moved."""


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def everything_idle(_meter: ProcessorMeter) -> float:
    return 100.0


class OpenGate:
    def is_open(self) -> bool:
        return True


def running_guest(
    memory_bytes: int, profile: str, fill: FillSpec, write_rate_bytes_per_s: int | None = None
) -> tuple[GuestMemory, Vcpu]:
    memory = GuestMemory(memory_bytes)
    workload = resolve(profile, memory_bytes, write_rate_bytes_per_s=write_rate_bytes_per_s)
    guest = Guest.boot(VM, memory, workload, fill, EPOCH)

    def crashed(_epoch: int, error: Exception) -> None:
        say(crashed=str(error))

    vcpu = Vcpu(guest, OpenGate(), on_first_quantum=lambda _epoch, _at: None, on_crash=crashed)
    vcpu.start()
    vcpu.resume(EPOCH)
    return memory, vcpu


def steps_per_s(vcpu: Vcpu, duration_s: float) -> float:
    before, began_at_s = vcpu.steps, time.monotonic()
    time.sleep(duration_s)
    return (vcpu.steps - before) / (time.monotonic() - began_at_s)


class Target:
    def __init__(self, memory_bytes: int) -> None:
        self._slot = IncomingSlot(TOKEN, VM, EPOCH, GuestMemory(memory_bytes))

    def incoming(self, migration_id: str) -> IncomingSlot:
        assert migration_id == MOVE
        return self._slot

    async def rouse(self) -> None:
        pass

    def ready(self, _migration_id: str, _device_state: bytes) -> None:
        say(ready=True)

    def failed(self, _migration_id: str, refusal: Refusal) -> None:
        say(failed=refusal.message)

    async def reach(self, name: str) -> None:
        """No failpoints here."""


class Source:
    """Notes how far the guest was when the copying began and when it was paused."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self.began = self.ended = (0, 0.0)

    def report(self, progress: MigrationProgress) -> None:
        """Nobody watches."""

    def opened(self) -> None:
        """Nobody estimates."""

    async def arm(self, _migration_id: str) -> None:
        """There is no coordinator."""

    async def pause(self) -> float:
        self.ended = (self._vcpu.steps, time.monotonic())
        loop = asyncio.get_running_loop()
        paused: asyncio.Future[float] = loop.create_future()

        def done(at_s: float) -> None:
            loop.call_soon_threadsafe(paused.set_result, at_s)

        self._vcpu.request_pause(done)
        return await paused

    def throttle(self, percent: int) -> None:
        """No move asks for it."""

    def device_state(self) -> bytes:
        return self._vcpu.device_state()

    def point_of_no_return(self) -> None:
        """Permitted."""

    async def reach(self, name: str) -> None:
        if name == "source.connecting":
            self.began = (self._vcpu.steps, time.monotonic())

    def give_up(self, _reason: Refusal) -> None:
        """Nobody needs to know."""

    def is_set(self, _failpoint: str) -> bool:
        return False

    def steps_per_s(self) -> float:
        return (self.ended[0] - self.began[0]) / (self.ended[1] - self.began[1])


def adapters(rate_bytes_per_s: int) -> Adapters:
    """One NIC of this rate; 0: not shaped."""
    return Adapters(Nics([Nic(NIC, "live", "127.0.0.1", rate_bytes_per_s, mtu=NIC_MTU, rdma=True)]))


async def serve(memory_bytes: int, rate_bytes_per_s: int) -> None:
    server = create_server("127.0.0.1:0", [migration_pb2.DESCRIPTOR])
    wire_of = adapters(rate_bytes_per_s).receiving
    MigrationServicer(Target(memory_bytes), wire_of=wire_of).add_to(server.grpc)
    await server.start()
    say(address=server.address)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


async def move(told: argparse.Namespace, fill: FillSpec) -> None:
    memory, vcpu = running_guest(told.memory_bytes, told.profile, fill, told.write_rate)
    alone = await asyncio.to_thread(steps_per_s, vcpu, SETTLED_S)
    host = Source(vcpu)
    option = TransportOption(told.option)
    options = MigrationOptions(option=option, verify=told.verify, pass_limit=told.pass_limit)
    routes = (Route(NIC, NIC, told.address, NIC_MTU),)
    order = BeginOutgoing(MOVE, TOKEN, VM, EPOCH, "node2", told.address, options, routes)
    say(moving=True)
    resident_bytes = _largest_resident_bytes()
    began_at_s, processor_began_s = time.monotonic(), time.process_time()
    wire_of = adapters(told.nic_rate).sending
    attempt = OutgoingMove(
        order, memory, host, least_recently_used_first=True, channels=IdleChannels(0), wire_of=wire_of
    )
    awaiting = await attempt.run()
    total_s = time.monotonic() - began_at_s
    figures = awaiting.figures(None)
    say(
        total_s=total_s,
        processor_s=time.process_time() - processor_began_s,
        held_bytes=_largest_resident_bytes() - resident_bytes,
        steps_per_s_alone=alone,
        steps_per_s=host.steps_per_s(),
        **asdict(figures),
    )
    await asyncio.to_thread(sys.stdin.read)
    await awaiting.close()
    vcpu.stop()


def _largest_resident_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("target", "source", "neighbour"))
    parser.add_argument("--address")
    parser.add_argument("--memory-bytes", type=int, default=256 * MIB)
    parser.add_argument("--profile", default="idle")
    parser.add_argument("--option", default="compression")
    parser.add_argument("--nic-rate", type=int, default=0, help="bytes per second of the NICs at both ends")
    parser.add_argument("--write-rate", type=int, help="bytes per second that the guest writes")
    parser.add_argument("--pass-limit", type=int, default=PASS_LIMIT_DEFAULT)
    parser.add_argument("--fill", help="a path; random without one")
    parser.add_argument("--verify", action="store_true")
    parser.add_argument(
        "--all-spare", action="store_true", help="compress as if nobody else used the machine"
    )
    told = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)  # as an agent has it
    keep_freed_buffers()
    if told.all_spare:
        ProcessorMeter.idle_s = everything_idle  # type: ignore[method-assign, assignment]
        compression.NICENESS = 0
    fill = FillSpec(Fill.FILE, told.fill) if told.fill else FillSpec(Fill.RANDOM)
    match told.role:
        case "target":
            asyncio.run(serve(told.memory_bytes, told.nic_rate))
        case "neighbour":
            _, vcpu = running_guest(64 * MIB, "thrash", FillSpec(Fill.RANDOM))
            say(running=True)
            for _ in sys.stdin:  # one line: the steps so far
                say(steps=vcpu.steps, at_s=time.monotonic())
            vcpu.stop()
        case "source":
            asyncio.run(move(told, fill))


if __name__ == "__main__":
    main()
