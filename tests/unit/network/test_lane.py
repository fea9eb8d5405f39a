"""What passes a NIC, and when: exact arithmetic on virtual time."""

import math

import pytest
from tests.unit.network.traffic import Stream, member, saturate

from ferry_host.shaping.lane import BURST_S, FLOWLET_PAUSE_S, GRANT_S, STALL_S, Flow, Lane, Request
from ferry_host.shaping.policies import ClassPolicy, effective_weights
from ferry_types.links import MTU_MAX, TrafficClass, goodput_bytes_per_s
from ferry_types.networks import TeamMode

RATE = 100e6
GOODPUT = goodput_bytes_per_s(RATE, 1500)
FRAME = 2 * 2**20
FRAME_S = FRAME / GOODPUT
MIGRATION, CSV, CLUSTER = TrafficClass.MIGRATION, TrafficClass.CSV, TrafficClass.CLUSTER


def lane(rate: float = RATE, *, receiving: bool = False, **limits: ClassPolicy) -> Lane:
    policies = {TrafficClass(name): policy for name, policy in limits.items()}
    return Lane([member("nic1", rate)], policies, receiving=receiving)


def team(mode: TeamMode, *rates: float) -> Lane:
    members = [member(f"nic{number}", rate) for number, rate in enumerate(rates, start=1)]
    return Lane(members, {}, mode)


def flow(of: Lane, name: str = "a", kind: TrafficClass = MIGRATION) -> Flow:
    return of.flow(name, kind, MTU_MAX)


def passed_s(of: Lane, request: Request) -> float:
    """When a request has passed, if nobody asks for anything else."""
    while request.left_bytes:
        before_bytes, due_s = request.left_bytes, of.earliest_end_s(request)
        of.advance(due_s)
        assert request.left_bytes < before_bytes or of.earliest_end_s(request) > due_s
    return request.ends_s


def stop(of: Lane, stream: Stream) -> None:
    """What it waits for is withdrawn, and its count begins anew."""
    while stream.flow.requests:
        of.withdraw(stream.flow.requests[0])
    stream.passed_bytes = 0


# --- one stream -----------------------------------------------------------------------------------------


def test_a_frame_takes_its_bytes_over_the_goodput() -> None:
    nic = lane()
    assert passed_s(nic, nic.ask(flow(nic), FRAME, 10.0)) == pytest.approx(10.0 + FRAME_S)


def test_a_nic_that_has_not_passed_anything_yet_has_no_credit() -> None:
    nic = lane()
    request = nic.ask(flow(nic), 1000, 0.0)
    assert request.ends_s == pytest.approx(1000 / GOODPUT)


def test_frames_of_one_flow_pass_one_after_the_other() -> None:
    nic = lane()
    stream = flow(nic)
    requests = [nic.ask(stream, FRAME, 0.0) for _ in range(3)]
    assert [passed_s(nic, r) for r in requests] == pytest.approx([FRAME_S, 2 * FRAME_S, 3 * FRAME_S])


@pytest.mark.parametrize("late_s", [0.0, 0.001, 0.005, 0.02])
def test_a_stream_that_is_always_woken_late_loses_nothing(late_s: float) -> None:
    nic = lane()
    stream = Stream(flow(nic), FRAME)
    saturate(nic, [stream], 0.0, 5.0, late_s)
    assert stream.passed_bytes == pytest.approx(5.0 * GOODPUT, abs=FRAME + late_s * GOODPUT)


def test_of_a_stall_all_but_the_burst_is_lost() -> None:
    nic = lane()
    stream = flow(nic)
    first_s = passed_s(nic, nic.ask(stream, FRAME, 0.0))
    again = nic.ask(stream, FRAME, first_s + 0.08)
    assert passed_s(nic, again) == pytest.approx(first_s + 0.08 - BURST_S + FRAME_S)


def test_after_a_rest_nothing_is_made_up_for() -> None:
    nic = lane()
    stream = flow(nic)
    rested_s = passed_s(nic, nic.ask(stream, FRAME, 0.0)) + STALL_S + 0.001
    assert passed_s(nic, nic.ask(stream, FRAME, rested_s)) == pytest.approx(rested_s + FRAME_S)


def test_a_flow_that_rests_on_purpose_makes_up_for_nothing_once() -> None:
    nic = lane()
    stream = flow(nic)
    now_s = passed_s(nic, nic.ask(stream, FRAME, 0.0)) + 0.005
    stream.rested = True
    last = nic.ask(stream, FRAME, now_s)
    assert passed_s(nic, last) == pytest.approx(now_s + FRAME_S)
    following = nic.ask(stream, FRAME, last.ends_s + 0.005)
    assert passed_s(nic, following) == pytest.approx(last.ends_s + FRAME_S)


def test_a_receiving_nic_takes_a_frame_as_it_comes() -> None:
    """Sender and receiver of one speed are one cable, and a slower receiver sets the pace."""
    nic = lane(receiving=True)
    stream = flow(nic)
    arrivals = [1.0 + FRAME_S * number for number in range(1, 6)]
    assert [passed_s(nic, nic.ask(stream, FRAME, s)) for s in arrivals] == pytest.approx(arrivals)
    slower = lane(RATE / 2, receiving=True)
    stream = flow(slower)
    ends = [passed_s(slower, slower.ask(stream, FRAME, arrivals[0]))]
    ends += [passed_s(slower, slower.ask(stream, FRAME, ends[-1])) for _ in range(4)]
    assert ends[-1] == pytest.approx(arrivals[0] + 4 * 2 * FRAME_S)


def test_jumbo_frames_count_only_if_the_whole_path_takes_them() -> None:
    nic = Lane([member("nic1", RATE, mtu=9000)], {})
    jumbo = nic.ask(nic.flow("a", MIGRATION, 9000), FRAME, 0.0)
    assert passed_s(nic, jumbo) == pytest.approx(FRAME / goodput_bytes_per_s(RATE, 9000))
    standard = nic.ask(nic.flow("b", MIGRATION, 1500), FRAME, jumbo.ends_s)
    assert passed_s(nic, standard) == pytest.approx(jumbo.ends_s + FRAME_S)


def test_without_a_rate_all_passes_at_once() -> None:
    nic = lane(0)
    assert not nic.shaped
    assert nic.ask(flow(nic), FRAME, 1.0).ends_s <= 1.0


def test_what_is_withdrawn_does_not_pass() -> None:
    nic = lane()
    first, second = nic.ask(flow(nic, "a"), FRAME, 0.0), nic.ask(flow(nic, "b"), FRAME, 0.0)
    nic.withdraw(first)
    began = nic.shares[MIGRATION].passed_bytes
    assert passed_s(nic, second) == pytest.approx((FRAME + began) / GOODPUT)
    assert nic.shares[MIGRATION].passed_bytes == FRAME + began


def test_bytes_are_counted_by_class_and_member_and_busy_seconds_by_member() -> None:
    nic = lane()
    passed_s(nic, nic.ask(flow(nic, "a", CSV), 5000, 0.0))
    passed_s(nic, nic.ask(flow(nic, "b", MIGRATION), FRAME, 1.0))
    shares = nic.shares
    assert (shares[CSV].passed_bytes, shares[MIGRATION].passed_bytes) == (5000, FRAME)
    (member,) = nic.members
    assert member.passed_bytes == FRAME + 5000
    assert member.busy_s == pytest.approx((FRAME + 5000) / GOODPUT)


# --- sharing --------------------------------------------------------------------------------------------


def test_eight_flows_of_a_class_get_alike_whatever_their_frames() -> None:
    nic = lane()
    streams = [Stream(flow(nic, str(number)), FRAME if number % 2 else 120_000) for number in range(8)]
    saturate(nic, streams, 0.0, 5.0)
    part = 5.0 * GOODPUT / 8
    assert [stream.passed_bytes for stream in streams] == pytest.approx([part] * 8, abs=FRAME)


def test_a_small_frame_of_another_class_waits_for_one_piece() -> None:
    nic = lane()
    for number in range(8):
        nic.ask(flow(nic, str(number)), FRAME, 0.0)
    control = nic.ask(flow(nic, "control", CLUSTER), 1000, 0.01)
    assert passed_s(nic, control) < 0.01 + 2 * GRANT_S


def test_classes_share_by_weight_when_all_are_busy() -> None:
    nic = lane(migration=ClassPolicy(weight=50), csv=ClassPolicy(weight=30), cluster=ClassPolicy(weight=20))
    streams = [Stream(flow(nic, kind, kind), 2**18) for kind in (MIGRATION, CSV, CLUSTER)]
    streams.append(Stream(flow(nic, "another", MIGRATION), 2**18))
    saturate(nic, streams, 0.0, 5.0)
    parts = [stream.passed_bytes / (5.0 * GOODPUT) for stream in streams]
    assert parts == pytest.approx([0.25, 0.30, 0.20, 0.25], abs=0.005)


def test_what_a_class_leaves_others_take() -> None:
    nic = lane(migration=ClassPolicy(weight=1), csv=ClassPolicy(weight=99))
    alone = Stream(flow(nic), FRAME)
    saturate(nic, [alone], 0.0, 2.0)
    assert alone.passed_bytes == pytest.approx(2.0 * GOODPUT, abs=FRAME)


def test_a_class_that_was_idle_has_saved_nothing_up() -> None:
    nic = lane()
    busy, idle = Stream(flow(nic, "busy"), FRAME), Stream(flow(nic, "idle", CSV), FRAME)
    saturate(nic, [busy], 0.0, 5.0)
    stop(nic, busy)
    saturate(nic, [busy, idle], 5.0, 10.0)
    assert [busy.passed_bytes, idle.passed_bytes] == pytest.approx([2.5 * GOODPUT] * 2, abs=2 * FRAME)


def test_a_flow_that_was_idle_has_saved_nothing_up() -> None:
    nic = lane()
    busy, idle = Stream(flow(nic, "busy"), FRAME), Stream(flow(nic, "idle"), FRAME)
    saturate(nic, [busy], 0.0, 2.0)
    stop(nic, busy)
    saturate(nic, [busy, idle], 2.0, 4.0)
    assert [busy.passed_bytes, idle.passed_bytes] == pytest.approx([GOODPUT] * 2, abs=2 * FRAME)


def test_a_limited_class_that_had_less_makes_up_for_no_more_than_the_burst() -> None:
    limit = 0.5 * RATE
    nic = lane(migration=ClassPolicy(limit_bytes_per_s=limit, weight=10), csv=ClassPolicy(weight=90))
    nic.ask(flow(nic), 2**30, 0.0)
    other = Stream(flow(nic, "other", CSV), FRAME)
    saturate(nic, [other], 0.0, 2.0)
    stop(nic, other)
    before_bytes = nic.shares[MIGRATION].passed_bytes
    nic.advance(3.0)
    passed_bytes = nic.shares[MIGRATION].passed_bytes - before_bytes
    assert 0.5 * GOODPUT <= passed_bytes <= 0.5 * GOODPUT * (1 + BURST_S)


def test_a_limit_holds_and_others_take_the_rest() -> None:
    nic = lane(migration=ClassPolicy(limit_bytes_per_s=0.3 * RATE))
    limited, other = Stream(flow(nic), FRAME), Stream(flow(nic, "other", CSV), FRAME)
    saturate(nic, [limited, other], 0.0, 5.0)
    passed = [limited.passed_bytes, other.passed_bytes]
    assert passed == pytest.approx([1.5 * GOODPUT, 3.5 * GOODPUT], abs=FRAME)


@pytest.mark.parametrize("late_s", [0.0, 0.0003, 0.002])
@pytest.mark.parametrize(("weight", "streams"), [(70, 1), (25, 4), (50, 1)])
def test_a_class_whose_only_stream_makes_its_frames_one_by_one_keeps_its_weight(
    weight: int, streams: int, late_s: float
) -> None:
    nic = lane(migration=ClassPolicy(weight=weight), csv=ClassPolicy(weight=100 - weight))
    ours = [Stream(flow(nic, f"a{number}"), FRAME // 2) for number in range(streams)]
    other = Stream(flow(nic, "other", CSV), FRAME // 2)
    saturate(nic, [*ours, other], 0.0, 10.0, late_s)
    passed = sum(stream.passed_bytes for stream in ours), other.passed_bytes
    assert passed == pytest.approx((weight / 10 * GOODPUT, (10 - weight / 10) * GOODPUT), rel=0.02)


def test_a_class_that_rested_before_its_next_frame_gets_nothing_of_what_others_took() -> None:
    nic = lane(migration=ClassPolicy(weight=50), csv=ClassPolicy(weight=50))
    resting, other = flow(nic), flow(nic, "other", CSV)
    passed_s(nic, nic.ask(resting, FRAME, 0.0))
    nic.ask(other, 4 * FRAME, FRAME_S)
    nic.advance(FRAME_S + 2 * FRAME_S)
    resting.rested = True
    request = nic.ask(resting, FRAME, 3 * FRAME_S)
    assert passed_s(nic, request) >= 3 * FRAME_S + 2 * FRAME_S - 3 * GRANT_S, "they share from then on"


def test_who_had_less_than_its_limit_is_not_told_to_wait_for_longer_than_it_takes() -> None:
    nic = lane(migration=ClassPolicy(limit_bytes_per_s=0.4 * RATE))
    ours = flow(nic)
    small = FRAME // 8
    due_s = passed_s(nic, nic.ask(ours, small, 0.0))
    nic.ask(flow(nic, "other", CSV), FRAME, due_s)
    nic.advance(due_s + 0.02)
    request = nic.ask(ours, small, due_s + 0.02)
    assert nic.earliest_end_s(request) < due_s + 0.02 + small / GOODPUT / 0.4 - 0.002
    assert passed_s(nic, request) == pytest.approx(due_s + 0.02 + small / GOODPUT, abs=2 * GRANT_S)


def test_a_limit_holds_on_a_nic_without_a_rate() -> None:
    nic = lane(0, migration=ClassPolicy(limit_bytes_per_s=RATE))
    assert nic.shaped
    limited = nic.ask(flow(nic), FRAME, 0.0)
    assert nic.ask(flow(nic, "b", CSV), FRAME, 0.001).ends_s <= 0.001
    assert passed_s(nic, limited) == pytest.approx(FRAME_S)


def test_a_limit_that_comes_later_holds_from_then_on() -> None:
    nic = lane()
    stream = Stream(flow(nic), FRAME)
    saturate(nic, [stream], 0.0, 2.0)
    stop(nic, stream)
    nic.limit(MIGRATION, 0.3 * RATE, 2.5)
    saturate(nic, [stream], 2.5, 7.5)
    assert stream.passed_bytes == pytest.approx(1.5 * GOODPUT, abs=FRAME)
    stop(nic, stream)
    nic.limit(MIGRATION, 0, 8.0)
    saturate(nic, [stream], 8.0, 10.0)
    assert stream.passed_bytes == pytest.approx(2.0 * GOODPUT, abs=FRAME)


def test_a_limit_slows_what_waits_already() -> None:
    nic = lane()
    request = nic.ask(flow(nic), 10 * FRAME, 0.0)
    nic.limit(MIGRATION, 0.5 * RATE, 5 * FRAME_S)
    assert passed_s(nic, request) == pytest.approx(15 * FRAME_S, abs=2 * GRANT_S)


def test_classes_without_a_weight_share_what_the_weights_leave() -> None:
    weights = effective_weights({MIGRATION: ClassPolicy(weight=40), CSV: ClassPolicy(limit_bytes_per_s=1)})
    assert weights[MIGRATION] == 40
    assert weights[CSV] == weights[CLUSTER] == 12
    assert effective_weights({MIGRATION: ClassPolicy(weight=100)})[CSV] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="add up to 101"):
        effective_weights({MIGRATION: ClassPolicy(weight=50), CSV: ClassPolicy(weight=51)})


# --- teams ----------------------------------------------------------------------------------------------


def test_static_one_stream_is_no_faster_than_one_member() -> None:
    nics = team(TeamMode.STATIC, RATE, RATE)
    stream = Stream(flow(nics), FRAME)
    saturate(nics, [stream], 0.0, 2.0)
    assert stream.passed_bytes == pytest.approx(2.0 * GOODPUT, abs=FRAME)
    assert sorted(member.passed_bytes > 0 for member in nics.members) == [False, True]


def test_static_many_streams_fill_all_members() -> None:
    nics = team(TeamMode.STATIC, RATE, RATE)
    streams = [Stream(flow(nics, f"stream {number}"), FRAME) for number in range(16)]
    saturate(nics, streams, 0.0, 2.0)
    assert sum(stream.passed_bytes for stream in streams) == pytest.approx(4.0 * GOODPUT, abs=17 * FRAME)
    assert [m.passed_bytes for m in nics.members] == pytest.approx([2.0 * GOODPUT] * 2, abs=FRAME)


def test_dynamic_one_stream_is_spread_over_all_members() -> None:
    nics = team(TeamMode.DYNAMIC, RATE, RATE, RATE)
    stream = Stream(flow(nics), FRAME)
    saturate(nics, [stream], 0.0, 2.0)
    assert stream.passed_bytes == pytest.approx(6.0 * GOODPUT, rel=0.02)
    assert [m.passed_bytes for m in nics.members] == pytest.approx([2.0 * GOODPUT] * 3, rel=0.05)


def test_dynamic_a_burst_after_a_pause_goes_to_the_least_busy_member_and_stays_there_without_one() -> None:
    nics = team(TeamMode.DYNAMIC, RATE, RATE)
    first, second = nics.members
    stream, now_s = flow(nics), 0.0
    for _ in range(20):
        now_s = nics.ask(stream, 1000, now_s).ends_s + FLOWLET_PAUSE_S / 2
    assert (first.passed_bytes, second.passed_bytes) == (20_000, 0)
    nics.ask(stream, 1000, now_s + FLOWLET_PAUSE_S)
    assert (first.passed_bytes, second.passed_bytes) == (20_000, 1000)


def test_dynamic_members_are_used_as_fast_as_they_are() -> None:
    nics = team(TeamMode.DYNAMIC, RATE, 3 * RATE)
    saturate(nics, [Stream(flow(nics, str(number)), FRAME) for number in range(4)], 0.0, 2.0)
    slow, fast = (member.passed_bytes for member in nics.members)
    assert fast == pytest.approx(3 * slow, rel=0.02)


@pytest.mark.parametrize("mode", TeamMode)
def test_a_members_traffic_moves_to_the_others_when_it_fails_and_back(mode: TeamMode) -> None:
    nics = team(mode, RATE, RATE)
    stream = flow(nics)
    request = nics.ask(stream, FRAME, 0.0)
    carrier = next(member for member in nics.members if member.passed_bytes)
    other = next(member for member in nics.members if member is not carrier)
    nics.take_down(carrier.name, 0.004)
    before_bytes = carrier.passed_bytes
    assert passed_s(nics, request) <= 0.004 + FRAME_S + GRANT_S
    assert carrier.passed_bytes == before_bytes
    nics.bring_up(carrier.name, request.ends_s)
    nics.take_down(other.name, request.ends_s)
    passed_s(nics, nics.ask(stream, FRAME, request.ends_s))
    assert carrier.passed_bytes == before_bytes + FRAME


def test_a_flow_that_moves_to_another_member_shares_with_those_there() -> None:
    nics = team(TeamMode.STATIC, RATE, RATE)
    first, second = (
        next(
            Stream(made, FRAME)
            for number in range(100)
            if nics._pinned(made := flow(nics, f"stream {number}")) is member
        )
        for member in nics.members
    )
    saturate(nics, [first], 0.0, 2.0)
    for stream in (first, second):
        nics.ask(stream.flow, FRAME, 2.0)
    nics.take_down("nic1", 2.001)
    first.passed_bytes = 0
    saturate(nics, [first, second], 2.001, 4.001)
    assert [first.passed_bytes, second.passed_bytes] == pytest.approx([GOODPUT] * 2, abs=2 * FRAME)


def test_a_flowlet_does_not_wait_for_a_member_that_is_down() -> None:
    nics = team(TeamMode.DYNAMIC, RATE, RATE, RATE)
    stream = flow(nics)
    now_s = nics.ask(stream, 1000, 0.0).ends_s
    nics.take_down("nic1", now_s)
    assert nics.ask(stream, 1000, now_s).ends_s == pytest.approx(now_s + 1000 / GOODPUT, abs=BURST_S)
    assert sum(member.passed_bytes for member in nics.members[1:]) == 1000


def test_with_the_last_member_all_that_waits_is_dropped() -> None:
    nics = team(TeamMode.STATIC, RATE, RATE)
    waiting = [nics.ask(flow(nics, str(number)), FRAME, 0.0) for number in range(4)]
    nics.take_down("nic1", 0.001)
    assert not any(request.dropped for request in waiting)
    nics.take_down("nic2", 0.002)
    assert all(request.dropped for request in waiting)
    assert not nics.is_up
    nics.withdraw(waiting[0])
    nics.bring_up("nic1", 1.0)
    again = nics.ask(flow(nics, "0"), FRAME, 1.0)
    assert passed_s(nics, again) == pytest.approx(1.0 + FRAME_S)


# --- what cannot be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_limits_are_numbers_of_0_or_more(value: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        ClassPolicy(limit_bytes_per_s=value)
    with pytest.raises(ValueError, match="limit"):
        lane().limit(MIGRATION, value, 0.0)


@pytest.mark.parametrize("weight", [-1, 101])
def test_weights_are_per_cent(weight: int) -> None:
    with pytest.raises(ValueError, match="weight"):
        ClassPolicy(weight=weight)
