"""Running a command to its end, also when somebody interrupts it."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EXIT_CODE_INTERRUPTED = 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command in an event loop of its own.

    The first SIGINT, SIGTERM or SIGHUP cancels it; later ones change nothing, so that nobody can break
    into its tidying up. Raises KeyboardInterrupt if it was interrupted and did not finish by itself.
    """
    try:
        return asyncio.run(_cancellable(main))
    except _Interrupted:
        raise KeyboardInterrupt from None


class _Interrupted(Exception):
    """On its way out of the event loop, which a KeyboardInterrupt would tear."""


async def _cancellable(main: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(main)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted:
            raise _Interrupted from None
        raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
