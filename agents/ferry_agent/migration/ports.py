"""What a migration needs of the host at either end, and what it tells it.

All methods are called on the event loop's thread. The host implements them with the rules of ``ferry_host``;
nothing here decides who may run a VM.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ferry_agent.guest.memory import GuestMemory
from ferry_types.errors import FerryError, Refusal
from ferry_types.limits import FRAME_PAGES_MAX, PAGE_SIZE
from ferry_types.links import MTU_STANDARD
from ferry_types.messages import MigrationProgress


class MoveFailed(FerryError):
    """The attempt is over at the source and the guest may run on there: no final copy was sent."""


class Wire(Protocol):
    """A NIC, as one lane at one end sees it: a source passes bytes before they are handed over, a target
    after they were received and before it acknowledges them.

    Both methods return once the NIC's rate allows for so many bytes, and raise FerryError when the NIC is
    down, which is the lane's death.
    """

    @property
    def frame_bytes(self) -> int:
        """How large frames should be at most."""

    @property
    def latency_s(self) -> float:
        """How late what has arrived here takes effect."""

    def rest(self) -> None:
        """What follows does not make up for a pause before it: the guest is paused, and its time counts."""

    async def pass_bytes(self, size_bytes: int) -> None:
        """For lanes over gRPC, on the event loop."""

    def pass_bytes_blocking(self, size_bytes: int) -> None:
        """For raw sockets, in a thread of the lane's own."""


WireOf = Callable[[str, int], Wire]
"""A new wire of a NIC of this host, by its name and the MTU of the way; without a name, an unshaped one."""


class UnshapedWire:
    """As fast as the machine."""

    frame_bytes = FRAME_PAGES_MAX * PAGE_SIZE
    latency_s = 0.0

    def rest(self) -> None:
        """There is nothing to make up for."""

    async def pass_bytes(self, size_bytes: int) -> None:
        """Nothing holds them up."""

    def pass_bytes_blocking(self, size_bytes: int) -> None:
        """Nothing holds them up."""


_UNSHAPED = UnshapedWire()


def unshaped(_nic_name: str, _path_mtu: int = MTU_STANDARD) -> Wire:
    """Wires of a host whose NICs have no rate."""
    return _UNSHAPED


class SourceHost(Protocol):
    """The source's host, as one outgoing move sees it."""

    def report(self, progress: MigrationProgress) -> None:
        """Take a progress report: about ten a second, and one at the end of every pass."""

    def opened(self) -> None:
        """The streams are open, and pages begin to travel."""

    async def arm(self, migration_id: str) -> None:
        """Return once the coordinator has armed the hand-off; the guest still runs. Raises FerryError."""

    async def pause(self) -> float:
        """Pause the vCPU. Returns the monotonic time at which its last quantum ended, in seconds.

        It stays paused until the move has failed or its outcome is known. Raises FerryError.
        """

    def throttle(self, percent: int) -> None:
        """Slow the guest by so much, up to 99 %; 0 lets it run at full speed again. It may be paused.

        Called only if the move's options ask for it.
        """

    def device_state(self) -> bytes:
        """The paused guest's registers, at most 64 KiB."""

    def point_of_no_return(self) -> None:
        """Permit the final copy to be sent, there and then.

        Raises FerryError if the host may not send it any more, for example because its lease lapsed or the
        move was cancelled. Once this has returned, only a committed abort may resume the guest here.
        """

    def give_up(self, reason: Refusal) -> None:
        """Say why the attempt is about to fail, before its streams end: the target only sees them end."""

    async def reach(self, name: str) -> None:
        """Pass a failpoint. Raises FerryError if it is switched to do so."""

    def is_set(self, failpoint: str) -> bool:
        """Whether reaching it will do more than pass it."""


@dataclass(frozen=True, slots=True)
class IncomingSlot:
    """Memory that the target keeps for a VM that will arrive, and who may fill it."""

    token: str = field(repr=False)
    vm: str
    epoch: int
    memory: GuestMemory


class TargetHost(Protocol):
    """The target's host, as all incoming moves see it."""

    def incoming(self, migration_id: str) -> IncomingSlot:
        """Look up the slot prepared for a move; changes nothing. Raises FerryError if there is none."""

    async def rouse(self) -> None:
        """The pause is near: renew the lease now, which takes the way of READY there and back.

        Returns once it is renewed, or that takes longer than it could gain.
        """

    def ready(self, migration_id: str, device_state: bytes) -> None:
        """All pages and the device state are here and were checked. Called at most once per move."""

    def failed(self, migration_id: str, refusal: Refusal) -> None:
        """The attempt is over, and the slot's memory may be closed.

        Called at most once per move, and never after ``ready``.
        """

    async def reach(self, name: str) -> None:
        """Pass a failpoint. Raises FerryError if it is switched to do so."""
