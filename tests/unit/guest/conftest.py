"""Small guests, made and freed."""

from collections.abc import Callable, Iterator

import pytest

from ferry_agent.guest.guest import Guest
from ferry_agent.guest.memory import GuestMemory
from ferry_types.workloads import AccessPattern, Fill, FillSpec, WorkloadSpec, resolve

MIB = 2**20

BootGuest = Callable[..., Guest]


@pytest.fixture
def boot() -> Iterator[BootGuest]:
    """Boots guests: ``boot(name="vm1", memory_bytes=4 MiB, spec=..., fill=random)``."""
    memories: list[GuestMemory] = []

    def make(
        name: str = "vm1",
        memory_bytes: int = 4 * MIB,
        spec: WorkloadSpec | None = None,
        fill: FillSpec = FillSpec(Fill.RANDOM),  # noqa: B008 - a frozen value
    ) -> Guest:
        memory = GuestMemory(memory_bytes)
        memories.append(memory)
        return Guest.boot(name, memory, spec or busy(memory_bytes), fill, boot_epoch=3)

    yield make
    for memory in memories:
        memory.close()


def busy(memory_bytes: int, access: AccessPattern = AccessPattern.UNIFORM) -> WorkloadSpec:
    """Writes 8 pages and reads 8 in each step, over 1 MiB."""
    return resolve(
        "sql",
        memory_bytes,
        write_rate_bytes_per_s=8 * MIB,
        read_rate_bytes_per_s=8 * MIB,
        working_set_bytes=1 * MIB,
        access=access,
    )
