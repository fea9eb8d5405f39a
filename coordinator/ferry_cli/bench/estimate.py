"""How long a bench takes, from what its parts took on a machine of two cores (medians, in seconds)."""

from collections.abc import Iterable
from typing import Final

from ferry_cli.bench.cells import Group
from ferry_cli.bench.link import link_goodput_bytes_per_s
from ferry_cli.bench.memory import SETTLE_S
from ferry_cli.bench.qemu import MULTIFD_CHANNELS, TRIALS_PER_CHANNEL_COUNT
from ferry_cli.bench.rounds import is_hurried
from ferry_types.workloads import Fill

_LAB_S: Final = 8.0
_RUN_S: Final = 0.25
"""Of a move of ours or a peer's, around it: guests that boot, processes that start, samples of the floor."""

_FILL_S_PER_BYTE: Final = 0.25 / 2**30
_UNSHAPED_BYTES_PER_S: Final = 1.5e9
_ZERO_BYTES_PER_S: Final = 4e9
_TRIED_PEERS: Final = ("qemu-multifd", "qemu-zstd")
_TRIALS: Final = len(MULTIFD_CHANNELS) * TRIALS_PER_CHANNEL_COUNT


def estimate_s(groups: Iterable[Group]) -> float:
    """About how long these groups take, labs that are started for them included."""
    chosen = list(groups)
    labs = len({group.wire.name for group in chosen})
    return _LAB_S * labs + sum(map(_group_s, chosen))


def _group_s(group: Group) -> float:
    question = group.questions[0]
    memory_bytes, rate = question.memory_bytes, question.rate_bytes_per_s
    speed = _ZERO_BYTES_PER_S if question.fill == Fill.ZERO else _UNSHAPED_BYTES_PER_S
    if rate is not None and question.fill != Fill.ZERO:
        speed = min(speed, link_goodput_bytes_per_s(rate))
    run_s = _RUN_S + _FILL_S_PER_BYTE * memory_bytes + memory_bytes / speed
    if is_hurried(question):
        run_s += SETTLE_S * (2 if group.is_compared else 1)  # once more after free memory was warmed
    trials = _TRIALS * sum(peer in _TRIED_PEERS for peer in group.peers)
    return run_s * (group.runs * (len(group.options) + len(group.peers)) + trials)
