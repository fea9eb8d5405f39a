"""``python -m ferry_agent.watchdog``, which ``ferry agent run`` executes: an agent's parent (rules C1, C2).

It starts the agent with its own arguments, kills it when it falls silent, reaps it and everything that it has
left behind, and only then certifies its death to the coordinator, which need not wait for the lease to run
out. It knows which life it certifies from a pipe that only its own child has: a watchdog that was started
again knows of no earlier agent and certifies none.

As long as the agent lives this process needs nothing but the standard library, and 14 MB.
"""

import ctypes
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FEED_VARIABLE: Final = "FERRY_WATCHDOG_FEED"
"""Number of the descriptor that the agent writes its signs of life to; absent without a watchdog."""

LOOK_INTERVAL_S: Final = 0.5

PATIENCE_S_DEFAULT: Final = 60.0
"""Silence that is borne of an agent that has not said how long its lease is: it is starting, or has no
coordinator yet."""

CERTIFY_S_MAX: Final = 60.0
"""For how long a coordinator that is away is tried; by then leases have run out nearly everywhere."""

_READ_BYTES = 65_536
_REAP_POLL_S = 0.005
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclass(slots=True)
class Life:
    """What the agent has said of itself."""

    node: str = ""
    incarnation: str = ""
    coordinator: str = ""
    patience_s: float = PATIENCE_S_DEFAULT

    def hear(self, line: bytes) -> None:
        """Take a line of the feed."""
        for key, value in json.loads(line).items():
            setattr(self, key, value)


class Watchdog:
    """One agent, from its start to its certificate."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._agent: subprocess.Popen[bytes] | None = None
        self._told_to_stop = False
        self._life = Life()
        self._rest = b""
        self._silent_s = 0.0
        """Counts only while this process runs: a machine that stood still has starved nobody."""
        self._starved = False

    def run(self) -> int:
        """See to the agent until it has ended and its death is certified. Returns what a shell would."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        feed, given = os.pipe()
        environment = {**os.environ, FEED_VARIABLE: str(given)}
        self._agent = subprocess.Popen(self._command, env=environment, pass_fds=(given,))
        os.close(given)
        if self._told_to_stop:
            self._stop()
        self._look_after(self._agent, feed)
        code = self._agent.wait()
        _end_orphans()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if self._life.incarnation:
            self._certify(code)
        return code if code >= 0 else 128 - code

    def _stop(self) -> None:
        self._told_to_stop = True
        if self._agent is not None:
            self._agent.terminate()

    def _look_after(self, agent: "subprocess.Popen[bytes]", feed: int) -> None:
        """Return once the agent has ended, and all that it said has been heard."""
        death = os.pidfd_open(agent.pid)
        waiting = select.poll()
        waiting.register(death, select.POLLIN)
        waiting.register(feed, select.POLLIN)
        dead = False
        while not dead:
            began_at_s = time.monotonic()
            ready = {descriptor for descriptor, _ in waiting.poll(LOOK_INTERVAL_S * 1000)}
            dead = death in ready
            if feed not in ready:
                self._starve(agent, min(time.monotonic() - began_at_s, 2 * LOOK_INTERVAL_S))
            elif not self._hear(feed):
                waiting.unregister(feed)
        os.set_blocking(feed, False)
        with suppress(BlockingIOError):
            while self._hear(feed):
                pass
        os.close(feed)
        os.close(death)

    def _hear(self, feed: int) -> bool:
        """Take what is in the pipe. False at its end."""
        read = os.read(feed, _READ_BYTES)
        *lines, self._rest = (self._rest + read).split(b"\n")
        for line in lines:
            self._life.hear(line)
        self._silent_s = 0.0
        return bool(read)

    def _starve(self, agent: "subprocess.Popen[bytes]", silent_s: float) -> None:
        self._silent_s += silent_s
        if self._silent_s > self._life.patience_s and not self._starved:
            self._starved = True
            agent.kill()

    def _certify(self, code: int) -> None:
        # Imported only now: 30 MB and a third of a second that no living host has to pay for.
        certificate = importlib.import_module("ferry_agent.certificate")
        # Who stops a host on purpose may be about to stop the coordinator too: it is asked once.
        duration_s = 0.0 if self._told_to_stop else CERTIFY_S_MAX
        certified = certificate.deliver(
            self._life.coordinator,
            self._life.node,
            self._life.incarnation,
            self._cause(code),
            duration_s,
            ordered=self._told_to_stop,
        )
        outcome = "certified" if certified else "not certified, as no coordinator took it"
        sys.stderr.write(f"watchdog: {self._life.node}'s agent is dead: {self._cause(code)}; {outcome}\n")

    def _cause(self, code: int) -> str:
        if self._starved:
            return f"it was silent for {self._life.patience_s:g} s and was killed for it"
        if code < 0:
            return f"it was killed by {signal.Signals(-code).name}"
        return "it was told to stop" if self._told_to_stop else f"it ended with exit code {code}"


def _end_orphans() -> None:
    """Kill and reap every process that the agent has left; as a subreaper this one has inherited them."""
    while True:
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            reaped, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not reaped:
            time.sleep(_REAP_POLL_S)


def _children() -> list[int]:
    children = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    children.append(int(entry.name))
    return children


def main() -> None:
    """Run an agent with the arguments of this process, and end as it does."""
    sys.exit(Watchdog((sys.executable, "-P", "-m", "ferry_agent", *sys.argv[1:])).run())


if __name__ == "__main__":
    main()
