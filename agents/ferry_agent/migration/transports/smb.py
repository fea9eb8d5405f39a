"""Option ``smb``, after SMB multichannel: several gRPC bulk streams, over one or more routes.

A lane that dies costs time, not the move. What it had in flight may have been written, may be about to be,
or may never arrive; and a page that is on its way must not overwrite a later copy of itself, which another
lane brought. So the source has the target end the lane, over the control stream. The target answers once the
lane's handler has ended, with the number of frames that it has written: nothing of that lane moves any more,
and what lies behind that number goes to the others. Those pages are read from memory again, so that no frame
has to be kept; what the guest wrote meanwhile bears a mark.

Between passes all lanes are settled, so that copies of one page never race in two lanes.
"""

from ferry_agent.migration.transports.grpc_lane import GrpcLane
from ferry_agent.migration.transports.grpc_transport import GrpcTransport
from ferry_agent.migration.transports.transport import AttemptParts
from ferry_types.errors import FerryError, Refusal, failed


class SmbTransport(GrpcTransport):
    """Goes on as long as one lane lives."""

    def __init__(self, parts: AttemptParts) -> None:
        super().__init__(parts)
        self._close_lane = parts.close_lane

    def _on_death(self, reason: Refusal) -> None:
        if not self._living:
            self._breakage.break_off(reason)

    async def _replace_dead(self) -> None:
        while dead := [lane for lane in self._lanes if lane.dead is not None]:
            self._breakage.raise_if_broken()
            await self._take_over(dead[0])

    async def _take_over(self, lane: GrpcLane) -> None:
        frames_written = await self._close_lane(lane.number)
        await lane.close()
        frames_acked = lane.frames_posted - len(lane.in_flight)  # only now: acknowledgements went on coming
        if not frames_acked <= frames_written <= lane.frames_posted:
            raise FerryError(
                failed(
                    f"the target wrote {frames_written} frames of a lane on which {lane.frames_posted} were "
                    f"sent and {frames_acked} acknowledged"
                )
            )
        for _ in range(frames_written - frames_acked):
            self.tally.bytes_acked += lane.in_flight.popleft().size_bytes
        for shipment in lane.in_flight:
            self.tally.remove(shipment.pages, shipment.checksum)
            if shipment.pages:
                self._due.append((shipment.page_indices, shipment.zero_indices))
        self._lanes.remove(lane)

    async def settle_last(self) -> None:
        """Wait for everything: a lane may die after the end was announced, and must not cost the move."""
        await self.settle()
