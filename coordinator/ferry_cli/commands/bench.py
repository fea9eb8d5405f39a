"""``ferry bench``: how fast, and against whom."""

from typing import Annotated

import typer

from ferry_cli import interrupts
from ferry_cli.options import OutputOption, size
from ferry_cli.output import Output, print_document, say, tell
from ferry_types.errors import FerryError, malformed
from ferry_types.limits import PAGE_SIZE, VM_MEMORY_BYTES_MIN
from ferry_types.migrations import TransportOption
from ferry_types.workloads import PROFILES

app = typer.Typer(help="Measurements.")


@app.callback()
def bench() -> None:
    """Measurements."""


@app.command("migrate")
def bench_migrate(
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of the VM that moves.")] = "1GiB",
    fill: Annotated[str, typer.Option(metavar="zero|random|FILE", help="What the memory holds.")] = "random",
    workload: Annotated[
        str, typer.Option(metavar="|".join(PROFILES), help="What the guest does meanwhile.")
    ] = "idle",
    option: Annotated[TransportOption, typer.Option(help="How memory is sent.")] = TransportOption.TCPIP,
    runs: Annotated[int, typer.Option(min=1, max=10_000, help="Moves that count.")] = 5,
    against: Annotated[
        str,
        typer.Option(metavar="PEER,...", help="Others: qemu, qemu-multifd, grpc, grpc-2, grpc-4, socket."),
    ] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Move a VM back and forth between two hosts, in turn with others that move the same bytes.

    One stopwatch for all, and the least that a black-out can cost measured in the same run. PowerShell has no
    such cmdlet (Measure-Command around Move-VM comes close).
    """
    from ferry_cli.bench import document
    from ferry_cli.bench.migrate import measure

    memory_bytes = size(memory, "--memory")
    if memory_bytes < VM_MEMORY_BYTES_MIN or memory_bytes % PAGE_SIZE:
        raise typer.BadParameter(
            f"{memory} is not a multiple of {PAGE_SIZE} bytes, or less than 4 MiB", param_hint="--memory"
        )
    if workload not in PROFILES:
        raise FerryError(
            malformed(f"there is no workload {workload!r}", f"choose from {', '.join(PROFILES)}")
        )
    question = document.Question(memory_bytes, fill, workload, option.value)
    result = document.document(question, *interrupts.run(measure(question, runs, against, say)))
    if output is Output.JSON:
        print_document(result)
    else:
        for line in document.lines(result):
            tell(line)
