"""One direction of a NIC or team: what passes next, and when it has passed.

A lane is a schedule on virtual time. A flow asks to pass some bytes; the lane grants them in pieces, one
after the other on each member, and knows of every piece when it starts and ends at the link's rate. It is
carried forward to the present whenever somebody looks (``advance``), so that a late look changes nothing of
what was queued.

Which piece is next: classes share by weight, and the flows of a class equally, each by start-time fair
queueing (Goyal, Vin and Cheng, SIGCOMM 1996): whoever has had the least so far, and who comes back has saved
nothing up. It needs no quanta, as deficit round robin does: a small frame of a class that is not busy waits
for no more than the piece on the wire.

A stream that hands over one frame after the other is woken late after each, and busy in between. So a lane
that waited for its next bytes for less than ``STALL_S`` counts up to ``BURST_S`` of that as if they had been
there. In any interval of t seconds it passes at most ``rate * (t + BURST_S)`` bytes, and a piece; a receiving
lane also its largest frame (see ``Lane``). After a longer rest nothing is made up for. Classes likewise: what
others took of a class's share while its only stream made the next frame ready is made up for, as far.
"""

import math
import zlib
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ferry_host.shaping.policies import ClassPolicy, check_limit, effective_weights
from ferry_types.links import TrafficClass, joint_rate_bytes_per_s, payload_share
from ferry_types.networks import Nic, TeamMode

BURST_S: Final = 0.05
"""What a lane makes up for: the delays of a busy machine and a frame's handling fit in. It is 1 % of 5 s."""

STALL_S: Final = 0.1
"""Who comes no later than that was held up; who comes later had nothing to send."""

GRANT_S: Final = 0.001
"""Wire time of a piece: what a small frame waits for at most before its turn."""

UNIT_S: Final = 0.008
"""Wire time of what is best handed over in one go. Each end of a link knows a frame
only as a whole, so each of eight streams takes eight frames' time to have its first one there: 64 ms then.
With half of it, a guest on the same processors loses 5 % more of its speed: each frame wakes threads."""

FLOWLET_PAUSE_S: Final = 0.0005
"""A pause that begins a new flowlet: paths differ by less, so nothing is overtaken (CONGA, SIGCOMM 2014)."""


@dataclass(slots=True, eq=False)
class Turns:
    """Whose turn it is among those who wait for the same links: a member's of a static team, else the lane's.

    A tag is what a class or flow has had there, that of a class divided by its weight. Who comes back begins
    at the largest tag that was served; a class that was only held up between two frames, by a credit below.
    """

    tags: "defaultdict[Share, float]" = field(default_factory=lambda: defaultdict(float))
    served_tag: float = 0.0
    served_flow_tags: "defaultdict[Share, float]" = field(default_factory=lambda: defaultdict(float))

    def come_back(self, share: "Share", credit: float = 0.0) -> None:
        """A class waits here again. ``credit``: by how much its tag may be behind."""
        self.tags[share] = max(self.tags[share], self.served_tag - credit)


@dataclass(slots=True, eq=False)
class Member:
    """One link of a lane."""

    name: str
    rate_bytes_per_s: float
    mtu_bytes: int
    turns: Turns
    up: bool = True
    free_s: float = -math.inf
    """When its last piece has passed."""
    passed_bytes: int = 0
    busy_s: float = 0.0


@dataclass(slots=True, eq=False)
class Share:
    """One class on a lane."""

    limit_bytes_per_s: float
    weight: float
    free_s: float = -math.inf
    """When its limit lets it begin the next piece."""
    ended_s: float = -math.inf
    """When what was granted to it so far has passed."""
    waiting: "dict[Flow, None]" = field(default_factory=dict)
    passed_bytes: int = 0


@dataclass(slots=True, eq=False)
class Request:
    """Bytes of a flow on their way."""

    flow: "Flow"
    left_bytes: int
    """Not granted yet."""
    ready_s: float
    """The first piece starts no earlier."""
    asked_s: float
    ends_s: float = -math.inf
    """When the last byte granted so far has passed."""
    dropped: bool = False
    """The last member went down before all was granted."""


@dataclass(slots=True, eq=False)
class Flow:
    """One stream: its requests pass in order, and share with those of other flows."""

    share: Share
    payload_share: float
    """Payload in a byte of the link's rate."""
    hash: int
    """Chooses the member of a static team."""
    tag: float = 0.0
    requests: deque[Request] = field(default_factory=deque)
    queued_bytes: int = 0
    began_s: float = -math.inf
    """When its last piece started: pieces start in order, on whatever members."""
    ended_s: float = -math.inf
    """When what was granted to it so far has passed."""
    rested: bool = False
    member: Member | None = None
    """Where its flowlet goes (dynamic)."""
    flowlet_bytes: float = 0
    """What the flowlet may still carry."""


class Lane:
    """See the module. Not for several threads at once; ``now_s`` never falls.

    A ``receiving`` lane hears of a frame when all of it has come, and takes it that it was on the wire until
    then. So a link that is no slower than the sender's delays nothing.
    """

    def __init__(
        self,
        members: Sequence[Nic],
        policies: Mapping[TrafficClass, ClassPolicy],
        mode: TeamMode = TeamMode.STATIC,
        *,
        receiving: bool = False,
    ) -> None:
        """One NIC, or those of a team that spreads traffic by ``mode``; they are valid (``Nic.validate``).

        Raises ValueError if the weights of ``policies`` add up to more than 100.
        """
        weights = effective_weights(policies)
        none = ClassPolicy()
        self._dynamic = mode is TeamMode.DYNAMIC
        together = Turns()
        self.members = tuple(
            Member(nic.name, nic.rate_bytes_per_s, nic.mtu, together if self._dynamic else Turns())
            for nic in members
        )
        self.shares = {
            kind: Share(policies.get(kind, none).limit_bytes_per_s, weight)
            for kind, weight in weights.items()
        }
        self._mtu_bytes = min(nic.mtu for nic in members)
        self._receiving = receiving
        self._up = list(self.members)
        self._waiting: dict[Share, None] = {}

    @property
    def is_up(self) -> bool:
        """Whether any member is."""
        return bool(self._up)

    @property
    def shaped(self) -> bool:
        """Whether any member has a rate, or any class a limit."""
        return any(member.rate_bytes_per_s for member in self.members) or any(
            share.limit_bytes_per_s for share in self.shares.values()
        )

    def limit(self, traffic_class: TrafficClass, limit_bytes_per_s: float, now_s: float) -> None:
        """Give a class another limit from now on, 0: none, whatever of it passes. Raises ValueError.

        ``earliest_end_s`` may be earlier after that.
        """
        check_limit(limit_bytes_per_s)
        self.advance(now_s)
        share = self.shares[traffic_class]
        if not limit_bytes_per_s:
            share.free_s = -math.inf
        elif not share.limit_bytes_per_s:
            share.free_s = now_s  # what passed without a limit has left nothing to make up for
        share.limit_bytes_per_s = limit_bytes_per_s

    def flow(self, name: str, traffic_class: TrafficClass, path_mtu_bytes: int) -> Flow:
        """A stream whose packets have at most ``path_mtu_bytes``. It costs nothing while it asks for nothing.

        In a static team its name chooses the member.
        """
        share = payload_share(min(path_mtu_bytes, self._mtu_bytes))
        return Flow(self.shares[traffic_class], share, zlib.crc32(name.encode()))

    def unit_bytes(self, flow: Flow) -> float:
        """Payload that passes in ``UNIT_S`` at most; endless, if the flow is not shaped. Needs a lane that is
        up."""
        return _pace(_joint_rate(self._usable(flow)), flow.share) * flow.payload_share * UNIT_S

    # --- asking -------------------------------------------------------------------------------------------

    def ask(self, flow: Flow, size_bytes: int, now_s: float) -> Request:
        """Queue so many bytes of payload, on a lane that is up."""
        assert self._up, "a lane without members passes nothing"
        self.advance(now_s)
        request = Request(flow, size_bytes, self._ready_s(flow, size_bytes, now_s), now_s)
        if not flow.requests:
            self._join(flow, now_s)
        flow.rested = False
        flow.requests.append(request)
        flow.queued_bytes += size_bytes
        self.advance(now_s)
        return request

    def _ready_s(self, flow: Flow, size_bytes: int, now_s: float) -> float:
        usable = self._usable(flow)
        stopped_s = max((member.free_s for member in usable if member.rate_bytes_per_s), default=math.inf)
        if flow.share.limit_bytes_per_s:
            stopped_s = min(stopped_s, flow.share.free_s)
        began_s = now_s
        if self._receiving:
            began_s -= size_bytes / flow.payload_share / _pace(_joint_rate(usable), flow.share)
        held_up = not flow.rested and began_s - stopped_s <= STALL_S
        return began_s - BURST_S if held_up else began_s

    def _join(self, flow: Flow, now_s: float) -> None:
        share, turns = flow.share, self._pinned(flow).turns
        if not any(self._pinned(other).turns is turns for other in share.waiting):
            held_up = not flow.rested and now_s - share.ended_s <= STALL_S
            turns.come_back(share, self._credit(flow) if held_up else 0.0)
        flow.tag = max(flow.tag, turns.served_flow_tags[share])
        share.waiting[flow] = None
        self._waiting[share] = None

    def _credit(self, flow: Flow) -> float:
        """What a class may have missed, in ``BURST_S``, while its only stream made the next frame ready."""
        weights = sum(share.weight for share in {flow.share, *self._waiting})
        return _joint_rate(self._usable(flow)) * BURST_S / weights

    def withdraw(self, request: Request) -> None:
        """Forget what has not been granted of a request; nothing, if all has."""
        if request.left_bytes and not request.dropped:
            request.flow.queued_bytes -= request.left_bytes
            request.flow.requests.remove(request)
            self._leave_if_empty(request.flow)

    def earliest_end_s(self, request: Request) -> float:
        """A time before which the request will not have passed; once all of it is granted, that very time.

        It takes into account what others have queued, so that it is worth sleeping until then. It comes no
        earlier than it was said to, unless a member comes up, a limit changes or a request is withdrawn.
        """
        if not request.left_bytes:
            return request.ends_s
        flow, share = request.flow, request.flow.share
        usable = self._usable(flow)
        rate = _joint_rate(usable)
        next_on = [flow.member] if flow.member and _goes_on(flow, flow.requests[0]) else usable
        begins_s = max(share.free_s, min(member.free_s for member in next_on), request.ready_s, flow.began_s)
        passing_bytes = request.left_bytes + self._others_bytes(request, _pace(rate, share))
        link_bytes = passing_bytes / flow.payload_share
        ends_s = begins_s + link_bytes / (rate or math.inf)
        if share.limit_bytes_per_s:
            # As in ``_grant``: who has had less than the limit goes on at the link's rate for a while.
            from_s = max(share.free_s, request.ready_s, begins_s - BURST_S)
            ends_s = max(ends_s, from_s + link_bytes / share.limit_bytes_per_s)
        return ends_s

    def _others_bytes(self, request: Request, pace: float) -> float:
        """What others pass at least before the request's last byte: their part, but for two pieces' lead."""
        share, lead = request.flow.share, 2 * GRANT_S * pace
        alike = max(0.0, request.left_bytes - lead)
        usable = self._usable(request.flow)
        others = sum(
            min(flow.queued_bytes, alike)
            for flow in share.waiting
            if flow is not request.flow and self._usable(flow) == usable
        )
        if share.limit_bytes_per_s:
            return others
        fair = max(0.0, request.left_bytes + others - lead) / share.weight
        tags = self._pinned(request.flow).turns.tags
        for other in self._waiting:
            if other is not share and not other.limit_bytes_per_s:
                queued = sum(flow.queued_bytes for flow in other.waiting if self._usable(flow) == usable)
                ahead = max(0.0, tags[other] - tags[share])  # what the request's class catches up first
                others += min(queued, max(0.0, (fair - ahead) * other.weight - lead))
        return others

    def _usable(self, flow: Flow) -> list[Member]:
        return self._up if self._dynamic or len(self._up) == 1 else [self._pinned(flow)]

    # --- passing ------------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> None:
        """Grant every piece that starts by now."""
        while self._waiting:
            start_s, member, flow = self._next()
            if start_s > now_s:
                return
            self._grant(start_s, member, flow)

    def pass_at_once(self, flow: Flow, size_bytes: int) -> None:
        """Count what passes a lane that shapes nothing."""
        flow.share.passed_bytes += size_bytes
        self._pinned(flow).passed_bytes += size_bytes

    def _next(self) -> tuple[float, Member, Flow]:
        best: tuple[float, float, int, float, float] | None = None
        chosen: tuple[float, Member, Flow] | None = None
        for number, member in enumerate(self._up):
            tags = member.turns.tags
            for share in self._waiting:
                free_s = max(member.free_s, share.free_s)
                for flow in share.waiting:
                    request = flow.requests[0]
                    if not self._may_take(member, flow, request):
                        continue
                    start_s = max(free_s, request.ready_s, flow.began_s)
                    # The earliest start; then the member that is least busy; on it, whoever had the least.
                    key = (start_s, member.free_s, number, tags[share], flow.tag)
                    if best is None or key < best:
                        best, chosen = key, (start_s, member, flow)
        assert chosen is not None, "every flow has a member that it may take"
        return chosen

    def _may_take(self, member: Member, flow: Flow, request: Request) -> bool:
        if len(self._up) == 1:
            return True
        if not self._dynamic:
            return self._pinned(flow) is member
        return flow.member is member or not _goes_on(flow, request)

    def _pinned(self, flow: Flow) -> Member:
        return self._up[flow.hash % len(self._up)]

    def _grant(self, start_s: float, member: Member, flow: Flow) -> None:
        share, request = flow.share, flow.requests[0]
        pace = _pace(member.rate_bytes_per_s, share)
        piece = max(member.mtu_bytes, GRANT_S * pace)
        if self._dynamic:
            # A sender's TCP hands over a burst and pauses for its acknowledgements. Frames come without such
            # pauses, so a piece counts as the burst.
            if not _goes_on(flow, request):
                flow.member, flow.flowlet_bytes = member, piece
            piece = flow.flowlet_bytes
        size_bytes = int(min(request.left_bytes, max(1.0, piece)))
        flow.flowlet_bytes -= size_bytes
        link_bytes = size_bytes / flow.payload_share
        took_s = link_bytes / member.rate_bytes_per_s if member.rate_bytes_per_s else 0.0
        member.free_s = end_s = start_s + took_s
        if share.limit_bytes_per_s:
            # What waits for a piece of others has not rested: its limit makes up for that.
            from_s = max(share.free_s, request.ready_s, start_s - BURST_S)
            share.free_s = from_s + link_bytes / share.limit_bytes_per_s
            end_s = max(end_s, share.free_s)
        turns = member.turns
        turns.served_tag = max(turns.served_tag, turns.tags[share])
        turns.served_flow_tags[share] = max(turns.served_flow_tags[share], flow.tag)
        turns.tags[share] += link_bytes / share.weight
        flow.tag += link_bytes
        share.passed_bytes += size_bytes
        member.passed_bytes += size_bytes
        member.busy_s += took_s
        flow.began_s = start_s
        flow.ended_s = request.ends_s = max(request.ends_s, end_s)
        share.ended_s = max(share.ended_s, end_s)
        flow.queued_bytes -= size_bytes
        request.left_bytes -= size_bytes
        if not request.left_bytes:
            flow.requests.popleft()
            self._leave_if_empty(flow)

    def _leave_if_empty(self, flow: Flow) -> None:
        if not flow.requests:
            del flow.share.waiting[flow]
            if not flow.share.waiting:
                del self._waiting[flow.share]

    # --- members --------------------------------------------------------------------------------------------

    def take_down(self, name: str, now_s: float) -> None:
        """A member passes nothing any more: others take its traffic over.

        The piece on the wire counts as passed. Without other members every queued request is dropped.
        """
        self.advance(now_s)
        self._set_up(name, up=False)
        if not self._up:
            for share in self._waiting:
                for flow in share.waiting:
                    for request in flow.requests:
                        request.dropped = True
                    flow.requests.clear()
                    flow.queued_bytes = 0
                share.waiting.clear()
            self._waiting.clear()

    def bring_up(self, name: str, now_s: float) -> None:
        """A member passes traffic again, from now on."""
        self.advance(now_s)
        self._set_up(name, up=True)

    def _set_up(self, name: str, *, up: bool) -> None:
        for member in self.members:
            if member.name == name:
                member.up = up
        self._up = [member for member in self.members if member.up]
        for share in self._waiting if self._up else ():
            for flow in share.waiting:
                # It may wait for another member now, and begins there as if it came back.
                turns = self._pinned(flow).turns
                turns.come_back(share)
                flow.tag = turns.served_flow_tags[share]


def _goes_on(flow: Flow, request: Request) -> bool:
    """Whether the request's next piece belongs to the flow's latest flowlet, and may not overtake it."""
    return (
        flow.member is not None
        and flow.member.up
        and flow.flowlet_bytes > 0
        and request.asked_s - flow.ended_s < FLOWLET_PAUSE_S
    )


def _joint_rate(members: Sequence[Member]) -> float:
    """Bytes per second of all of them; 0 if one has no bound."""
    return joint_rate_bytes_per_s(member.rate_bytes_per_s for member in members)


def _pace(rate_bytes_per_s: float, share: Share) -> float:
    """How fast a class gets through a link; 0 in either means no bound."""
    return min(rate_bytes_per_s or math.inf, share.limit_bytes_per_s or math.inf)
