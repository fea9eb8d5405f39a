"""Starting one process of a lab, and knowing when it listens."""

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path

from ferry_cli.lab import processes
from ferry_cli.lab.state import (
    BROKER,
    COORDINATOR,
    WITNESS,
    Kind,
    Lab,
    LabNode,
    LabProcess,
    LabSpec,
    address_file,
    log_file,
)
from ferry_types.errors import FerryError, Refusal, failed

CLUSTER = "lab"
ANY_PORT = "127.0.0.1:0"
LISTENS_DEADLINE_S = 30.0
LOG_TAIL_LINES = 15
_POLL_S = 0.02


def start_broker(directory: Path) -> LabProcess:
    """Start the embedded broker."""
    return _start(directory, BROKER, Kind.BROKER, _module("ferry_coordinator.broker", listen=ANY_PORT))


def start_witness(directory: Path) -> LabProcess:
    """Start the file-share witness."""
    command = _module("ferry_witness", dir=str(directory / "witness"), listen=ANY_PORT)
    return _start(directory, WITNESS, Kind.WITNESS, command)


def start_coordinator(directory: Path, spec: LabSpec, broker: str) -> LabProcess:
    """Start the coordinator; ``broker`` is an address or empty."""
    command = _module(
        "ferry_coordinator",
        cluster=CLUSTER,
        dir=str(directory / "coordinator"),
        listen=ANY_PORT,
        profile=spec.profile,
        era=spec.era.value,
        resiliency_period="" if spec.resiliency_period_s is None else f"{spec.resiliency_period_s}s",
        broker=broker,
    )
    for network in spec.networks:
        command = (*command, "--network", network)
    return _start(directory, COORDINATOR, Kind.COORDINATOR, command)


def start_agent(directory: Path, node: LabNode, spec: LabSpec, lab: Lab) -> LabProcess:
    """Start an agent, under its watchdog, of a lab whose coordinator (and broker) listen already."""
    name = node.name
    options = {
        "name": name,
        "dir": str(directory / "nodes" / name),
        "coordinator": lab.process(COORDINATOR).address,
        "listen": ANY_PORT,
        "echo_listen": ANY_PORT,
        "broker": broker_address(lab),
        "memory": f"{spec.memory_bytes}B",
        "migration_limit": str(spec.migration_limit),
        "scale": str(spec.scale),
    }
    options |= {option: value for option, value in node.options if option in options}
    command = _module("ferry_agent.watchdog", **options)
    for option, value in node.options:
        if option not in options and value:
            command = (*command, f"--{option.replace('_', '-')}", value)
    if spec.failpoints:
        command = (*command, "--failpoints")
    if spec.trace:
        command = (*command, "--trace", str(directory / "traces" / f"{name}.trace"))
    return _start(directory, name, Kind.AGENT, command)


def start_again(directory: Path, process: LabProcess) -> LabProcess:
    """Start a process that has ended, at the addresses that it had."""
    return _start(directory, process.name, process.kind, process.command)


def broker_address(lab: Lab) -> str:
    """Where the lab's broker listens: its own or the one that was given."""
    return lab.spec.broker or lab.process(BROKER).address


async def listening(directory: Path, process: LabProcess) -> LabProcess:
    """Wait until a process listens; what is returned bears its address and keeps it in its command.

    Raises FerryError if it ends before, or does not listen in time.
    """
    path = address_file(directory, process.name)
    deadline = time.monotonic() + LISTENS_DEADLINE_S
    while not path.exists():
        check_alive(directory, process)
        if time.monotonic() >= deadline:
            raise FerryError(
                _account(directory, process, f"does not listen after {LISTENS_DEADLINE_S:.0f} s")
            )
        await asyncio.sleep(_POLL_S)
    address = path.read_text().split()[0]
    return replace(process, address=address, command=with_option(process.command, "--listen", address))


def check_alive(directory: Path, process: LabProcess) -> None:
    """Raise FerryError with the end of its log if a process that was just started has ended."""
    if processes.observe(process.identity) is processes.RunState.DEAD:
        code = processes.exit_code(process.identity)
        raise FerryError(_account(directory, process, f"ended at once (exit code {code})"))


def with_option(command: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    """The command with another value for an option that it has."""
    index = command.index(option) + 1
    return (*command[:index], value, *command[index + 1 :])


def _module(module: str, **options: str) -> tuple[str, ...]:
    # -P: a file of the user's that happens to bear a module's name is not taken for it.
    command = [sys.executable, "-P", "-m", module]
    for option, value in options.items():
        if value:
            command += [f"--{option.replace('_', '-')}", value]
    return tuple(command)


def _start(directory: Path, name: str, kind: Kind, command: tuple[str, ...]) -> LabProcess:
    path = address_file(directory, name)
    path.unlink(missing_ok=True)
    if "--address-file" not in command:
        command = (*command, "--address-file", str(path))
    identity = processes.spawn(name, command, directory, log_file(directory, name))
    return LabProcess(name, kind, command, "", identity)


def _account(directory: Path, process: LabProcess, what: str) -> Refusal:
    log = log_file(directory, process.name)
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    tail = "".join(f"\n    {line}" for line in lines)
    return failed(f"{process.name} {what}; its log {log} ends with:{tail or ' nothing'}")
