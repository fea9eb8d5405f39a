"""Option ``tcpip``: one gRPC bulk stream. Its end is the attempt's."""

from typing import Final

from ferry_agent.migration.transports.grpc_transport import GrpcTransport
from ferry_agent.migration.transports.transport import AttemptParts, PassKind
from ferry_types.errors import Refusal
from ferry_types.limits import FRAME_PAGES_MAX

LAST_FRAMES_SMALLER: Final = 8
"""By so much are frames of the last pages smaller on a NIC that is too slow for whole ones: a millisecond on
the wire, instead of eight. It is busy sooner after the pause, and what comes last is sooner written. On a
faster NIC so many more frames would take longer than the wire."""


class OneLane(GrpcTransport):
    """A single bulk stream over the best route, also of option ``compression``."""

    def _on_death(self, reason: Refusal) -> None:
        self._breakage.break_off(reason)

    async def _replace_dead(self) -> None:
        self._breakage.raise_if_broken()

    async def settle_last(self) -> None:
        """Nothing to wait for: what was handed over arrives, or the attempt ends. Saves a round trip."""


class TcpipTransport(OneLane):
    """Pages as they are."""

    def __init__(self, parts: AttemptParts) -> None:
        super().__init__(parts)
        self._smaller = 1
        """By so much are frames of this pass smaller than the NICs ask for."""

    @property
    def frame_pages(self) -> int:
        """By the slower NIC at either end, and small in the pause."""
        return max(1, super().frame_pages // self._smaller)

    @property
    def window_frames(self) -> int:
        """As many bytes of small frames as of others: a NIC with latency acknowledges them no sooner."""
        return super().window_frames * self._smaller

    def begin_pass(self, kind: PassKind) -> None:
        """All passes are alike but for the size of frames."""
        super().begin_pass(kind)
        is_small = kind is PassKind.LAST and super().frame_pages < FRAME_PAGES_MAX
        self._smaller = LAST_FRAMES_SMALLER if is_small else 1
