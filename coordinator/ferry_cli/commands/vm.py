"""``ferry vm``: virtual machines, from creation to removal."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import grpc.aio
import typer

from ferry.v1 import admin_pb2, common_pb2, host_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli import admin, interrupts, tables, views
from ferry_cli.commands import migrate, ping
from ferry_cli.options import (
    CoordinatorOption,
    DirectoryOption,
    DryRunOption,
    OutputOption,
    duration,
    rate,
    size,
)
from ferry_cli.output import Output, print_document, print_pairs, print_table, tell
from ferry_cli.roles import (
    AntiAffinityOption,
    FailbackOption,
    FailoverPeriodOption,
    FailoverThresholdOption,
    PossibleOwnersOption,
    PreferredOwnersOption,
    ProcessorCompatibilityOption,
    RoleOptions,
    StartDelayOption,
    SwitchOption,
    changes_of,
    rules_of,
)
from ferry_types.errors import ErrorCode, FerryError, failed, malformed, refused
from ferry_types.limits import PASS_LIMIT_DEFAULT, PASS_LIMIT_MAX
from ferry_types.migrations import MigrationOptions, MigrationType, TransportOption
from ferry_types.roles import Priority
from ferry_types.vms import VmSpec
from ferry_types.workloads import PROFILES, AccessPattern, Fill, FillSpec, resolve
from ferry_wire.conversion import to_proto
from ferry_wire.status import refusal_of

AUDIT_S = 120.0
"""Deadline of an audit: the guest reads all its memory, in slices between which it works on."""

app = typer.Typer(help="Virtual machines.")

VmArgument = Annotated[str, typer.Argument(metavar="VM", help="The VM's name.")]
WorkloadOption = Annotated[
    str, typer.Option(metavar="|".join(PROFILES), help="What the guest does to its memory.")
]
CompressibilityOption = Annotated[
    float | None, typer.Option(min=0, max=1, help="Share of each written page that is constant.")
]
FillOption = Annotated[
    str,
    typer.Option(metavar="zero|random|FILE", help="What memory holds at boot; FILE: a file or folder there."),
]
NodeOption = Annotated[str, typer.Option(metavar="NODE", help="Where to start it; else where it fits best.")]

_PRIORITY = "Order of start after a failover; none: it stays off then."


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new VM's name.")],
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of the VM.")] = "256MiB",
    workload: WorkloadOption = "idle",
    write_rate: Annotated[str | None, typer.Option(metavar="RATE", help="Memory that it writes.")] = None,
    working_set: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory that it works on.")] = None,
    access: Annotated[AccessPattern | None, typer.Option(help="How it chooses pages of it.")] = None,
    compressibility: CompressibilityOption = None,
    fill: FillOption = "zero",
    node: NodeOption = "",
    priority: Annotated[Priority, typer.Option(help=_PRIORITY)] = Priority.MEDIUM,
    possible_owners: PossibleOwnersOption = None,
    preferred_owners: PreferredOwnersOption = None,
    anti_affinity: AntiAffinityOption = None,
    failback: FailbackOption = None,
    failover_threshold: FailoverThresholdOption = None,
    failover_period: FailoverPeriodOption = None,
    start_delay: StartDelayOption = None,
    switch: SwitchOption = None,
    processor_compatibility: ProcessorCompatibilityOption = None,
    no_start: Annotated[bool, typer.Option("--no-start", help="Leave it off.")] = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a VM and start it.

    PowerShell: New-VM, Add-ClusterVirtualMachineRole.
    """
    said = RoleOptions(
        possible_owners,
        preferred_owners,
        anti_affinity,
        failback,
        failover_threshold,
        failover_period,
        start_delay,
        switch,
        processor_compatibility,
    )
    spec = _spec(
        VmSpec(name, size(memory, "--memory"), PROFILES["idle"], _fill(fill), priority),
        workload,
        write_rate_bytes_per_s=None if write_rate is None else rate(write_rate, "--write-rate"),
        working_set_bytes=None if working_set is None else size(working_set, "--working-set"),
        access=access,
        compressibility=compressibility,
    )
    request = admin_pb2.CreateVmRequest(
        spec=to_proto(spec, common_pb2.VmSpec),
        node=node,
        no_start=no_start,
        rules=to_proto(rules_of(said), common_pb2.RoleRules),
    )
    vm = admin.ask(coordinator, directory, lambda stub: stub.CreateVm(request, timeout=admin.BOOT_S))
    _print_changed(vm, f"{name} is {vm.state}" + (f" on {vm.node}" if vm.node else ""), output)


@app.command("list")
def list_vms(
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the VMs.

    PowerShell: Get-VM.
    """
    vms = admin.ask(coordinator, directory, lambda stub: _vms(stub, ""))
    if output is Output.JSON:
        print_document([views.vm_view(vm) for vm in vms])
    else:
        print_table(*tables.columns_of(tables.vm_rows(vms), tables.VM_COLUMNS))


@app.command()
def show(
    name: VmArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one VM.

    PowerShell: Get-VM -Name.
    """
    vm = admin.ask(coordinator, directory, lambda stub: admin.find_vm(stub, name))
    if output is Output.JSON:
        print_document(views.vm_view(vm))
    else:
        print_pairs(tables.vm_pairs(vm))


@app.command("set")
def set_vm(
    name: VmArgument,
    priority: Annotated[Priority | None, typer.Option(help=_PRIORITY)] = None,
    possible_owners: PossibleOwnersOption = None,
    preferred_owners: PreferredOwnersOption = None,
    anti_affinity: AntiAffinityOption = None,
    failback: FailbackOption = None,
    failover_threshold: FailoverThresholdOption = None,
    failover_period: FailoverPeriodOption = None,
    start_delay: StartDelayOption = None,
    switch: SwitchOption = None,
    processor_compatibility: ProcessorCompatibilityOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Choose where a VM may run, and when it fails over and back; what is not named stays.

    PowerShell: Set-VM, Set-VMProcessor, Set-ClusterGroup, Set-ClusterOwnerNode.

    An empty value clears a list: --possible-owners "".
    """
    said = RoleOptions(
        possible_owners,
        preferred_owners,
        anti_affinity,
        failback,
        failover_threshold,
        failover_period,
        start_delay,
        switch,
        processor_compatibility,
    )
    changes = changes_of(priority, said)
    if changes is None:
        raise FerryError(malformed(f"nothing of {name} is to be changed", "see ferry vm set --help"))
    request = admin_pb2.SetVmRequest(vm=name, changes=to_proto(changes, common_pb2.RoleChanges))
    vm = admin.ask(coordinator, directory, lambda stub: stub.SetVm(request, timeout=admin.LOOK_S))
    _print_changed(vm, tables.vm_line(vm), output)


@app.command()
def start(
    name: VmArgument,
    node: Annotated[str, typer.Option(help="Where; else the cluster places it.")] = "",
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start a VM that is off, and wait until it runs.

    PowerShell: Start-VM.
    """
    request = admin_pb2.StartVmRequest(name=name, node=node)
    vm = admin.ask(coordinator, directory, lambda stub: stub.StartVm(request, timeout=admin.BOOT_S))
    _print_changed(vm, f"{name} is {vm.state} on {vm.node}", output)


@app.command()
def stop(
    name: VmArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Turn a VM off, and wait until it is.

    PowerShell: Stop-VM -TurnOff.
    """
    request = admin_pb2.VmRequest(name=name)
    vm = admin.ask(coordinator, directory, lambda stub: stub.StopVm(request, timeout=admin.BOOT_S))
    _print_changed(vm, f"{name} is {vm.state}", output)


@app.command()
def remove(
    name: VmArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Remove a VM that is off.

    PowerShell: Remove-VM.
    """
    request = admin_pb2.VmRequest(name=name)
    vm = admin.ask(coordinator, directory, lambda stub: stub.RemoveVm(request, timeout=admin.LOOK_S))
    _print_changed(vm, f"{name} is removed", output)


@app.command("migrate")
def migrate_vm(
    name: VmArgument,
    to: Annotated[str, typer.Option(metavar="NODE|best", help="The target.")] = "best",
    kind: Annotated[MigrationType, typer.Option("--type", help="live: the VM runs on.")] = MigrationType.LIVE,
    option: Annotated[
        TransportOption | None, typer.Option(help="How memory is sent; else as the source host prefers.")
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare all memory at the hand-off.")] = False,
    pass_limit: Annotated[
        int, typer.Option(min=1, max=PASS_LIMIT_MAX, help="Passes over memory before the switch is forced.")
    ] = PASS_LIMIT_DEFAULT,
    blackout_allowed: Annotated[
        str, typer.Option(metavar="DURATION", help="For the last pages at most; less while passes still pay.")
    ] = "50ms",
    throttle: Annotated[
        bool, typer.Option("--throttle", help="Slow the guest while passes do not get on.")
    ] = False,
    switch_at_minimum: Annotated[
        bool, typer.Option("--switch-at-minimum", help="If passes do not pay, switch when least is dirty.")
    ] = False,
    abort_over_blackout: Annotated[
        bool, typer.Option("--abort-over-blackout", help="Give up rather than pause for longer than allowed.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the move is accepted.")] = False,
    dry_run: DryRunOption = False,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Move a running VM to another node, live.

    PowerShell: Move-ClusterVirtualMachineRole, Move-VM.

    Ctrl-C leaves the move to itself and says how to watch or cancel it. --dry-run says where the VM would go
    and what that would take, by what its guest writes now and what earlier moves have shown of the wire.
    """
    options = _options(
        MigrationOptions(
            kind,
            option,
            verify,
            pass_limit,
            duration(blackout_allowed, "--blackout-allowed"),
            throttle,
            switch_at_minimum,
            abort_over_blackout,
        )
    )
    request = admin_pb2.MigrateVmRequest(
        vm=name, to=to, options=to_proto(options, common_pb2.MigrationOptions), dry_run=dry_run
    )
    address = admin.coordinator_address(coordinator, directory)
    migrate.migrate(address, request, detach=detach, output=output)


@app.command("ping")
def ping_vm(
    name: VmArgument,
    count: Annotated[int, typer.Option(min=0, help="Requests to send; 0: until interrupted.")] = 0,
    interval: Annotated[str, typer.Option(metavar="DURATION", help="Time between requests.")] = "10ms",
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send echo requests that the guest itself answers, wherever it is.

    PowerShell: Test-Connection.

    Exit code 1 if no answer came, or if the guest's step counter fell without a boot.
    """
    interval_s = duration(interval, "--interval")
    if interval_s <= 0:
        raise typer.BadParameter("the interval must be longer than nothing", param_hint="--interval")
    ping.ping(admin.coordinator_address(coordinator, directory), name, count, interval_s, output)


@app.command()
def audit(
    name: VmArgument,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have the guest check its own books: lost, torn or stale pages, steps lost or done twice.

    Exit code 1 if it finds something wrong (PowerShell has no such cmdlet; chkdsk comes close).
    """
    vm = admin.ask(coordinator, directory, lambda stub: admin.find_vm(stub, name))
    if not vm.host_address:
        hint = f"start it: ferry vm start {name}"
        raise FerryError(refused("vm running", f"{name} is {vm.state}, so that nobody can ask it", hint))
    report = interrupts.run(audit_at(vm.host_address, name))
    if output is Output.JSON:
        print_document(views.audit_view(report))
    elif report.ok:
        tell(f"{name}: {report.pages_checked} pages checked, all in order")
    else:
        tell(f"{name}: {report.pages_checked} pages checked; wrong:")
        for error in report.errors:
            tell(f"  {error}")
    if not report.ok:
        raise typer.Exit(1)


async def audit_at(host_address: str, name: str) -> host_pb2.AuditReport:
    """What the guest finds in its books, asked for at its host. Raises FerryError if that is away."""
    async with admin.connect_host(host_address) as host:
        try:
            return await host.Audit(host_pb2.AuditRequest(vm=name), timeout=AUDIT_S)
        except grpc.aio.AioRpcError as error:
            refusal = refusal_of(error, host_address)
            if refusal.code is not ErrorCode.UNREACHABLE:
                raise
            hint = f"see where it is by now: ferry vm show {name}"
            raise FerryError(
                failed(f"the host of {name} does not answer: {refusal.message}", hint)
            ) from error


async def _vms(stub: AdminStub, name: str) -> list[admin_pb2.Vm]:
    answer = await stub.ListVms(admin_pb2.ListVmsRequest(name=name), timeout=admin.LOOK_S)
    return list(answer.vms)


def _print_changed(vm: admin_pb2.Vm, words: str, output: Output) -> None:
    if output is Output.JSON:
        print_document(views.vm_view(vm))
    else:
        tell(words)


def _fill(text: str) -> FillSpec:
    if text in (Fill.ZERO, Fill.RANDOM):
        return FillSpec(Fill(text))
    # The host opens it, from a directory of its own.
    return FillSpec(Fill.FILE, str(Path(text).absolute()))


def _spec(
    spec: VmSpec,
    workload: str,
    *,
    write_rate_bytes_per_s: int | None,
    working_set_bytes: int | None,
    access: AccessPattern | None,
    compressibility: float | None,
) -> VmSpec:
    """The spec with its workload, fitted to its memory. Raises FerryError(malformed)."""
    try:
        spec.validate()
        resolved = resolve(
            workload,
            spec.memory_bytes,
            write_rate_bytes_per_s=write_rate_bytes_per_s,
            working_set_bytes=working_set_bytes,
            access=access,
            compressibility=compressibility,
        )
    except ValueError as problem:
        raise FerryError(malformed(str(problem), "see ferry vm create --help")) from None
    return replace(spec, workload=resolved)


def _options(options: MigrationOptions) -> MigrationOptions:
    try:
        options.validate()
    except ValueError as problem:
        raise FerryError(malformed(str(problem), "see ferry vm migrate --help")) from None
    return options
