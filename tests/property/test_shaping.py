"""Whatever asks whenever: a lane passes no more than its rate, and wastes nothing while something waits."""

import math

from hypothesis import example, given
from hypothesis import strategies as st
from tests.unit.network.traffic import member as nic

from ferry_host.shaping.lane import BURST_S, GRANT_S, Flow, Lane, Member, Request
from ferry_host.shaping.policies import ClassPolicy
from ferry_types.links import MTU_MAX, TrafficClass, goodput_bytes_per_s
from ferry_types.networks import TeamMode

RATE = 10e6
GOODPUT = goodput_bytes_per_s(RATE, 1500)
PIECE = math.ceil(GRANT_S * RATE)
FRAME_MAX = 400_000
KINDS = (TrafficClass.MIGRATION, TrafficClass.CSV, TrafficClass.CLUSTER)

asks = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 0.15)),  # seconds since the one before
        st.integers(0, 5),  # flow
        st.integers(1, FRAME_MAX),
    ),
    min_size=1,
    max_size=40,
)
weights = st.tuples(*[st.integers(0, 33)] * len(KINDS))
modes = st.sampled_from([None, *TeamMode])


class Watched(Lane):
    """Notes every piece: when it starts, on which member, of which flow, and its bytes."""

    def __init__(
        self, mode: TeamMode | None, policies: dict[TrafficClass, ClassPolicy], *, receiving: bool
    ) -> None:
        count = 1 if mode is None else 3
        nics = [nic(f"nic{number}", RATE) for number in range(count)]
        super().__init__(nics, policies, mode or TeamMode.STATIC, receiving=receiving)
        self.pieces: list[tuple[float, str, Flow, int]] = []

    def _grant(self, start_s: float, member: Member, flow: Flow) -> None:
        request = flow.requests[0]
        before_bytes = request.left_bytes
        super()._grant(start_s, member, flow)
        self.pieces.append((start_s, member.name, flow, before_bytes - request.left_bytes))


def run(lane: Watched, wanted: list[tuple[float, int, int]]) -> list[Request]:
    """Ask, look as often as is said to be worth it, and let all pass; the seconds are those of the lane."""
    flows = [lane.flow(f"flow {number}", KINDS[number % len(KINDS)], MTU_MAX) for number in range(6)]
    requests: list[Request] = []
    now_s = 0.0
    for pause_s, number, size_bytes in wanted:
        now_s += pause_s
        requests.append(lane.ask(flows[number], size_bytes, now_s))
    for request in requests:
        while request.left_bytes:
            due_s = lane.earliest_end_s(request)
            assert due_s > now_s
            now_s = due_s
            lane.advance(now_s)
    return requests


def assert_no_faster(pieces: list[tuple[float, int]], pace: float, extra_bytes: float) -> None:
    """No interval from the start of one piece to that of another has more than its time and burst allow."""
    for first in range(len(pieces)):
        total = 0
        for start_s, size_bytes in pieces[first:]:
            allowed = pace * (start_s - pieces[first][0] + BURST_S) + extra_bytes
            assert total <= allowed + 1
            total += size_bytes


@given(asks, weights, modes, st.booleans())
def test_no_member_passes_more_than_its_rate(
    wanted: list[tuple[float, int, int]],
    shares: tuple[int, ...],
    mode: TeamMode | None,
    receiving: bool,
) -> None:
    policies = {kind: ClassPolicy(weight=weight) for kind, weight in zip(KINDS, shares, strict=True)}
    lane = Watched(mode, policies, receiving=receiving)
    requests = run(lane, wanted)
    assert sum(size for *_, size in lane.pieces) == sum(size for _, _, size in wanted)
    assert all(request.ends_s >= request.ready_s for request in requests)
    for member in lane.members:
        own = [(start, size) for start, name, _, size in lane.pieces if name == member.name]
        assert_no_faster(own, GOODPUT, PIECE + (FRAME_MAX if receiving else 0))


@given(asks, st.floats(0.1, 0.9))
def test_no_class_passes_more_than_its_limit(wanted: list[tuple[float, int, int]], part: float) -> None:
    policies = {TrafficClass.MIGRATION: ClassPolicy(limit_bytes_per_s=part * RATE)}
    lane = Watched(None, policies, receiving=False)
    run(lane, wanted)
    limited = lane.shares[TrafficClass.MIGRATION]
    own = [(start, size) for start, _, flow, size in lane.pieces if flow.share is limited]
    assert_no_faster(own, part * GOODPUT, 2 * PIECE)


@given(asks, weights, st.booleans())
def test_while_something_waits_the_link_is_busy(
    wanted: list[tuple[float, int, int]], shares: tuple[int, ...], receiving: bool
) -> None:
    """So the last byte passes no later than with one queue for all, in the order in which they asked."""
    policies = {kind: ClassPolicy(weight=weight) for kind, weight in zip(KINDS, shares, strict=True)}
    requests = run(Watched(None, policies, receiving=receiving), wanted)
    free_s = now_s = 0.0
    for pause_s, _, size_bytes in wanted:
        now_s += pause_s
        free_s = max(free_s, now_s) + size_bytes / GOODPUT
    assert max(request.ends_s for request in requests) <= free_s + 1e-9


@given(asks, weights, modes)
@example([(0.0, 0, 1), (0.0, 1, 40001), (2**-8, 0, 113752)], (0, 4, 21), None)  # it comes back with a credit
def test_a_time_that_is_said_to_be_the_earliest_is(
    wanted: list[tuple[float, int, int]], shares: tuple[int, ...], mode: TeamMode | None
) -> None:
    """Else whoever sleeps until then is late."""
    policies = {kind: ClassPolicy(weight=weight) for kind, weight in zip(KINDS, shares, strict=True)}
    lane = Watched(mode, policies, receiving=False)
    flows = [lane.flow(f"flow {number}", KINDS[number % len(KINDS)], MTU_MAX) for number in range(6)]
    said: list[tuple[Request, float]] = []
    requests: list[Request] = []
    now_s = 0.0
    for pause_s, number, size_bytes in wanted:
        now_s += pause_s
        requests.append(lane.ask(flows[number], size_bytes, now_s))
        said.extend((request, lane.earliest_end_s(request)) for request in requests if request.left_bytes)
    while any(request.left_bytes for request in requests):
        now_s += GRANT_S
        lane.advance(now_s)
    assert all(request.ends_s >= said_s - 1e-9 for request, said_s in said)
