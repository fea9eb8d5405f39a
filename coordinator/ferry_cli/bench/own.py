"""Our own side of the bench: a VM that is booted anew before every move, and moved.

Inside our stopwatch: from the request to migrate until its watcher hears that the move is complete, that is
until the target runs and the source has deleted its image.
"""

from pathlib import Path

from ferry.v1 import admin_pb2, common_pb2
from ferry_cli.admin import BOOT_S, LOOK_S
from ferry_cli.bench.arena import Arena
from ferry_cli.bench.contents import Contents
from ferry_cli.bench.document import OwnRun, Question
from ferry_cli.bench.memory import FreeMemory, warm_free_memory
from ferry_cli.bench.stopwatch import Stopwatch
from ferry_cli.moving import check_moved, see_through
from ferry_types.errors import FerryError, failed
from ferry_types.migrations import MigrationFigures, MigrationOptions, TransportOption
from ferry_types.vms import VmSpec
from ferry_types.workloads import Fill, FillSpec, resolve
from ferry_wire.conversion import from_proto, to_proto

VM = "bench"
_TICKS_PER_S = 100
"""Of processor times in /proc (USER_HZ, man 5 proc)."""


async def create(arena: Arena, question: Question, contents: Contents) -> None:
    """Boot the VM, whose guest touches all its memory."""
    fill = FillSpec(Fill.ZERO) if question.fill == Fill.ZERO else FillSpec(Fill.FILE, str(contents.path))
    workload = resolve(
        question.workload,
        question.memory_bytes,
        write_rate_bytes_per_s=question.write_rate_bytes_per_s,
    )
    spec = VmSpec(VM, question.memory_bytes, workload, fill)
    request = admin_pb2.CreateVmRequest(spec=to_proto(spec, common_pb2.VmSpec))
    await arena.admin.CreateVm(request, timeout=BOOT_S)


async def remove(arena: Arena) -> None:
    """Turn the VM off and forget it."""
    request = admin_pb2.VmRequest(name=VM)
    await arena.admin.StopVm(request, timeout=BOOT_S)
    await arena.admin.RemoveVm(request, timeout=LOOK_S)


async def boot_anew(arena: Arena, question: Question, contents: Contents) -> None:
    """Have the guest touch all its memory again, as the peers do before every run.

    Memory that lay idle for seconds is slower to read, and zeros that have moved are known to be zero and
    cost nothing: that would compare other things than the move.
    """
    await remove(arena)
    await create(arena, question, contents)


async def move(arena: Arena, question: Question, free_memory: FreeMemory) -> OwnRun:
    """Move the VM once. Raises FerryError if it did not move, or not as the question says."""
    options = MigrationOptions(option=TransportOption(question.option))
    request = admin_pb2.MigrateVmRequest(
        vm=VM, to="best", options=to_proto(options, common_pb2.MigrationOptions)
    )
    await warm_free_memory(question.memory_bytes, free_memory)
    busy_before_s = {node: _processor_s(pid) for node, pid in arena.agent_pids.items()}
    stopwatch = Stopwatch()
    accepted = await arena.admin.MigrateVm(request, timeout=LOOK_S)
    record = await see_through(arena.admin, accepted.id, lambda _: None)
    lap = stopwatch.stop()
    busy_s = {node: _processor_s(pid) - busy_before_s[node] for node, pid in arena.agent_pids.items()}
    check_moved(record)
    if record.option_reason:
        what = f"{record.id} did not take {question.option}: {record.option_reason}"
        raise FerryError(failed(what, "choose another --option"))
    figures = from_proto(record.figures, MigrationFigures)
    if figures.blackout_s is None:
        what = f"{record.id} to {record.target} was moved, but nobody measured its black-out"
        raise FerryError(failed(what))
    return OwnRun(
        total_s=lap.total_s,
        stolen_s=lap.stolen_s,
        blackout_s=figures.blackout_s,
        throughput_bytes_per_s=question.memory_bytes / lap.total_s,
        brownout_s=figures.brownout_s,
        bytes_sent=figures.bytes_sent,
        last_bytes_sent=0 if figures.final is None else figures.final.bytes_sent,
        source_processors=busy_s[record.source] / lap.total_s,
        target_processors=busy_s[record.target] / lap.total_s,
        blackout=figures.blackout,
    )


def _processor_s(pid: int) -> float:
    """Seconds of processor time that a process has used, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
