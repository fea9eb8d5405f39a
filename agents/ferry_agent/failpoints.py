"""Named places in a move where tests, from outside, make an agent wait, fail or die.

    source.connecting  copying  arming  paused  final_sent                                       releasing
    target.preparing   receiving              before_ready  committed  raised

``target.committed``: the order to run has come, the epoch is not raised yet; ``target.raised``: it is, and
the first quantum has not run.
"""

import asyncio
import os
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ferry_types.errors import FerryError, failed, malformed

NAMES: Final = (
    "source.connecting",
    "source.copying",
    "source.arming",
    "source.paused",
    "source.final_sent",
    "source.releasing",
    "target.preparing",
    "target.receiving",
    "target.before_ready",
    "target.committed",
    "target.raised",
)


class Action(StrEnum):
    """What happens to whoever reaches a failpoint."""

    OFF = "off"
    HOLD = "hold"
    """Wait until it is switched to something else, and then do that."""
    ERROR = "error"
    """Raise FerryError."""
    CRASH = "crash"
    """SIGKILL to the process itself."""


@dataclass(frozen=True, slots=True)
class Failpoint:
    """How one failpoint stands."""

    name: str
    action: Action
    reached: int
    """Times that it was reached since the start."""
    holding: bool
    """Whether something waits here now."""


@dataclass(slots=True)
class _Switch:
    action: Action = Action.OFF
    reached: int = 0
    waiting: int = 0
    turned: asyncio.Event = field(default_factory=asyncio.Event)


class Failpoints:
    """All failpoints of an agent. Use it from one event loop."""

    def __init__(self, *, enabled: bool) -> None:
        """Unless ``enabled``, reaching one costs nothing and does nothing."""
        self.enabled = enabled
        self._switches = {name: _Switch() for name in NAMES}

    def set(self, name: str, action: str) -> None:
        """Switch a failpoint. Raises FerryError (malformed) for a name or an action that does not exist."""
        switch = self._switches.get(name)
        if switch is None:
            raise FerryError(malformed(f"there is no failpoint {name!r}", f"there are {', '.join(NAMES)}"))
        if action not in set(Action):
            raise FerryError(malformed(f"{action!r} is no action", f"use one of {', '.join(Action)}"))
        switch.action = Action(action)
        switch.turned.set()
        switch.turned = asyncio.Event()

    def list(self) -> tuple[Failpoint, ...]:
        """How all of them stand."""
        return tuple(
            Failpoint(name, switch.action, switch.reached, switch.waiting > 0)
            for name, switch in self._switches.items()
        )

    def is_set(self, name: str) -> bool:
        """Whether something will happen when it is reached."""
        return self._switches[name].action is not Action.OFF

    async def reach(self, name: str) -> None:
        """Pass a failpoint, or have happen what it is switched to. Raises FerryError for ``error``."""
        if not self.enabled:
            return
        switch = self._switches[name]
        switch.reached += 1
        while switch.action is Action.HOLD:
            switch.waiting += 1
            try:
                await switch.turned.wait()
            finally:
                switch.waiting -= 1
        if switch.action is Action.CRASH:
            os.kill(os.getpid(), signal.SIGKILL)
        if switch.action is Action.ERROR:
            raise FerryError(failed(f"failpoint {name} is switched to error", "switch it off"))
