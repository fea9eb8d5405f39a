"""The target's side of moves: slots of memory, filled by the migration service, adopted at the commit."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from ferry_agent.failpoints import Failpoints
from ferry_agent.guest.registers import Registers
from ferry_agent.migration.ports import IncomingSlot
from ferry_agent.rack import Image, Rack
from ferry_host import commands, inputs
from ferry_types.errors import FerryError, Refusal, not_found
from ferry_types.vms import VmSpec

READY_HEAD_START_S = 0.0003
"""What READY gets to leave this process, before the guest's thread is started: about half a round trip."""


@dataclass(slots=True)
class _Arrival:
    slot: IncomingSlot
    spec: VmSpec
    registers: Registers | None = None
    """The device state, at READY."""
    image: Image | None = None
    """Made right after READY, so that the commit has only to let it run."""


class IncomingMoves:
    """Implements ``TargetHost`` for the migration service."""

    def __init__(self, rack: Rack, failpoints: Failpoints, submit: Callable[[inputs.Event], None]) -> None:
        self._rack = rack
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
        self._arrivals[command.migration_id] = _Arrival(slot, command.spec)
        self._submit(inputs.IncomingAllocated(command.migration_id))

    def drop(self, migration_id: str) -> None:
        """Forget an arriving VM and free its memory."""
        arrival = self._arrivals.pop(migration_id, None)
        if arrival is None:
            return
        self.on_drop(migration_id)
        if arrival.image is not None:
            arrival.image.vcpu.stop()
        arrival.slot.memory.close()

    def adopt(self, command: commands.AdoptIncoming) -> None:
        """The arrived image becomes a VM of this host; its vCPU does not run yet."""
        self._make_image(command.migration_id)
        image = self._arrivals.pop(command.migration_id).image
        if image is None:
            raise AssertionError(f"{command.vm} was adopted before it was ready")
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

    def ready(self, migration_id: str, device_state: bytes) -> None:
        """Check the device state and tell the core."""
        arrival = self._arrivals[migration_id]
        spec = arrival.spec
        try:
            arrival.registers = self._rack.load_registers(spec, device_state)
        except FerryError as error:
            self.failed(migration_id, error.refusal)
            return
        self._submit(inputs.IncomingComplete(migration_id))
        # READY goes out first; the guest is made while the coordinator commits.
        loop = asyncio.get_running_loop()
        loop.call_later(READY_HEAD_START_S, self._make_image, migration_id)

    def _make_image(self, migration_id: str) -> None:
        arrival = self._arrivals.get(migration_id)
        if arrival is not None and arrival.image is None and arrival.registers is not None:
            arrival.image = self._rack.restore(arrival.spec, arrival.slot.memory, arrival.registers)

    def failed(self, migration_id: str, refusal: Refusal) -> None:
        """Tell the core, which drops the slot."""
        self._submit(inputs.IncomingFailed(migration_id, refusal))

    async def reach(self, name: str) -> None:
        """Pass a failpoint."""
        await self._failpoints.reach(name)
