"""A host's NIC or team, with the traffic of all its moves and services going through it.

Rates, limits and what has passed are in emulated units; lanes and wires are as slow, and bytes on them as
few, as they really are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ferry_agent.network.side import Side
from ferry_agent.network.wire import Wire
from ferry_host.scale import UNSCALED, Scale
from ferry_host.shaping.lane import Lane
from ferry_host.shaping.policies import ClassPolicy
from ferry_types.errors import FerryError, not_found
from ferry_types.links import MTU_MAX, TrafficClass, joint_rate_bytes_per_s
from ferry_types.networks import Nic, TeamMode


@dataclass(frozen=True, slots=True)
class Passed:
    """Payload bytes that went through a NIC since the start, and seconds for which it was busy with them.

    A link without a rate is never busy.
    """

    nic: str
    sent_bytes: int
    received_bytes: int
    sending_s: float
    receiving_s: float


class Adapter:
    """One NIC, or a team that is used as one. It carries both directions at full rate at once.

    Its wires are used from any thread; the adapter itself is switched on one.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Nic],
        policies: Mapping[TrafficClass, ClassPolicy],
        mode: TeamMode = TeamMode.STATIC,
        scale: Scale = UNSCALED,
    ) -> None:
        """``members``: the NIC, or those of the team, valid as ``nics_problem`` tells.

        Limits and weights hold in each direction. Raises ValueError if weights add up to more than 100.
        """
        self.name = name
        self.rate_bytes_per_s = joint_rate_bytes_per_s(nic.rate_bytes_per_s for nic in members)
        """Of all members together; 0: without bound."""
        self._latency_s = max(nic.latency_s for nic in members)
        self._scale = scale
        real = [scale.real_nic(nic) for nic in members]
        real_policies = {
            kind: replace(policy, limit_bytes_per_s=scale.real_rate(policy.limit_bytes_per_s))
            for kind, policy in policies.items()
        }
        self._sending = Side(name, Lane(real, real_policies, mode))
        self._receiving = Side(name, Lane(real, real_policies, mode, receiving=True))

    def sending(self, flow: str, traffic_class: TrafficClass, path_mtu: int = MTU_MAX) -> Wire:
        """A wire out of this host. ``flow`` names the stream: in a static team it chooses the member.

        ``path_mtu`` is the smallest MTU on the way, as far as it is known; the members' own count in any
        case.
        """
        return Wire(self._sending, self._sending.lane.flow(flow, traffic_class, path_mtu), 0.0)

    def receiving(self, flow: str, traffic_class: TrafficClass, path_mtu: int = MTU_MAX) -> Wire:
        """A wire into this host, otherwise like ``sending``. It is as late as the slowest member."""
        return Wire(
            self._receiving, self._receiving.lane.flow(flow, traffic_class, path_mtu), self._latency_s
        )

    def limit(self, traffic_class: TrafficClass, limit_bytes_per_s: float) -> None:
        """Give a class another limit in each direction, 0: none, also on wires in use. Raises ValueError."""
        for side in (self._sending, self._receiving):
            side.limit(traffic_class, self._scale.real_rate(limit_bytes_per_s))

    def down(self, member: str = "") -> None:
        """Take down a member of a team, whose traffic moves to the others, or the whole NIC.

        With the last one whoever waits on a wire gets FerryError. Raises FerryError (not found) for a name
        that is no member's.
        """
        self._switch(member, Side.take_down)

    def up(self, member: str = "") -> None:
        """Bring up a member of a team, or the whole NIC. Raises FerryError (not found)."""
        self._switch(member, Side.bring_up)

    def _switch(self, member: str, switch: Callable[[Side, str], None]) -> None:
        names = [each.name for each in self._sending.lane.members]
        if member and member not in names:
            raise FerryError(not_found(f"{self.name} has no NIC {member!r}", f"it has {', '.join(names)}"))
        for name in [member] if member else names:
            for side in (self._sending, self._receiving):
                switch(side, name)

    def passed(self) -> Iterator[Passed]:
        """What each member has passed so far. May be read from any thread."""
        for out, into in zip(self._sending.lane.members, self._receiving.lane.members, strict=True):
            sent_bytes, received_bytes = map(self._scale.emulated, (out.passed_bytes, into.passed_bytes))
            yield Passed(out.name, sent_bytes, received_bytes, out.busy_s, into.busy_s)
