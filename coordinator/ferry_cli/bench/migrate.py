"""The loop of ``ferry bench migrate``: our own moves and the peers', in turn, on the same bytes.

Inside our stopwatch: from the request to migrate until its watcher hears that the move is complete, that is
until the target runs and the source has deleted its image. Memory is read from its file, and one move goes
by, before the first run that counts.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ferry.v1 import admin_pb2, common_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli.admin import BOOT_S, LOOK_S, connect, find_vm
from ferry_cli.bench.catalogue import choose_peers
from ferry_cli.bench.contents import Contents, memory_contents
from ferry_cli.bench.document import OwnRun, PeerRuns, Question
from ferry_cli.bench.floor import Floor, FloorMeter, floor_meter
from ferry_cli.bench.memory import FreeMemory, settle, warm_free_memory
from ferry_cli.bench.peers import Peer, PeerUnavailable
from ferry_cli.lab import lifecycle
from ferry_cli.lab.state import COORDINATOR, LabSpec
from ferry_cli.moving import check_moved, see_through
from ferry_types.errors import FerryError, failed
from ferry_types.migrations import MigrationFigures, MigrationOptions, TransportOption
from ferry_types.vms import VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve
from ferry_wire.conversion import from_proto, to_proto

Progress = Callable[[str], None]

VM = "bench"
_SPARE_BYTES = 2**30
_SETTLE_BYTES_MIN = 256 * 2**20


async def measure(
    question: Question, runs: int, against: str, progress: Progress
) -> tuple[list[OwnRun], Floor, list[PeerRuns]]:
    """Measure. Raises FerryError; leaves nothing behind, however it ends."""
    peers = choose_peers(against)
    spec = LabSpec(hosts=2, memory_bytes=question.memory_bytes + _SPARE_BYTES)
    with memory_contents(question.fill, question.memory_bytes) as contents:
        async with lifecycle.temporary(spec, progress, "ferry-bench-") as (directory, lab):
            address = lab.process(COORDINATOR).address
            async with connect(address) as admin:
                vm = await _create(admin, question, contents)
                async with floor_meter(vm.host_address, address, directory / "coordinator") as meter:
                    return await _rounds(question, runs, admin, meter, peers, contents, progress)


async def _rounds(
    question: Question,
    runs: int,
    admin: AdminStub,
    meter: FloorMeter,
    peers: Sequence[Peer],
    contents: Contents,
    progress: Progress,
) -> tuple[list[OwnRun], Floor, list[PeerRuns]]:
    own: list[OwnRun] = []
    free_memory = _free_memory(question, compared=bool(peers))
    try:
        theirs = [await _prepare(peer, contents.path, question.memory_bytes) for peer in peers]
        # So that interpreters, allocators and connections are warm.
        await _move(admin, question, free_memory)
        for number in range(1, runs + 1):
            await meter.sample(runs)
            await _quieten(free_memory)
            await _boot_anew(admin, question, contents)
            run = await _move(admin, question, free_memory)
            own.append(run)
            said = [f"ferry {run.total_s:.3f} s (black-out {run.blackout_s * 1000:.2f} ms)"]
            for index, peer in enumerate(peers):
                await _quieten(free_memory)
                theirs[index] = await _run_peer(peer, theirs[index], free_memory)
                if theirs[index].runs and not theirs[index].problem:
                    said.append(f"{peer.name} {theirs[index].runs[-1].total_s:.3f} s")
            progress(f"run {number} of {runs}: {', '.join(said)}")
    finally:
        for peer in peers:
            await peer.close()
    return own, meter.floor(), theirs


def _free_memory(question: Question, *, compared: bool) -> FreeMemory:
    """What to do about free memory before each run, of ours and of the peers' alike.

    Zeros touch none at the target; the machine settles before such a run is prepared. Of little memory a
    first touch is short, and without peers there is nothing to be fair to.
    """
    if question.fill == Fill.ZERO:
        return FreeMemory.AS_IS
    if compared and question.memory_bytes >= _SETTLE_BYTES_MIN:
        return FreeMemory.WARM_AND_SETTLED
    return FreeMemory.WARM


async def _quieten(free_memory: FreeMemory) -> None:
    """Have a run be prepared on a quiet machine; warming free memory quietens it later by itself."""
    if free_memory is FreeMemory.AS_IS:
        await settle()


async def _create(admin: AdminStub, question: Question, contents: Contents) -> admin_pb2.Vm:
    fill = FillSpec(Fill.ZERO) if question.fill == Fill.ZERO else FillSpec(Fill.FILE, str(contents.path))
    spec = VmSpec(VM, question.memory_bytes, resolve(question.workload, question.memory_bytes), fill)
    request = admin_pb2.CreateVmRequest(spec=to_proto(spec, common_pb2.VmSpec))
    return await admin.CreateVm(request, timeout=BOOT_S)


async def _boot_anew(admin: AdminStub, question: Question, contents: Contents) -> None:
    """Have the guest touch all its memory again, as the peers do before every run.

    Memory that lay idle for seconds is slower to read, and zeros that have moved are known to be zero and
    cost nothing: that would compare other things than the move.
    """
    request = admin_pb2.VmRequest(name=VM)
    await admin.StopVm(request, timeout=BOOT_S)
    await admin.RemoveVm(request, timeout=LOOK_S)
    await _create(admin, question, contents)


async def _move(admin: AdminStub, question: Question, free_memory: FreeMemory) -> OwnRun:
    options = MigrationOptions(option=TransportOption(question.option))
    request = admin_pb2.MigrateVmRequest(
        vm=VM, to="best", options=to_proto(options, common_pb2.MigrationOptions)
    )
    await warm_free_memory(question.memory_bytes, free_memory)
    began_at = time.perf_counter()
    accepted = await admin.MigrateVm(request, timeout=LOOK_S)
    record = await see_through(admin, accepted.id, lambda _: None)
    total_s = time.perf_counter() - began_at
    check_moved(record)
    if not record.figures.HasField("blackout_s"):
        vm = await find_vm(admin, VM)
        raise FerryError(failed(f"{record.id} to {vm.node} was moved, but nobody measured its black-out"))
    figures = from_proto(record.figures, MigrationFigures)
    return OwnRun(total_s, record.figures.blackout_s, question.memory_bytes / total_s, figures.blackout)


async def _prepare(peer: Peer, contents: Path, memory_bytes: int) -> PeerRuns:
    try:
        await peer.prepare(contents, memory_bytes)
    except PeerUnavailable as problem:
        return PeerRuns(peer.name, "", (), problem.refusal.message)
    return PeerRuns(peer.name, peer.command, ())


async def _run_peer(peer: Peer, sofar: PeerRuns, free_memory: FreeMemory) -> PeerRuns:
    """One more run, unless the peer has failed before: a bench of one peer less is better than none."""
    if sofar.problem:
        return sofar
    try:
        run = await peer.run_once(free_memory)
    except FerryError as problem:
        return replace(sofar, problem=problem.refusal.message)
    return replace(sofar, runs=(*sofar.runs, run))
