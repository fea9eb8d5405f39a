"""Processes of the operating system, told apart by more than a number that is used again.

A lab's processes outlive the command that started them, so nobody holds a handle on them. Each is known by
its process ID together with its start time and the machine's boot, and bears a mark in its environment by
which it is found even if all notes about it are lost.
"""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

MARK = "HYPERFERRY_LAB_PROCESS"
"""Environment variable of every lab process: ``NAME@DIRECTORY``."""

POLL_S = 0.01
_SETTINGS_PREFIX = "FERRY_"


class RunState(StrEnum):
    """What the operating system says of a process."""

    RUNNING = "running"
    STOPPED = "stopped"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, never another one that got its number later. ``start_ticks`` since boot, from /proc."""

    pid: int
    start_ticks: int
    boot_id: str


_children: dict[int, subprocess.Popen[bytes]] = {}
"""Processes that this one started: they stay zombies until their parent has asked for their exit code."""


def spawn(name: str, command: Sequence[str], directory: Path, log: Path) -> ProcessIdentity:
    """Start a process in a session of its own, out of reach of the terminal's signals.

    Its output is appended to ``log``. It inherits no ``FERRY_*`` variable: it is what its command says.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(_SETTINGS_PREFIX)}
    environment[MARK] = f"{name}@{directory}"
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
    _children[child.pid] = child
    # The child cannot have been reaped yet, so that its entry in /proc is there even if it has ended.
    return ProcessIdentity(child.pid, int(_stat(child.pid)[19]), _boot_id())


def exit_code(identity: ProcessIdentity) -> int | None:
    """How a process ended that this one started, if it has; negative: the signal that killed it."""
    child = _children.get(identity.pid)
    return None if child is None else child.poll()


def observe(identity: ProcessIdentity) -> RunState:
    """Whether that very process is there, and runs."""
    if identity.pid in _children:
        _children[identity.pid].poll()
    try:
        fields = _stat(identity.pid)
    except OSError:
        return RunState.DEAD
    if int(fields[19]) != identity.start_ticks or identity.boot_id != _boot_id() or fields[0] in "ZX":
        return RunState.DEAD
    return RunState.STOPPED if fields[0] in "Tt" else RunState.RUNNING


def send_signal(identity: ProcessIdentity, number: signal.Signals) -> bool:
    """Send a signal to that very process. False if it is not there any more."""
    try:
        handle = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return False
    try:
        # Looked at after the handle was opened: from here on the number cannot go to another process.
        if observe(identity) is RunState.DEAD:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


async def await_state(identities: Iterable[ProcessIdentity], wanted: RunState, deadline_s: float) -> bool:
    """Wait until all processes are in that state. False if some are not when the time is over."""
    waiting = list(identities)
    deadline = time.monotonic() + deadline_s
    while waiting := [identity for identity in waiting if observe(identity) is not wanted]:
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


def find_marked(directory: Path) -> list[tuple[str, ProcessIdentity]]:
    """Name and identity of every process that bears the mark of the lab in ``directory``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            fields = _stat(int(entry.name))
        except OSError:
            continue  # it has ended, or is somebody else's
        for item in environment.split(b"\0"):
            key, _, value = item.partition(b"=")
            name, _, marked = os.fsdecode(value).partition("@")
            if key == MARK.encode() and marked == str(directory) and fields[0] not in "ZX":
                found.append((name, ProcessIdentity(int(entry.name), int(fields[19]), _boot_id())))
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command's name: state first, start time at 19 (man 5 proc)."""
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
