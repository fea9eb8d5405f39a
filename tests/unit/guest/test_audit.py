"""An audit finds what a faulty migration does to memory. Each test plants one fault."""

import numpy as np
import pytest
from tests.unit.guest.conftest import MIB, BootGuest

from ferry_agent.guest.audit import Audit, AuditReport, audit
from ferry_agent.guest.books import JOURNAL_ENTRIES
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_agent.guest.registers import Registers
from ferry_types.limits import AUDIT_ERRORS_MAX
from ferry_types.workloads import Fill, FillSpec, resolve


def run(guest: Guest, n_steps: int) -> None:
    for _ in range(n_steps):
        guest.step()


def check(guest: Guest) -> AuditReport:
    return audit(guest.memory, guest.spec, guest.registers)


def pages_of_step(guest: Guest, step: int) -> list[int]:
    drawn = guest.writes.draw(np.array([step], dtype=np.uint64), guest.pace.writes_per_turn)
    return sorted(set(drawn[0].tolist()))


def test_a_clean_run_is_clean_and_says_how_much_it_read(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 2 * JOURNAL_ENTRIES + 7)
    assert check(guest) == AuditReport(True, guest.memory.n_pages - guest.books.first_data_page, ())


def test_a_lost_page_that_holds_data_of_the_fill(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 20)
    guest.memory.pages[1000] = 0
    assert check(guest).errors == ("page 1000 does not match its checksum",)


def test_a_page_that_never_arrived(boot: BootGuest) -> None:
    guest = boot()
    guest.memory.pages[1000] = 0
    guest.memory.touched[1000] = False
    assert check(guest).errors == ("page 1000 is lost: it should hold data and was never touched",)


def test_pages_of_zeros_that_were_not_sent_are_no_fault(boot: BootGuest) -> None:
    guest = boot(fill=FillSpec(Fill.ZERO))
    run(guest, 20)
    guest.memory.touched[~guest.memory.pages.any(axis=1)] = False
    assert check(guest).ok


def test_a_stale_page(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 20)
    page = pages_of_step(guest, 21)[0]
    before = guest.memory.pages[page].copy()
    run(guest, 1)
    guest.memory.pages[page] = before
    errors = check(guest).errors
    assert errors[0].startswith(f"page {page} does not match its checksum")
    assert f"page {page} does not bear the stamp of step 21, the last to write it" in errors


@pytest.mark.parametrize("half", [slice(0, 2048), slice(2048, 4096)])
def test_a_torn_page(boot: BootGuest, half: slice) -> None:
    guest = boot()
    run(guest, 20)
    page = pages_of_step(guest, 21)[0]
    before = guest.memory.pages[page].copy()
    run(guest, 1)
    guest.memory.pages[page][half] = before[half]
    assert f"page {page} is torn: the stamps at its two ends differ" in check(guest).errors


def test_a_torn_page_is_noticed_by_the_guest_that_reads_it(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 20)
    written = sorted({page for step in range(1, 21) for page in pages_of_step(guest, step)})
    guest.memory.words[written, -1] ^= np.uint64(1)
    run(guest, 20)
    assert guest.registers.faults > 0
    assert "was read and its stamp was wrong" in guest.last_fault
    assert f"faults that the guest itself counted: {guest.registers.faults}" in check(guest).errors


def test_two_pages_in_each_others_place(boot: BootGuest) -> None:
    guest = boot()
    guest.memory.pages[[500, 501]] = guest.memory.pages[[501, 500]]
    assert len(check(guest).errors) == 2


def test_a_stale_page_of_the_ledger(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 20)
    ledger_page = guest.books.ledger_page + pages_of_step(guest, 21)[0] // 512
    before = guest.memory.pages[ledger_page].copy()
    run(guest, 1)
    guest.memory.pages[ledger_page] = before
    errors = check(guest).errors
    assert any("does not match its checksum: its stamp says step 21" in error for error in errors)
    assert "the ledger does not add up to the sum in the registers: pages of it are lost or stale" in errors


def test_a_page_stale_together_with_the_ledger(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 20)
    pages = pages_of_step(guest, 21)
    stale = sorted({*pages, *(guest.books.ledger_page + page // 512 for page in pages)})
    before = guest.memory.pages[stale].copy()
    run(guest, 1)
    guest.memory.pages[stale] = before
    errors = check(guest).errors
    assert "the ledger does not add up to the sum in the registers: pages of it are lost or stale" in errors
    assert f"page {pages[0]} does not bear the stamp of step 21, the last to write it" in errors


@pytest.mark.parametrize("page", [0, 1])
def test_a_stale_header_or_journal(boot: BootGuest, page: int) -> None:
    guest = boot()
    run(guest, 20)
    before = guest.memory.pages[page].copy()
    run(guest, 1)
    guest.memory.pages[page] = before
    assert len(check(guest).errors) == 1 + page  # the replay, too, misses an entry of the journal


def test_all_of_memory_stale(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 20)
    before = guest.memory.pages.copy()
    run(guest, 1)
    guest.memory.pages[:] = before
    assert any(error.startswith("the header page says step 20") for error in check(guest).errors)


def test_a_step_made_twice(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 20)
    state = guest.save()
    run(guest, 1)
    again = Guest.restore("vm1", guest.memory, guest.spec, state)
    run(again, 3)
    assert again.registers.faults == 1
    assert "faults that the guest itself counted: 1" in check(again).errors


def test_a_gap(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 20)
    before = guest.memory.pages.copy()
    run(guest, 1)
    guest.memory.pages[:] = before
    run(guest, 3)
    assert guest.registers.faults == 1
    assert "faults that the guest itself counted: 1" in check(guest).errors


def test_a_fault_is_remembered_over_a_move(boot: BootGuest) -> None:
    guest = boot()
    guest.memory.pages[0] = 0
    run(guest, 1)
    moved = Guest.restore("vm1", guest.memory, guest.spec, guest.save())
    run(moved, 2000)
    assert moved.registers.faults == 1
    assert not check(moved).ok


def test_the_latest_fault_is_put_in_words_where_it_is_known(boot: BootGuest) -> None:
    guest = boot()
    guest.memory.pages[0] = 0
    run(guest, 1)
    live = Audit(guest.memory, guest.spec, lambda: guest.registers, lambda: guest.last_fault)
    while not live.advance():
        pass
    expected = (
        "faults that the guest itself counted: 1; before step 1 the header page did not match the registers"
    )
    assert live.report().errors == (expected,)


def test_the_registers_of_another_boot(boot: BootGuest) -> None:
    guest = boot()
    run(guest, 5)
    other = Registers.at_boot("vm1", 4 * MIB, guest.spec, boot_epoch=4)
    assert not audit(guest.memory, guest.spec, other).ok


def test_the_list_of_errors_is_bounded_and_says_how_many_more(boot: BootGuest) -> None:
    guest = boot()
    first = guest.books.first_data_page
    guest.memory.pages[first:] ^= 1
    report = check(guest)
    assert len(report.errors) == AUDIT_ERRORS_MAX
    assert report.errors[-1] == f"... and {guest.memory.n_pages - first - AUDIT_ERRORS_MAX + 1} more errors"


def test_the_guest_may_run_between_two_slices() -> None:
    memory = GuestMemory(32 * MIB)
    # All of memory is the working set, so that every slice meets fresh writes.
    guest = Guest.boot("vm1", memory, resolve("thrash", 32 * MIB), FillSpec(Fill.RANDOM), 1)
    live = Audit(memory, guest.spec, lambda: guest.registers)
    slices = 1
    while not live.advance():
        run(guest, 5)
        slices += 1
    assert slices > 4
    assert live.report().errors == ()
    memory.close()
