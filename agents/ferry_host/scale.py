"""Where a host's real sizes and rates are told from the emulated ones.

Outside the engine all is emulated: orders, reports, specifications, NICs, and the host core, which counts
memory. Inside, all is real: guest memory, pages, frames, what NICs let pass. An amount crosses at four
places, each of which has this scale: ``ferry_agent.rack`` (memory and guests), ``network.adapter`` (NICs),
``migration.figures`` (what moves measure, by which convergence decides) and ``ferry_agent.estimates``.

Times are the same on both sides. So all that is a ratio of amounts, or an amount over a rate, is the same
too: how long a pass takes, what it leaves dirty, whether that fits into a black-out. Decisions see emulated
figures, and their limits in bytes are meant as such. What is *not* the same at every scale:

- One real page stands for ``factor`` pages: dirty pages, and pages that are zero, come in so many.
- The guest's books, three pages that any step dirties, and the device state stand for ``factor`` times their
  size.
- A frame's headers weigh what they do at scale 1 in a frame of as many real pages; and slow NICs have smaller
  frames, down to a page.
- Processors are not scaled: to hash, compress or copy an Nth takes an Nth of the time, so that they bound
  less than at scale 1. Commits, round trips and the steps of guests cost what they always do.
- A guest's step is up to half as long again, or a third shorter, where its writes do not divide
  (``Pace.divided``).
"""

from dataclasses import dataclass, replace

from ferry_types.errors import FerryError
from ferry_types.limits import PAGE_SIZE
from ferry_types.networks import Nic
from ferry_types.scale import check_scale, memory_problem
from ferry_types.vms import VmSpec
from ferry_types.workloads import WorkloadSpec, usable_bytes


@dataclass(frozen=True, slots=True)
class Scale:
    """``factor``: emulated amounts over real ones. Raises ValueError if it is out of range."""

    factor: int = 1

    def __post_init__(self) -> None:
        check_scale(self.factor)

    # --- from emulated to real --------------------------------------------------------------------

    def real_memory_bytes(self, spec: VmSpec) -> int:
        """What a VM's memory really takes. Raises FerryError (refused) if it does not fit the scale."""
        if (problem := memory_problem(spec.name, spec.memory_bytes, self.factor)) is not None:
            raise FerryError(problem)
        return spec.memory_bytes // self.factor

    def real_workload(self, spec: VmSpec) -> WorkloadSpec:
        """What its guest really does: a working set of whole pages, within what the real books leave.

        Rates are rounded to bytes. Raises FerryError (refused) if the VM does not fit the scale.
        """
        workload, memory_bytes = spec.workload, self.real_memory_bytes(spec)
        set_bytes = max(workload.working_set_bytes // self.factor // PAGE_SIZE, 1) * PAGE_SIZE
        return replace(
            workload,
            write_rate_bytes_per_s=round(workload.write_rate_bytes_per_s / self.factor),
            read_rate_bytes_per_s=round(workload.read_rate_bytes_per_s / self.factor),
            working_set_bytes=min(set_bytes, usable_bytes(memory_bytes)),
        )

    def real_nic(self, nic: Nic) -> Nic:
        """What a NIC really lets pass, rounded to bytes per second; latency and MTU stay."""
        return replace(nic, rate_bytes_per_s=round(nic.rate_bytes_per_s / self.factor))

    def real_rate(self, rate_bytes_per_s: float) -> float:
        """What a rate really is."""
        return rate_bytes_per_s / self.factor

    # --- from real to emulated --------------------------------------------------------------------

    def emulated(self, amount: int) -> int:
        """Pages or bytes that so many real ones stand for."""
        return amount * self.factor

    def emulated_rate(self, rate_per_s: float) -> float:
        """The same of pages or bytes per second."""
        return rate_per_s * self.factor


UNSCALED = Scale()
