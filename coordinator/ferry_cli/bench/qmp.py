"""A QEMU that is spoken to over its standard streams, in the QEMU Machine Protocol (`-qmp stdio`)."""

import json
from collections import deque
from typing import Any

from ferry_cli.bench.children import Child
from ferry_types.errors import FerryError, failed


class Qmp:
    """One QEMU's monitor. One caller at a time."""

    def __init__(self, qemu: Child) -> None:
        self._qemu = qemu
        self._events: deque[dict[str, Any]] = deque()

    @property
    def pid(self) -> int:
        """Of the QEMU."""
        return self._qemu.pid

    async def open(self) -> None:
        """Wait for the greeting and leave the negotiation. Raises FerryError."""
        await self._message()
        await self.execute("qmp_capabilities")

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> dict[str, Any]:
        """What the command returns. Raises FerryError if QEMU refuses it or has ended."""
        await self._qemu.say(json.dumps({"execute": command, "arguments": arguments or {}}))
        while True:
            message = await self._message()
            if "event" in message:
                self._events.append(message)
            elif "return" in message:
                returned: dict[str, Any] = message["return"]
                return returned
            else:
                raise FerryError(failed(f"{self._qemu.name} refused {command}: {message['error']['desc']}"))

    async def migration_end(self) -> None:
        """Wait for the event that the migration is complete on this side. Raises FerryError if it failed."""
        while True:
            message = self._events.popleft() if self._events else await self._message()
            match message:
                case {"event": "MIGRATION", "data": {"status": "completed"}}:
                    return
                case {"event": "MIGRATION", "data": {"status": "failed" | "cancelled" as status}}:
                    raise FerryError(failed(f"{self._qemu.name} says that the migration {status}"))

    async def _message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._qemu.hear())
        return message
