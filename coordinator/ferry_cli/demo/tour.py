"""The tour: three hosts, a busy VM, a live migration, a killed host, a failover.

Everything that it shows it checks; what does not hold fails it.
"""

import asyncio
import signal
import sysconfig
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ferry.v1 import admin_pb2, common_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli import tables
from ferry_cli.admin import BOOT_S, LOOK_S, connect, find_vm
from ferry_cli.commands.vm import audit_at
from ferry_cli.demo.failover import FailoverStory, newest_event_id, watch_failover
from ferry_cli.demo.narrator import Narrator
from ferry_cli.echo import EchoClient, EchoReport, follow
from ferry_cli.lab import lifecycle, processes
from ferry_cli.lab.state import COORDINATOR, LabSpec
from ferry_cli.moving import see_through
from ferry_types.errors import FerryError
from ferry_types.limits import PAGE_SIZE
from ferry_types.migrations import MigrationOptions, MigrationState
from ferry_types.profiles import PROFILES
from ferry_types.units import format_duration, format_rate, format_size
from ferry_types.vms import VmSpec, VmState
from ferry_types.workloads import Fill, FillSpec, resolve
from ferry_wire.conversion import to_proto

VM = "shop"
MEMORY_BYTES = 256 * 2**20
WORKLOAD = "sql"
HOSTS = 3
PROFILE = PROFILES["fast"]

ECHO_INTERVAL_S = 0.01
LISTEN_S = 1.0
"""How long the echo client listens between two chapters, so that there is something to count."""

ECHO_GAP_S_MAX = 1.0
"""A pause that no TCP connection, and hardly a person, notices."""

FAILOVER_S_MAX = 4.0
FAILOVER_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Stage:
    """What the chapters work with."""

    narrator: Narrator
    directory: Path
    admin: AdminStub
    echo: EchoClient


async def tour(narrator: Narrator) -> None:
    """Give the whole tour, and leave nothing behind; ``narrator.failed`` has what did not hold."""
    narrator.chapter(f"A cluster of {HOSTS} hosts")
    narrator.say(
        "Each host is a process of its own, and so are the coordinator, which decides who may run what, "
        "and the message broker, which tells the world about it."
    )
    async with lifecycle.temporary(LabSpec(hosts=HOSTS), narrator.show, "ferry-demo-") as (directory, lab):
        narrator.say(
            f"A host runs VMs only while it holds a lease of {PROFILE.lease_s:g} s, which it renews every "
            f"{PROFILE.beat_s * 1000:.0f} ms. That will matter in a moment."
        )
        async with connect(lab.process(COORDINATOR).address) as admin, EchoClient(VM) as echo:
            stage = Stage(narrator, directory, admin, echo)
            await _create(stage)
            background = [
                asyncio.create_task(follow(admin, echo, lambda _: None)),
                asyncio.create_task(echo.ping(0, ECHO_INTERVAL_S)),
            ]
            try:
                await _migrate(stage)
                await _fail_over(stage)
            finally:
                for task in background:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
        narrator.chapter("Tidying up")
        await lifecycle.down(directory)
        narrator.check("no process of the lab is left", not processes.find_marked(directory))


async def _create(stage: Stage) -> None:
    tell = stage.narrator
    tell.chapter(f"A busy virtual machine: {VM}")
    source = sysconfig.get_paths()["stdlib"]
    spec = VmSpec(VM, MEMORY_BYTES, resolve(WORKLOAD, MEMORY_BYTES), FillSpec(Fill.FILE, source))
    tell.say(
        f"Its {format_size(MEMORY_BYTES)} of memory are filled with real bytes: the files under {source}. "
        f"Its guest works like a database ({WORKLOAD}): it writes "
        f"{format_rate(spec.workload.write_rate_bytes_per_s)} over a working set of "
        f"{format_size(spec.workload.working_set_bytes)}, and keeps books about every write in its own pages."
    )
    request = admin_pb2.CreateVmRequest(spec=to_proto(spec, common_pb2.VmSpec))
    vm = await stage.admin.CreateVm(request, timeout=BOOT_S)
    tell.show(f"{VM} runs on {vm.node}")
    await stage.echo.aim(vm.echo_address)


async def _migrate(stage: Stage) -> None:
    tell = stage.narrator
    before = await find_vm(stage.admin, VM)
    tell.chapter("Live migration")
    tell.say(
        f"An echo client asks {VM} for a sign of life every {ECHO_INTERVAL_S * 1000:.0f} ms; the guest "
        "itself answers. Now all memory is copied to another host while the guest goes on writing: what it "
        "dirties is sent again, pass after pass, until so little is left that a pause is short."
    )
    await asyncio.sleep(LISTEN_S)
    stage.echo.books.count_anew()
    options = to_proto(MigrationOptions(verify=True), common_pb2.MigrationOptions)
    request = admin_pb2.MigrateVmRequest(vm=VM, to="best", options=options)
    accepted = await stage.admin.MigrateVm(request, timeout=LOOK_S)
    with tell.progress(f"{VM}: {accepted.source} to {accepted.target}") as watcher:
        record = await see_through(stage.admin, accepted.id, watcher)
    await asyncio.sleep(LISTEN_S)
    for line in tables.migration_lines(record):
        tell.show(line)
    figures = record.figures
    if figures.HasField("final") and figures.HasField("blackout_s"):
        tell.say(
            f"The brown-out ({tables.brownout(record)}) is the copying: {VM} ran on, a little slower. The "
            f"black-out ({tables.blackout(record)}) is the pause that users could feel: "
            f"{figures.final.pages_sent} pages ({format_size(figures.final.pages_sent * PAGE_SIZE)}), the "
            "processor's state, one durable commit that makes the new host the owner, and, because the tour "
            "asks for it (--verify), a hash of all memory on both sides."
        )
    echoes = stage.echo.books.report()
    tell.show(_echo_line(echoes))
    tell.say(
        "Requests that find the guest paused are lost, and so are those that still go to the old host until "
        "the client has heard of the move."
    )
    after = await find_vm(stage.admin, VM)
    tell.check(
        f"{VM} runs on {record.target} instead of {before.node}",
        record.state == MigrationState.COMPLETED and after.node == record.target != before.node,
    )
    tell.check("all memory was equal on both sides at the hand-off", figures.verified)
    tell.check("no echo was missing for longer than 1 s", _answered(echoes, ECHO_GAP_S_MAX))
    tell.check("the guest's step counter never fell: no old memory came back", echoes.steps_fell == 0)
    await _audit(stage, after)


async def _fail_over(stage: Stage) -> None:
    tell = stage.narrator
    before = await find_vm(stage.admin, VM)
    tell.chapter(f"The power fails on {before.node}")
    tell.say(
        f"{before.node}, where {VM} runs now, is killed together with its watchdog (SIGKILL): no goodbye, "
        "nothing saved, and nobody left to certify the death. Nobody can know at once whether it is dead or "
        "merely silent, and two hosts must never run one VM. So the "
        f"coordinator waits until the lease must have run out on every clock "
        f"({PROFILE.coordinator_span_s:.2f} s after the last renewal), and then boots {VM} elsewhere."
    )
    await asyncio.sleep(LISTEN_S)
    after_id = await newest_event_id(stage.admin)
    stage.echo.books.count_anew()
    killed_at_us = time.time_ns() // 1000
    await lifecycle.kill(stage.directory, f"{before.node}/power", signal.SIGKILL)
    async with asyncio.timeout(FAILOVER_DEADLINE_S):
        story = await watch_failover(stage.admin, VM, before, killed_at_us, after_id)
    await asyncio.sleep(LISTEN_S)
    tell.show(f"+0.000 s  {before.node} is killed")
    for after_s, message in story.events:
        tell.show(f"+{after_s:.3f} s  {message}")
    echoes = stage.echo.books.report()
    tell.show(_echo_line(echoes))
    tell.say(
        f"The memory of a killed host is gone: {VM} has booted anew from its configuration, with its counter "
        "at the beginning. That is the difference between planned (live migration) and unplanned (high "
        "availability)."
    )
    _check_failover(tell, before, story, echoes)
    nodes = await stage.admin.ListNodes(admin_pb2.ListNodesRequest(), timeout=LOOK_S)
    owners = [node.name for node in nodes.nodes if VM in node.vms]
    tell.check(f"exactly one host runs {VM}: {', '.join(owners)}", owners == [story.vm.node])
    await _audit(stage, story.vm)


def _check_failover(tell: Narrator, before: admin_pb2.Vm, story: FailoverStory, echoes: EchoReport) -> None:
    tell.check(
        f"{VM} runs on {story.vm.node} {story.runs_after_s:.2f} s after the kill "
        f"(at most {FAILOVER_S_MAX:g} s)",
        story.vm.state == VmState.RUNNING and story.runs_after_s <= FAILOVER_S_MAX,
    )
    tell.check(
        f"its ownership went from epoch {before.epoch} to {story.vm.epoch}: orders to the old owner are void",
        story.vm.epoch > before.epoch,
    )
    tell.check("it was not booted before the dead host's lease had run out", _waited(story))
    tell.check("the guest answers again", echoes.received > 0)
    tell.check("the step counter fell only with the boot", echoes.steps_fell == 0)


def _waited(story: FailoverStory) -> bool:
    # The last renewal was sent at most one beat (and the time of a slow machine's hiccup) before the kill.
    return story.lost_after_s is not None and story.lost_after_s >= PROFILE.host_span_s - 2 * PROFILE.beat_s


async def _audit(stage: Stage, vm: admin_pb2.Vm) -> None:
    try:
        report = await audit_at(vm.host_address, VM)
    except FerryError as error:
        stage.narrator.check(f"the guest audits its books: {error.refusal.message}", holds=False)
        return
    claim = f"the guest's own audit: {report.pages_checked} pages checked, {len(report.errors)} errors"
    stage.narrator.check(claim, report.ok)


def _answered(echoes: EchoReport, gap_s_max: float) -> bool:
    return echoes.longest_gap_s is not None and echoes.longest_gap_s <= gap_s_max


def _echo_line(echoes: EchoReport) -> str:
    gap = "-" if echoes.longest_gap_s is None else format_duration(echoes.longest_gap_s)
    return f"echoes: {echoes.sent} sent, {echoes.lost} lost, longest silence {gap}"
