"""The agent's end of its watchdog: who it is, and signs of life as long as its event loop turns."""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Final

import structlog

from ferry_agent.watchdog import FEED_VARIABLE

FEED_INTERVAL_S: Final = 0.25

PATIENCE_LEASES: Final = 5
"""Lengths of a lease after which a silent agent is killed (rule C2)."""

_log = structlog.get_logger("watchdog")


class Feeder:
    """Writes lines of JSON to the watchdog: first who lives here, from then on signs of life."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_inheritable(descriptor, False)
        # A watchdog that is stopped must not stop the event loop: what does not fit is left out.
        os.set_blocking(descriptor, False)

    async def run(
        self, node: str, incarnation: str, coordinator: str, patience_s: Callable[[], float | None]
    ) -> None:
        """Feed until cancelled, or until the watchdog is gone.

        ``patience_s``: for how long the watchdog shall bear silence from now on, None as long as that is not
        known.
        """
        try:
            self._write({"node": node, "incarnation": incarnation, "coordinator": coordinator})
            while True:
                known_s = patience_s()
                self._write({} if known_s is None else {"patience_s": known_s})
                await asyncio.sleep(FEED_INTERVAL_S)
        except BrokenPipeError:
            _log.warning("the watchdog is gone: nobody will certify the death of this agent")

    def _write(self, line: dict[str, object]) -> None:
        try:
            os.write(self._descriptor, json.dumps(line).encode() + b"\n")
        except BlockingIOError:
            return


def given_feeder() -> Feeder | None:
    """The feeder of the watchdog that started this process, if one did."""
    descriptor = os.environ.pop(FEED_VARIABLE, None)
    return None if descriptor is None else Feeder(int(descriptor))
