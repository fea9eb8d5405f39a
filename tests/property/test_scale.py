"""Whatever the scale: what goes in comes out again, and nothing is decided otherwise."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferry_agent.guest.audit import Audit
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.workload import Pace
from ferry_host.convergence import Policy, decide
from ferry_host.estimate import GuestFigures, estimate
from ferry_host.scale import Scale
from ferry_types.errors import FerryError
from ferry_types.limits import PAGE_SIZE, VM_MEMORY_BYTES_MIN
from ferry_types.migrations import PassFigures, WireFigures
from ferry_types.networks import RATE_BYTES_PER_S_MAX, RATE_BYTES_PER_S_MIN, Nic
from ferry_types.scale import SCALE_MAX, memory_problem, rate_problem
from ferry_types.vms import VmSpec
from ferry_types.workloads import PROFILES, AccessPattern, Fill, FillSpec, resolve

MIB = 2**20
scales = st.integers(1, SCALE_MAX)


@st.composite
def specs(draw: st.DrawFn, scale: int, real_pages_max: int = 2**24) -> VmSpec:
    """A VM that fits the scale."""
    real_pages = draw(st.integers(VM_MEMORY_BYTES_MIN // PAGE_SIZE, real_pages_max))
    memory_bytes = min(real_pages * PAGE_SIZE * scale, 2**40 // (PAGE_SIZE * scale) * PAGE_SIZE * scale)
    workload = resolve(
        draw(st.sampled_from(sorted(PROFILES))),
        memory_bytes,
        write_rate_bytes_per_s=draw(st.integers(0, 2**32)),
        read_rate_bytes_per_s=draw(st.integers(0, 2**32)),
        working_set_bytes=draw(st.integers(PAGE_SIZE, memory_bytes)),
        access=draw(st.sampled_from(AccessPattern)),
    )
    return VmSpec("a", memory_bytes, workload, FillSpec(Fill.RANDOM))


@given(data=st.data(), factor=scales)
def test_memory_comes_out_as_it_went_in_and_its_guest_fits_it(data: st.DataObject, factor: int) -> None:
    scale, spec = Scale(factor), data.draw(specs(factor))
    real_bytes = scale.real_memory_bytes(spec)
    assert scale.emulated(real_bytes) == spec.memory_bytes
    assert real_bytes % PAGE_SIZE == 0
    workload = scale.real_workload(spec)
    workload.validate(real_bytes)
    if factor == 1:
        assert workload == spec.workload
    # A page's worth is lost at most, or what the real books, which do not shrink as a whole, take more.
    lost_pages = (spec.workload.working_set_bytes - scale.emulated(workload.working_set_bytes)) // PAGE_SIZE
    assert -factor < lost_pages < 11 * factor
    assert scale.emulated_rate(workload.write_rate_bytes_per_s) == pytest.approx(
        spec.workload.write_rate_bytes_per_s, abs=factor / 2
    )


@given(memory_bytes=st.integers(1, 2**40), factor=scales)
def test_a_memory_either_fits_exactly_or_is_refused(memory_bytes: int, factor: int) -> None:
    spec = VmSpec("a", memory_bytes, PROFILES["idle"], FillSpec(Fill.ZERO))
    if memory_problem("a", memory_bytes, factor) is None:
        assert Scale(factor).real_memory_bytes(spec) * factor == memory_bytes
    else:
        with pytest.raises(FerryError):
            Scale(factor).real_memory_bytes(spec)
        assert memory_bytes % (factor * PAGE_SIZE) or memory_bytes < factor * VM_MEMORY_BYTES_MIN


@given(rate=st.integers(RATE_BYTES_PER_S_MIN, RATE_BYTES_PER_S_MAX), factor=scales)
def test_a_nic_that_fits_keeps_its_rate_and_all_else(rate: int, factor: int) -> None:
    nic, scale = Nic("n", "net", "10.0.0.1", rate, 0.001, 9000, rdma=True), Scale(factor)
    real = scale.real_nic(nic)
    assert replace(real, rate_bytes_per_s=rate) == nic
    if rate_problem(nic, factor) is None:
        real.validate()
        assert scale.emulated_rate(real.rate_bytes_per_s) == pytest.approx(rate, rel=0.0005)


@given(data=st.data(), factor=scales)
def test_a_divided_pace_makes_its_share_of_the_accesses_in_steps_as_long(
    data: st.DataObject, factor: int
) -> None:
    whole = Pace.of(data.draw(specs(factor)).workload)
    part = whole.divided(factor)
    if factor == 1:
        assert part == whole
    assert 2 / 3 <= part.period_s / whole.period_s <= 3 / 2
    assert part.writes_per_step / part.period_s * factor == pytest.approx(
        whole.writes_per_step / whole.period_s, rel=1e-9
    )
    reads, reads_whole = part.reads_per_million_steps, whole.reads_per_million_steps
    assert reads / part.period_s * factor == pytest.approx(
        reads_whole / whole.period_s, abs=factor / part.period_s
    )


@given(data=st.data(), factor=st.sampled_from([1, 2, 3, 7, 64, SCALE_MAX]), steps=st.integers(0, 30))
def test_a_scaled_guest_keeps_its_books(data: st.DataObject, factor: int, steps: int) -> None:
    scale, spec = Scale(factor), data.draw(specs(factor, real_pages_max=1100))
    pace = Pace.of(spec.workload).divided(factor)
    memory = GuestMemory(scale.real_memory_bytes(spec))
    guest = Guest.boot("a", memory, scale.real_workload(spec), FillSpec(Fill.ZERO), 1, pace)
    for _ in range(steps):
        guest.step()
    run = Audit(memory, guest.spec, lambda: guest.registers, pace=pace)
    while not run.advance():
        pass
    assert run.report().errors == ()
    memory.close()


policies = st.builds(
    Policy,
    st.integers(3, 12),
    st.floats(0.001, 5),
    throttle=st.booleans(),
    switch_at_minimum=st.booleans(),
)


@given(
    passes=st.lists(st.tuples(st.integers(0, 2**20), st.floats(0.001, 100)), min_size=1, max_size=12),
    rate=st.floats(1e4, 1e10),
    policy=policies,
    factor=st.sampled_from([2, 64, SCALE_MAX]),  # powers of two, so that no bound is met by rounding alone
)
def test_convergence_decides_alike_in_real_and_in_emulated_units(
    passes: list[tuple[int, float]], rate: float, policy: Policy, factor: int
) -> None:
    real = [
        PassFigures(index, pages, 0, pages * PAGE_SIZE, duration_s, pages)
        for index, (pages, duration_s) in enumerate(passes, start=1)
    ]
    emulated = [
        replace(
            each,
            pages_sent=each.pages_sent * factor,
            bytes_sent=each.bytes_sent * factor,
            dirty_pages_after=each.dirty_pages_after * factor,
        )
        for each in real
    ]
    dirty = passes[-1][0]
    one, other = decide(real, dirty, rate, policy), decide(emulated, dirty * factor, rate * factor, policy)
    assert (one.action, one.throttle_percent) == (other.action, other.throttle_percent)


@given(
    pages=st.integers(1, 2**20),
    working_set=st.integers(1, 2**16),
    writes=st.floats(0, 1e5),
    access=st.sampled_from(AccessPattern),
    factor=scales,
)
def test_an_estimate_is_the_same_but_for_whole_pages(
    pages: int, working_set: int, writes: float, access: AccessPattern, factor: int
) -> None:
    """What copying takes does not depend on the scale; what it leaves does, by rounded pages."""
    policy = Policy(1, 0.0)
    real = estimate(GuestFigures(pages, writes, working_set, access, 3), WireFigures(1e8, 0.01), policy)
    emulated = estimate(
        GuestFigures(pages * factor, writes * factor, working_set * factor, access, 3 * factor),
        WireFigures(1e8 * factor, 0.01),
        policy,
    )
    assert emulated.brownout_s == pytest.approx(real.brownout_s)
    assert real.blackout_s is not None
    page_s = PAGE_SIZE / 1e8
    assert emulated.blackout_s == pytest.approx(real.blackout_s, abs=page_s + 0.12 * working_set * page_s)
