"""NICs, and streams on a lane and on virtual time."""

from ferry_host.shaping.lane import Flow, Lane, Request
from ferry_types.networks import Nic


def member(name: str, rate: float = 0, latency_s: float = 0.0, mtu: int = 1500) -> Nic:
    """A NIC, of a team or alone; where it is does not matter."""
    return Nic(name, "live", "10.0.0.1", round(rate), latency_s, mtu)


class Stream:
    """A flow that always has a frame to pass, and what of it has passed."""

    def __init__(self, flow: Flow, frame_bytes: int) -> None:
        self.flow = flow
        self.frame_bytes = frame_bytes
        self.passed_bytes = 0
        self.ended_s: list[float] = []


def saturate(lane: Lane, streams: list[Stream], from_s: float, to_s: float, late_s: float = 0.0) -> None:
    """Every stream is woken ``late_s`` after each of its frames has passed, and hands over the next one."""
    waiting: list[tuple[Stream, Request]] = [
        (stream, lane.ask(stream.flow, stream.frame_bytes, from_s)) for stream in streams
    ]
    now_s = from_s
    while waiting:
        due_s = [lane.earliest_end_s(request) for _, request in waiting]
        now_s = max(now_s, min(due_s))
        lane.advance(now_s)
        still: list[tuple[Stream, Request]] = []
        passed: list[Stream] = []
        for stream, request in waiting:
            if request.left_bytes or request.ends_s > now_s:
                still.append((stream, request))
            else:
                stream.ended_s.append(request.ends_s)
                stream.passed_bytes += stream.frame_bytes
                passed.append(stream)
        if passed:
            now_s += late_s
        if now_s >= to_s:
            return
        waiting = still + [(stream, lane.ask(stream.flow, stream.frame_bytes, now_s)) for stream in passed]
