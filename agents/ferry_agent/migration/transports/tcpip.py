"""Option ``tcpip``: one gRPC bulk stream. Its end is the attempt's."""

from ferry_agent.migration.transports.grpc_transport import GrpcTransport
from ferry_types.errors import Refusal


class TcpipTransport(GrpcTransport):
    """One lane, over the best route."""

    def _on_death(self, reason: Refusal) -> None:
        self._breakage.break_off(reason)

    async def _replace_dead(self) -> None:
        self._breakage.raise_if_broken()

    async def settle_last(self) -> None:
        """Nothing to wait for: what was handed over arrives, or the attempt ends. Saves a round trip."""
