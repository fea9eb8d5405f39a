"""Whatever is damaged, an audit finds it; whatever a guest does, an undamaged memory passes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ferry_agent.guest.audit import audit
from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_types.limits import PAGE_SIZE
from ferry_types.workloads import AccessPattern, Fill, FillSpec, resolve

MIB = 2**20
MEMORY_BYTES = 4 * MIB

specs = st.builds(
    lambda write_rate, read_rate, working_set, access, compressibility: resolve(
        "sql",
        MEMORY_BYTES,
        write_rate_bytes_per_s=write_rate,
        read_rate_bytes_per_s=read_rate,
        working_set_bytes=working_set,
        access=access,
        compressibility=compressibility,
    ),
    write_rate=st.integers(0, 100 * MIB),
    read_rate=st.integers(0, 20 * MIB),
    working_set=st.integers(PAGE_SIZE, MEMORY_BYTES),
    access=st.sampled_from(AccessPattern),
    compressibility=st.floats(0, 1),
)


@settings(max_examples=40)
@given(
    spec=specs, fill=st.sampled_from([Fill.ZERO, Fill.RANDOM]), legs=st.lists(st.integers(0, 40), max_size=4)
)
def test_a_guest_that_moves_between_steps_stays_clean(spec, fill, legs) -> None:  # type: ignore[no-untyped-def]
    memory = GuestMemory(MEMORY_BYTES)
    guest = Guest.boot("vm1", memory, spec, FillSpec(fill), 1)
    for n_steps in legs:
        for _ in range(n_steps):
            guest.step()
        target = GuestMemory(MEMORY_BYTES)
        sent = np.flatnonzero(memory.pages.any(axis=1))
        target.write(sent, memory.pages[sent])
        guest = Guest.restore("vm1", target, spec, guest.save())
        memory.close()
        memory = target
        report = audit(memory, spec, guest.registers)
        assert report.errors == ()
    assert guest.registers.step == sum(legs)
    assert guest.registers.faults == 0
    memory.close()


@settings(max_examples=60)
@given(data=st.data())
def test_one_wrong_word_anywhere_is_found(data: st.DataObject) -> None:
    memory = GuestMemory(MEMORY_BYTES)
    spec = resolve("sql", MEMORY_BYTES, write_rate_bytes_per_s=8 * MIB)
    guest = Guest.boot("vm1", memory, spec, FillSpec(Fill.RANDOM), 1)
    for _ in range(data.draw(st.integers(0, 20), label="steps")):
        guest.step()
    page = data.draw(st.integers(guest.books.ledger_page, memory.n_pages - 1), label="page")
    word = data.draw(st.integers(0, 511), label="word")
    memory.words[page, word] ^= np.uint64(data.draw(st.integers(1, 2**64 - 1), label="difference"))
    assert not audit(memory, spec, guest.registers).ok
    memory.close()
