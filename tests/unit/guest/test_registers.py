"""Device state is accepted only if it is whole and of this very VM."""

import pytest

from ferry_agent.guest.registers import DEVICE_STATE_BYTES, Registers
from ferry_types.errors import FerryError
from ferry_types.limits import DEVICE_STATE_BYTES_MAX
from ferry_types.workloads import resolve

MIB = 2**20
SPEC = resolve("sql", 16 * MIB)
REGISTERS = Registers.at_boot("vm1", 16 * MIB, SPEC, 4).advanced(12, 1, 99)


def test_what_is_saved_is_loaded() -> None:
    state = REGISTERS.save()
    assert len(state) == DEVICE_STATE_BYTES <= DEVICE_STATE_BYTES_MAX
    assert Registers.load(state, "vm1", 16 * MIB, SPEC) == REGISTERS


@pytest.mark.parametrize("position", range(0, DEVICE_STATE_BYTES, 5))
def test_any_changed_byte_is_noticed(position: int) -> None:
    state = bytearray(REGISTERS.save())
    state[position] ^= 0x10
    with pytest.raises(FerryError, match="cannot be used"):
        Registers.load(bytes(state), "vm1", 16 * MIB, SPEC)


@pytest.mark.parametrize("state", [b"", REGISTERS.save()[:-1], REGISTERS.save() + b"\0"])
def test_a_wrong_length_is_noticed(state: bytes) -> None:
    with pytest.raises(FerryError, match="wrong length"):
        Registers.load(state, "vm1", 16 * MIB, SPEC)


def test_the_state_of_another_vm_is_refused() -> None:
    state = REGISTERS.save()
    with pytest.raises(FerryError, match="name_hash, seed"):
        Registers.load(state, "vm2", 16 * MIB, SPEC)
    with pytest.raises(FerryError, match="n_pages"):
        Registers.load(state, "vm1", 32 * MIB, SPEC)
    with pytest.raises(FerryError, match="spec_digest"):
        Registers.load(state, "vm1", 16 * MIB, resolve("web", 16 * MIB))


def test_each_boot_has_a_seed_of_its_own() -> None:
    assert REGISTERS.seed != Registers.at_boot("vm1", 16 * MIB, SPEC, 5).seed
