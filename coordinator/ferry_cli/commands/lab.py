"""``ferry lab``: a whole cluster on this machine, of real processes."""

import signal
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ferry_cli import interrupts
from ferry_cli.lab import lifecycle, status
from ferry_cli.lab.state import LabSpec, lab_directory
from ferry_cli.options import DirectoryOption, OutputOption, duration, size
from ferry_cli.output import Output, print_document, say, tell
from ferry_types.eras import Era
from ferry_types.errors import ErrorCode, FerryError, Refusal, failed
from ferry_types.limits import MIGRATION_LIMIT_DEFAULT, MIGRATION_LIMIT_MAX
from ferry_types.resiliency import timing_of
from ferry_types.scale import SCALE_MAX

if TYPE_CHECKING:
    from ferry_cli.topology.model import Topology

HOSTS_DEFAULT: Final = 3

app = typer.Typer(help="A whole cluster on this machine, of real processes.")


class Profile(StrEnum):
    """How often hosts renew their leases, and how long a lease holds."""

    FAST = "fast"
    WINDOWS = "windows"


class Signal(StrEnum):
    """What ``lab kill`` may do to a process."""

    KILL = "KILL"
    STOP = "STOP"
    CONT = "CONT"


HostsOption = Annotated[
    int | None, typer.Option(min=1, max=64, help=f"Number of hosts; else {HOSTS_DEFAULT}.")
]
TopologyOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A YAML file with hosts, NICs, networks and VMs, in place of --hosts; ferry lab schema prints "
        "what it may have.",
    ),
]
ResiliencyPeriodOption = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Era 2016: how long a silent node's VMs are left alone; else 60s, in profile windows 240s.",
    ),
]

ScaleOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=SCALE_MAX,
        help="How much smaller memory and rates really are than all figures say; else what the topology file "
        "says, or 1.",
    ),
]

_EFFECTS = {Signal.KILL: "was killed", Signal.STOP: "is stopped", Signal.CONT: "goes on"}


@app.command()
def up(
    hosts: HostsOption = None,
    topology: TopologyOption = None,
    era: Annotated[Era, typer.Option(help="The cluster's functional level.")] = Era.WS2012R2,
    profile: Annotated[
        Profile, typer.Option(help="fast: beat 250 ms, lease 2 s; windows: beat 1 s, lease 5 s.")
    ] = Profile.FAST,
    resiliency_period: ResiliencyPeriodOption = None,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="What VMs may use on each host.")] = "8GiB",
    scale: ScaleOption = None,
    migration_limit: Annotated[
        int,
        typer.Option(min=1, max=MIGRATION_LIMIT_MAX, help="Simultaneous live migrations per host."),
    ] = MIGRATION_LIMIT_DEFAULT,
    broker: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="An MQTT broker that runs already, in place of an own one."),
    ] = None,
    failpoints: Annotated[bool, typer.Option("--failpoints", help="Let tests hold and break moves.")] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Write down when each host runs its VMs.")] = False,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start coordinator, broker, witness and hosts, and wait until all nodes are up.

    PowerShell: New-Cluster.

    VMs of a topology file are created once all nodes are up.
    A directory where a lab was before goes on with that lab's cluster, its VMs and events included.
    """
    described = _read_topology(topology, hosts, scale)
    spec = LabSpec(
        hosts=HOSTS_DEFAULT if hosts is None else hosts,
        era=era,
        profile=profile.value,
        memory_bytes=size(memory, "--memory"),
        migration_limit=migration_limit,
        broker=broker,
        failpoints=failpoints,
        trace=trace,
        resiliency_period_s=_resiliency_period_s(resiliency_period, profile, era),
        scale=1 if scale is None else scale,
    )
    where = lab_directory(directory)
    if described is None:
        lab = interrupts.run(lifecycle.up(where, spec, say))
    else:
        from ferry_cli.topology import starting

        lab = interrupts.run(starting.up(where, spec, described, say))
    if output is Output.JSON:
        print_document(status.status_view(where, lab, interrupts.run(lifecycle.nodes(lab))))
    else:
        tell(f"the lab is up in {where}; its logs are in {where / 'logs'}")


@app.command()
def schema() -> None:
    """Print the JSON Schema of topology files, for editors and other programs.

    PowerShell has no such cmdlet.
    """
    from ferry_cli.topology.schema import published

    tell(published().rstrip("\n"))


@app.command("status")
def show_status(directory: DirectoryOption = None, output: OutputOption = Output.TABLE) -> None:
    """Show the lab's processes, where they log, and its nodes."""
    where = lab_directory(directory)
    lab = lifecycle.existing_lab(where)
    nodes = interrupts.run(lifecycle.nodes(lab))
    if output is Output.JSON:
        print_document(status.status_view(where, lab, nodes))
    else:
        status.print_status(where, lab, nodes)


@app.command()
def down(directory: DirectoryOption = None, output: OutputOption = Output.TABLE) -> None:
    """End all processes of the lab, whatever state it is in.

    PowerShell: Stop-Cluster.

    Logs, the cluster's store and the hosts' identities stay in the directory.
    """
    where = lab_directory(directory)
    ended = interrupts.run(lifecycle.down(where))
    if output is Output.JSON:
        print_document({"dir": str(where), "ended": ended})
    else:
        tell(f"ended {', '.join(ended)}" if ended else f"nothing of a lab runs in {where}")


@app.command()
def kill(
    process: Annotated[
        str,
        typer.Argument(
            help="NODE (its agent), NODE/watchdog, NODE/power (both at once), coordinator, broker or witness."
        ),
    ],
    number: Annotated[
        Signal, typer.Option("--signal", help="What to send.", case_sensitive=False)
    ] = Signal.KILL,
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Kill, stop or continue a process of the lab: to kill a node is a host failure.

    STOP and CONT on a node act on its agent and its watchdog. A watchdog certifies the death of its agent, so
    that the cluster fails over at once; after NODE/power nobody does, and the lease has to run out.
    """
    killed = interrupts.run(
        lifecycle.kill(lab_directory(directory), process, signal.Signals[f"SIG{number.value}"])
    )
    if output is Output.JSON:
        print_document(status.signalled_view(lab_directory(directory), killed))
    else:
        tell(f"{process} (pid {killed.identity.pid}) {_EFFECTS[number]}")


@app.command()
def start(
    process: Annotated[str, typer.Argument(help="A node (its agent), coordinator, broker or witness.")],
    directory: DirectoryOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start a process that has ended, where it was, and wait until it has joined.

    PowerShell: Start-ClusterNode.
    """
    started = interrupts.run(lifecycle.start(lab_directory(directory), process))
    (view,) = status.process_views(lab_directory(directory), [started])
    if output is Output.JSON:
        print_document(view)
    else:
        tell(f"{process} (pid {view['pid']}) is up at {started.address}")


def _read_topology(file: Path | None, hosts: int | None, scale: int | None) -> "Topology | None":
    """The topology of a file, if one was named. Raises FerryError: malformed, failed if it cannot be read."""
    if file is None:
        return None
    if hosts is not None:
        raise typer.BadParameter("a topology file has its own hosts: leave --hosts out", param_hint="--hosts")
    from ferry_cli.topology import model
    from ferry_sim.scenarios.document import Malformed

    try:
        topology = model.read(file, 1 if scale is None else scale)
    except OSError as problem:
        what = f"{file} cannot be read: {problem.strerror}"
        raise FerryError(failed(what, "name a file that you may read")) from None
    except Malformed as problem:
        what = "\n  ".join(f"{file}: {each}" for each in problem.problems)
        hint = "ferry lab schema prints what a file may have"
        raise FerryError(Refusal(ErrorCode.MALFORMED, what, hint, problem.rule)) from None
    if topology.scale is not None and scale not in {None, topology.scale}:
        what = f"the topology file says scale {topology.scale}: leave --scale out, or say the same"
        raise typer.BadParameter(what, param_hint="--scale")
    return topology


def _resiliency_period_s(text: str | None, profile: Profile, era: Era) -> float | None:
    """What the coordinator will take; it would end at once over anything else."""
    if text is None:
        return None
    period_s = duration(text, "--resiliency-period")
    try:
        timing_of(profile.value, era, period_s)
    except ValueError as problem:
        raise typer.BadParameter(str(problem), param_hint="--resiliency-period") from None
    return period_s
