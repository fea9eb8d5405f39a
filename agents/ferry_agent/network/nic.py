"""A host's NICs and teams, with the traffic of all its moves and services going through them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ferry_agent.network.side import Side
from ferry_agent.network.wire import Wire
from ferry_host.shaping.adapters import ClassPolicy, Distribution, NicSpec, TeamSpec
from ferry_host.shaping.lane import Lane, Member, Share
from ferry_types.errors import FerryError, not_found
from ferry_types.links import MTU_BYTES_MAX, TrafficClass

Listener: TypeAlias = Callable[[bool], None]


@dataclass(frozen=True, slots=True)
class Passed:
    """Payload bytes that went through since the start, and seconds for which the link was busy with them.

    A link without a rate is never busy.
    """

    sent_bytes: int
    received_bytes: int
    sending_s: float
    receiving_s: float


@dataclass(frozen=True, slots=True)
class MemberFigures:
    """One NIC: of a team, or the only one."""

    name: str
    up: bool
    passed: Passed


@dataclass(frozen=True, slots=True)
class NicFigures:
    """A NIC or team at one moment. A team's seconds are those of all its members together."""

    name: str
    up: bool
    members: tuple[MemberFigures, ...]
    classes: dict[TrafficClass, Passed]


class Nic:
    """One NIC, or a team that is used as one. It carries both directions at full rate at once.

    Its wires are used from any thread; the NIC itself is switched and listened to on one.
    """

    def __init__(self, spec: NicSpec | TeamSpec, policies: Mapping[TrafficClass, ClassPolicy]) -> None:
        """Limits and weights hold in each direction. Raises ValueError if weights add up to more than 100."""
        members, distribution = (
            (spec.members, spec.distribution)
            if isinstance(spec, TeamSpec)
            else ((spec,), Distribution.STATIC)
        )
        self.spec = spec
        self._sending = Side(spec.name, Lane(members, policies, distribution))
        self._receiving = Side(spec.name, Lane(members, policies, distribution, receiving=True))
        self._listeners: dict[object, Listener] = {}

    def sending(self, flow: str, traffic_class: TrafficClass, path_mtu_bytes: int = MTU_BYTES_MAX) -> Wire:
        """A wire out of this host. ``flow`` names the stream: in a static team it chooses the member.

        ``path_mtu_bytes`` is the smallest MTU on the way, as far as it is known; this NIC's own counts in any
        case.
        """
        lane = self._sending.lane
        return Wire(self._sending, lane.flow(flow, traffic_class, path_mtu_bytes), 0.0)

    def receiving(self, flow: str, traffic_class: TrafficClass, path_mtu_bytes: int = MTU_BYTES_MAX) -> Wire:
        """A wire into this host, otherwise like ``sending``."""
        lane = self._receiving.lane
        return Wire(self._receiving, lane.flow(flow, traffic_class, path_mtu_bytes), self.spec.latency_s)

    @property
    def is_up(self) -> bool:
        """Whether any member is."""
        return self._sending.lane.is_up

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
            raise FerryError(
                not_found(f"{self.spec.name} has no NIC {member!r}", f"it has {', '.join(names)}")
            )
        was_up = self.is_up
        for name in [member] if member else names:
            for side in (self._sending, self._receiving):
                switch(side, name)
        if self.is_up != was_up:
            for listener in list(self._listeners.values()):
                listener(not was_up)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have ``listener`` told, by whoever switches, that the NIC or the whole team is up or not any more.

        Returns what ends it.
        """
        key = object()
        self._listeners[key] = listener

        def end() -> None:
            self._listeners.pop(key, None)

        return end

    def figures(self) -> NicFigures:
        """What has passed so far."""
        sending, receiving = self._sending.lane, self._receiving.lane
        return NicFigures(
            self.spec.name,
            self.is_up,
            tuple(
                MemberFigures(out.name, out.up, _passed(out, into))
                for out, into in zip(sending.members, receiving.members, strict=True)
            ),
            {kind: _passed(sending.shares[kind], receiving.shares[kind]) for kind in TrafficClass},
        )


def _passed(sending: Member | Share, receiving: Member | Share) -> Passed:
    return Passed(sending.passed_bytes, receiving.passed_bytes, sending.busy_s, receiving.busy_s)
