"""The workload: the same steps everywhere, at the rate that was asked for."""

import numpy as np
import pytest
from tests.unit.guest.conftest import MIB, BootGuest, busy

from ferry_agent.guest.audit import audit
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.workload import POOL_PAGES, Pace, content_pool
from ferry_types.limits import PAGE_SIZE
from ferry_types.workloads import PROFILES, AccessPattern, resolve


@pytest.mark.parametrize("access", AccessPattern)
def test_two_guests_alike_do_alike(boot: BootGuest, access: AccessPattern) -> None:
    one, two = boot(spec=busy(4 * MIB, access)), boot(spec=busy(4 * MIB, access))
    for _ in range(50):
        one.step()
        two.step()
    assert one.registers == two.registers
    assert np.array_equal(one.memory.pages, two.memory.pages)
    assert audit(one.memory, one.spec, one.registers).ok


@pytest.mark.parametrize("access", AccessPattern)
def test_a_guest_goes_on_alike_on_another_host(boot: BootGuest, access: AccessPattern) -> None:
    source, stayed = boot(spec=busy(4 * MIB, access)), boot(spec=busy(4 * MIB, access))
    for _ in range(30):
        source.step()
        stayed.step()
    memory = GuestMemory(4 * MIB)
    every = np.arange(memory.n_pages)
    memory.write(every, source.memory.pages)
    moved = Guest.restore("vm1", memory, source.spec, source.save())
    for _ in range(30):
        moved.step()
        stayed.step()
    assert moved.registers == stayed.registers
    assert moved.registers.faults == 0
    assert audit(memory, moved.spec, moved.registers).ok
    assert np.array_equal(memory.pages, stayed.memory.pages)
    memory.close()


def test_a_step_marks_everything_that_it_changes(boot: BootGuest) -> None:
    guest = boot()
    guest.memory.dirty.take()
    for _ in range(40):
        before = guest.memory.pages.copy()
        guest.step()
        changed = np.flatnonzero((before != guest.memory.pages).any(axis=1))
        assert set(changed.tolist()) <= set(guest.memory.dirty.take().tolist())
        assert (guest.memory.last_used[changed] == guest.registers.step).all()


@pytest.mark.parametrize(
    ("access", "share_of_hot_tenth"),
    [(AccessPattern.UNIFORM, 0.1), (AccessPattern.HOTSET, 0.9), (AccessPattern.SEQUENTIAL, 0.1)],
)
def test_accesses_spread_as_their_pattern_says(
    boot: BootGuest, access: AccessPattern, share_of_hot_tenth: float
) -> None:
    guest = boot(spec=busy(4 * MIB, access))
    steps = np.arange(1, 2001, dtype=np.uint64)
    counts = np.bincount(guest.writes.draw(steps, 8).reshape(-1), minlength=guest.memory.n_pages)
    used = np.flatnonzero(counts)
    assert len(used) == 256  # all of the working set of 1 MiB, and nothing else
    assert used[-1] - used[0] == 255
    assert used[0] >= guest.books.first_data_page
    hot = counts[used[0] : used[0] + 25].sum() / counts.sum()
    assert hot == pytest.approx(share_of_hot_tenth, abs=0.02)


def test_sequential_writes_follow_one_another(boot: BootGuest) -> None:
    guest = boot(spec=busy(4 * MIB, AccessPattern.SEQUENTIAL))
    count = guest.pace.writes_per_turn
    pages = guest.writes.draw(np.arange(1, 20, dtype=np.uint64), count).reshape(-1)
    first = pages.min()
    assert (np.diff(pages - first) % 256 == 1).all()


@pytest.mark.parametrize("compressibility", [0.0, 0.5, 1.0])
def test_contents_are_as_compressible_as_asked(compressibility: float) -> None:
    pool = content_pool(compressibility)
    constant = (pool.rows[:, 2:-2] == pool.rows[0, -3]).mean() if compressibility else 0.0
    assert constant == pytest.approx(compressibility, abs=0.01)
    assert len(np.unique(pool.rows[:, 2])) == (1 if compressibility == 1 else POOL_PAGES)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("write_rate_bytes_per_s", [None, 0, 1000, 50 * MIB, 500 * MIB])
def test_steps_add_up_to_the_rates_asked_for(profile: str, write_rate_bytes_per_s: int | None) -> None:
    spec = resolve(profile, 256 * MIB, write_rate_bytes_per_s=write_rate_bytes_per_s)
    pace = Pace.of(spec)
    n_steps = 100_000
    seconds = n_steps * pace.period_s
    writes = sum(map(pace.writes_in, range(1, n_steps + 1)))
    reads = sum(map(pace.reads_in, range(1, n_steps + 1)))
    assert writes * PAGE_SIZE / seconds == pytest.approx(spec.write_rate_bytes_per_s, rel=0.01)
    assert reads * PAGE_SIZE / seconds == pytest.approx(spec.read_rate_bytes_per_s, rel=0.01)
    assert pace.writes_per_turn <= 256


def test_an_idle_guest_steps_about_once_a_second() -> None:
    assert Pace.of(resolve("idle", 16 * MIB)).period_s == pytest.approx(1.0)
