"""The target's side of moves: slots of memory, filled by the migration service, adopted at the commit."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ferry_agent.failpoints import Failpoints
from ferry_agent.migration.ports import IncomingSlot
from ferry_agent.rack import Image, Rack
from ferry_host import commands, inputs
from ferry_types.errors import FerryError, Refusal, not_found

ROUSE_S_MAX = 0.004
"""How long a source that is about to pause its guest waits at most for this host's lease to be renewed."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    slot: IncomingSlot
    image: Image
    """Made beforehand, with its thread, so that READY and the commit have only to let it run."""


class IncomingMoves:
    """Implements ``TargetHost`` for the migration service."""

    def __init__(
        self,
        rack: Rack,
        failpoints: Failpoints,
        submit: Callable[[inputs.Event], None],
        renew_lease: Callable[[], Awaitable[None]],
    ) -> None:
        """``renew_lease`` returns once it is renewed; without the coordinator it may take for ever."""
        self._rack = rack
        self._renew_lease = renew_lease
        self._failpoints = failpoints
        self._submit = submit
        self._arrivals: dict[str, _Arrival] = {}
        self.on_drop: Callable[[str], None] = lambda _migration_id: None
        """Told of every dropped move, to end its streams."""

    # --- commands of the core ---------------------------------------------------------------------

    def allocate(self, command: commands.AllocateIncoming) -> None:
        """Map memory for an arriving VM; its pages appear as they are written."""
        try:
            memory = self._rack.map_memory(command.spec)
        except FerryError as error:
            self._submit(inputs.IncomingFailed(command.migration_id, error.refusal))
            return
        slot = IncomingSlot(command.token, command.spec.name, command.epoch, memory)
        self._arrivals[command.migration_id] = _Arrival(slot, self._rack.expect(command.spec, memory))
        self._submit(inputs.IncomingAllocated(command.migration_id))

    def drop(self, migration_id: str) -> None:
        """Forget an arriving VM and free its memory."""
        arrival = self._arrivals.pop(migration_id, None)
        if arrival is None:
            return
        self.on_drop(migration_id)
        arrival.image.vcpu.stop()
        arrival.slot.memory.close()

    def adopt(self, command: commands.AdoptIncoming) -> None:
        """The arrived image becomes a VM of this host; its vCPU does not run yet."""
        image = self._arrivals.pop(command.migration_id).image
        image.take_over()
        self._rack.add(image)

    def close(self) -> None:
        """Drop everything."""
        for migration_id in list(self._arrivals):
            self.drop(migration_id)

    # --- TargetHost -------------------------------------------------------------------------------

    def incoming(self, migration_id: str) -> IncomingSlot:
        """Look up a slot. Raises FerryError if there is none."""
        arrival = self._arrivals.get(migration_id)
        if arrival is None:
            raise FerryError(not_found(f"no move {migration_id} is expected here"))
        return arrival.slot

    async def rouse(self) -> None:
        """Renew the lease, so that all that READY will pass has just done the like of it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROUSE_S_MAX):
                await self._renew_lease()

    def ready(self, migration_id: str, device_state: bytes) -> None:
        """Check the device state and tell the core."""
        image = self._arrivals[migration_id].image
        try:
            image.arrive(device_state)
        except FerryError as error:
            self.failed(migration_id, error.refusal)
            return
        self._submit(inputs.IncomingComplete(migration_id))
        # READY goes out first, in the event loop's next turn.
        asyncio.get_running_loop().call_soon(image.take_over)

    def failed(self, migration_id: str, refusal: Refusal) -> None:
        """Tell the core, which drops the slot."""
        self._submit(inputs.IncomingFailed(migration_id, refusal))

    async def reach(self, name: str) -> None:
        """Pass a failpoint."""
        await self._failpoints.reach(name)
