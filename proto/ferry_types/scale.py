"""The scale of a cluster: how much smaller it really is than what it emulates.

At scale N memory sizes and rates are really an Nth of what everybody sees, and times are what they are. Only
an agent knows the difference (``ferry_host.scale``); what is here are the rules for what fits a scale.
"""

from typing import Final

from ferry_types.errors import Refusal, refused
from ferry_types.limits import PAGE_SIZE, VM_MEMORY_BYTES_MIN
from ferry_types.networks import RATE_BYTES_PER_S_MIN, Nic
from ferry_types.units import format_size

RULE: Final = "scale"

SCALE_MAX: Final = 256
"""A guest dirties three pages of its books in whatever time: at 256 they stand for 3 MiB, for which 1 Gbit/s
takes 26 ms, half the black-out that is allowed. Beyond that, a move would tell more of the books than of the
guest."""


def check_scale(scale: int) -> int:
    """The scale itself. Raises ValueError if it is out of range."""
    if not 1 <= scale <= SCALE_MAX:
        raise ValueError(f"a scale of {scale} is out of range: from 1 to {SCALE_MAX}")
    return scale


def memory_problem(vm: str, memory_bytes: int, scale: int) -> Refusal | None:
    """Why a VM's memory (bytes, as everybody sees it) does not fit this scale, or None.

    One real page stands for ``scale`` pages, and what is left of the memory has to hold the guest's books.
    """
    grain_bytes, least_bytes = PAGE_SIZE * scale, VM_MEMORY_BYTES_MIN * scale
    if memory_bytes < least_bytes:
        what = f"{vm} has {format_size(memory_bytes)} of memory: at scale {scale} a VM has at least "
        return refused(RULE, what + format_size(least_bytes), "give it more memory, or use a smaller scale")
    if memory_bytes % grain_bytes == 0:
        return None
    what = (
        f"memory of {memory_bytes} bytes of {vm} is not a multiple of {format_size(grain_bytes)}, "
        f"what one page stands for at scale {scale}"
    )
    below_bytes = memory_bytes // grain_bytes * grain_bytes
    hint = f"give it {below_bytes}B or {below_bytes + grain_bytes}B, or use a smaller scale"
    return refused(RULE, what, hint)


def rate_problem(nic: Nic, scale: int) -> Refusal | None:
    """Why a NIC's rate does not fit this scale, or None."""
    least_bytes_per_s = RATE_BYTES_PER_S_MIN * scale
    if not 0 < nic.rate_bytes_per_s < least_bytes_per_s:
        return None
    what = (
        f"rate of {nic.rate_bytes_per_s * 8 // 1000}kbit/s of NIC {nic.name} is too low for scale {scale}: "
        f"at least {least_bytes_per_s * 8 // 1000}kbit/s"
    )
    return refused(RULE, what, "give it a higher rate, or use a smaller scale")
