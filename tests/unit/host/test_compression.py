"""When pages are compressed: the budget of processor time, the probing, and the wire that must not wait."""

import pytest

from ferry_host.compression import (
    BURST_S,
    DRY_MEMORY_S,
    FAILURES_MAX,
    PROBE_EVERY_BATCHES,
    RESERVE_PROCESSORS,
    TAKEN_PER_WAITED,
    WINDOW_S,
    WIRE_LOW_FRAMES,
    Governor,
    Pending,
    Plain,
    ProcessorBudget,
    Window,
)

BATCH_S = 0.004
"""What compressing one batch costs."""

BATCH_PAGES, BATCH_BYTES = 512, 512 * 4096


def window(idle: float, own: float = 0.0, waited: float = 0.0) -> Window:
    """A window with so many processors idle, used by compression, and wanted by it in vain."""
    return Window(WINDOW_S, idle * WINDOW_S, own * WINDOW_S, waited * WINDOW_S)


def share_used(budget: ProcessorBudget, duration_s: float, began_at_s: float) -> float:
    """Processors that compression takes of this budget if it has work all the time."""
    used_s, now_s = 0.0, began_at_s
    while now_s < began_at_s + duration_s:
        now_s += 0.001
        if budget.allows(now_s):
            budget.spend(BATCH_S)
            used_s += BATCH_S
    return used_s / duration_s


# --- processors -------------------------------------------------------------------------------------


def test_before_the_first_look_compression_is_allowed() -> None:
    assert ProcessorBudget(2, 0.0).allows(0.0)


def test_nothing_to_spare_means_nothing_from_the_next_look_on() -> None:
    budget = ProcessorBudget(2, 0.0)
    budget.observe(window(idle=0.0))
    assert budget.spare_processors == 0
    assert not budget.allows(0.1)
    assert not budget.allows(1000.0)


@pytest.mark.parametrize("spare", [0.3, 0.8])
def test_what_is_idle_is_used_but_for_the_reserve(spare: float) -> None:
    budget = ProcessorBudget(2, 0.0)
    budget.observe(window(idle=spare))
    used = share_used(budget, 10.0, 0.0)
    assert used == pytest.approx(spare - RESERVE_PROCESSORS, rel=0.05)


def test_no_more_than_the_threads_can_use() -> None:
    budget = ProcessorBudget(2, 0.0)
    budget.observe(window(idle=64.0))
    assert budget.spare_processors == 2


def test_its_own_use_counts_as_spare() -> None:
    budget = ProcessorBudget(2, 0.0)
    budget.observe(window(idle=0.5))
    for _ in range(100):
        budget.observe(window(idle=0.0, own=0.5))
    assert budget.spare_processors == pytest.approx(0.5 - RESERVE_PROCESSORS)


def test_a_tenth_of_a_processor_that_a_guest_wants_is_not_spare() -> None:
    """What a thread of low priority gets between two guests that never rest."""
    budget = ProcessorBudget(2, 0.0)
    budget.observe(window(idle=0.0, own=0.2, waited=1.8))
    assert budget.spare_processors == 0


def test_waiting_among_bursts_of_others_leaves_what_was_had() -> None:
    """Both processors were busy, compression with more of them than its priority takes from others."""
    budget = ProcessorBudget(2, 0.0)
    budget.observe(window(idle=0.0, own=0.6, waited=0.8))
    assert budget.spare_processors == pytest.approx(0.6 - 0.8 * TAKEN_PER_WAITED - RESERVE_PROCESSORS)


def test_less_is_believed_at_once_and_more_bit_by_bit() -> None:
    budget = ProcessorBudget(2, 0.0)
    budget.observe(window(idle=0.0))
    budget.observe(window(idle=1.1))
    assert 0 < budget.spare_processors < 0.5
    for _ in range(20):
        budget.observe(window(idle=1.1))
    assert budget.spare_processors == pytest.approx(1.0, rel=0.01)
    budget.observe(window(idle=0.4))
    assert budget.spare_processors == pytest.approx(0.3)


def test_an_idle_spell_is_not_saved_up() -> None:
    budget = ProcessorBudget(2, 0.0)
    budget.observe(window(idle=2.0))
    assert budget.allows(100.0)
    batches = 0
    while budget.allows(100.0):
        budget.spend(BATCH_S)
        batches += 1
    assert batches * BATCH_S <= 2 * BURST_S + BATCH_S


# --- batches that do not shrink -----------------------------------------------------------------------


def governor() -> Governor:
    """With processors in plenty."""
    made = Governor(2, 0.0)
    made.budget.observe(window(idle=64.0))
    return made


def decide(one: Governor, jobs: int, unacked: int, now_s: float, in_pause: bool = False) -> Pending | Plain:
    return one.decide(jobs, unacked, now_s, in_pause=in_pause)


def send(one: Governor, now_s: float, payload_bytes: int) -> bool:
    """The next batch of a slow wire; whether it was tried."""
    choice = decide(one, 0, 16, now_s)
    if isinstance(choice, Plain):
        one.sent_plain(BATCH_PAGES, choice)
        return False
    one.begun()
    one.finished(BATCH_PAGES, BATCH_BYTES, payload_bytes, 0.0)
    return True


def test_random_memory_is_only_probed() -> None:
    one = governor()
    tried = [send(one, number, BATCH_BYTES + 1) for number in range(FAILURES_MAX + 10 * PROBE_EVERY_BATCHES)]
    assert all(tried[:FAILURES_MAX])
    assert sum(tried[FAILURES_MAX:]) == 10
    assert one.explanation() == "0% of the pages were compressed; 100% did not shrink"


def test_a_probe_that_shrinks_ends_the_probing() -> None:
    one = governor()
    for number in range(FAILURES_MAX + PROBE_EVERY_BATCHES - 1):
        send(one, number, BATCH_BYTES)
    assert all(send(one, 100 + number, BATCH_BYTES // 2) for number in range(20))


def test_a_tenth_is_not_worth_it() -> None:
    one = governor()
    assert not one.finished(BATCH_PAGES, BATCH_BYTES, int(BATCH_BYTES * 0.91), 0.0)
    assert one.finished(BATCH_PAGES, BATCH_BYTES, int(BATCH_BYTES * 0.89), 0.0)


# --- the wire -----------------------------------------------------------------------------------------


def test_a_busy_wire_waits_for_compressed_batches() -> None:
    one = governor()
    assert decide(one, 2, 16, 0.0) is Pending.COMPRESS
    assert decide(one, 3, 16, 0.0) is Pending.WAIT
    assert decide(one, 3, 0, 0.0) is Pending.WAIT


def test_a_wire_that_ran_dry_gets_plain_batches_beside_the_compressed_ones() -> None:
    one = governor()
    one.wire_ran_dry(1.0)
    assert decide(one, 2, 0, 1.1) is Pending.COMPRESS
    assert decide(one, 3, WIRE_LOW_FRAMES, 1.1) is Plain.FAST_WIRE
    assert decide(one, 3, WIRE_LOW_FRAMES + 1, 1.1) is Pending.WAIT
    assert decide(one, 3, 0, 1.1 + DRY_MEMORY_S) is Pending.WAIT


def test_in_the_pause_a_fast_wire_gets_all_as_it_is_and_a_slow_one_does_not() -> None:
    one = governor()
    assert decide(one, 0, 0, 1.0, in_pause=True) is Pending.COMPRESS
    one.wire_ran_dry(1.0)
    assert decide(one, 0, 0, 1.1, in_pause=True) is Plain.FAST_WIRE
    assert decide(one, 0, 0, 1.1) is Pending.COMPRESS


def test_every_batch_is_accounted_for_in_words() -> None:
    one = governor()
    assert one.explanation() == ""
    one.finished(600, 600 * 4096, 300 * 4096, 0.0)
    one.sent_plain(300, Plain.NO_PROCESSOR)
    one.sent_plain(100, Plain.FAST_WIRE)
    assert one.explanation() == (
        "60% of the pages were compressed, to 50% of their size; 30% found no processor to spare; "
        "10% went out while the wire was faster than the compressor"
    )
