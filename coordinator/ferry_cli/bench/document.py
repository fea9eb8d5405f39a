"""What the bench prints: a pure function of what was measured."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

from ferry_cli.bench.floor import Floor
from ferry_cli.bench.machine import machine
from ferry_cli.bench.peers import PeerRun
from ferry_cli.tables import blackout_line
from ferry_types.migrations import BlackoutParts
from ferry_types.units import format_bit_rate, format_duration, format_rate, format_size


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked for. ``fill`` is zero, random, files or a path.

    ``write_rate_bytes_per_s``: of the guest, None for the workload's own. ``rate_bytes_per_s``: of the hosts'
    NICs, None without any.
    """

    memory_bytes: int
    fill: str
    workload: str
    option: str
    write_rate_bytes_per_s: int | None = None
    rate_bytes_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class OwnRun:
    """One live migration. ``total_s`` is the outside stopwatch's, the black-out the agents' own.

    ``last_bytes_sent``: of ``bytes_sent``, those of the last copy in the pause. ``source_processors``: how
    many the agent kept busy on average, with its guest. ``stolen_s``: see ``Lap``. ``blackout``: the parts of
    ``blackout_s``; None if the target did not tell.
    """

    total_s: float
    blackout_s: float
    throughput_bytes_per_s: float
    brownout_s: float
    bytes_sent: int
    last_bytes_sent: int
    source_processors: float
    target_processors: float
    stolen_s: float
    blackout: BlackoutParts | None = None


@dataclass(frozen=True, slots=True)
class PeerRuns:
    """What a peer did; ``problem`` says why it did nothing, if so."""

    name: str
    command: str
    runs: tuple[PeerRun, ...]
    problem: str = ""


def document(
    question: Question, runs: Sequence[OwnRun], floor: Floor, peers: Sequence[PeerRuns], set_aside: int = 0
) -> dict[str, Any]:
    """The result as JSON. ``runs`` is not empty. ``set_aside``: so many more did not count."""
    own_rate = median(run.throughput_bytes_per_s for run in runs)
    blackouts = sorted(run.blackout_s for run in runs)
    median_s, p95_s = median(blackouts), percentile(blackouts, 0.95)
    return {
        **asdict(question),
        "machine": asdict(machine()),
        "runs": [asdict(run) for run in runs],
        "set_aside": set_aside,
        "median": {
            "total_s": median(run.total_s for run in runs),
            "blackout_s": median_s,
            "throughput_bytes_per_s": own_rate,
        },
        "floor_s": floor.total_s,
        "floor": asdict(floor),
        "blackout": {
            "median_s": median_s,
            "p95_s": p95_s,
            "ratio_to_floor": {"median": median_s / floor.total_s, "p95": p95_s / floor.total_s},
            "median_parts": _median_parts([run.blackout for run in runs if run.blackout is not None]),
        },
        "peers": {peer.name: _peer_view(peer, own_rate) for peer in peers},
    }


def _median_parts(parts: Sequence[BlackoutParts]) -> dict[str, float] | None:
    """The median of each part; together they need not be the median black-out."""
    if not parts:
        return None
    names = (field.name for field in fields(BlackoutParts))
    return {name: median(getattr(each, name) for each in parts) for name in names}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the values that at least that share of them does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    middle, blackout = result["median"], result["blackout"]
    ratio = blackout["ratio_to_floor"]
    where = result["machine"]
    rate = result["rate_bytes_per_s"]
    meanwhile = f"workload {result['workload']}"
    if rate is not None:
        meanwhile += f", NICs of {format_bit_rate(rate)}"
    said = [
        f"{format_size(result['memory_bytes'])} of memory ({result['fill']}), {meanwhile}, "
        f"{len(result['runs'])} runs on {where['cpu']}, {where['cores']} cores, Linux {where['kernel']}",
        f"ferry ({result['option']}): median {format_duration(middle['total_s'])}, "
        f"{format_rate(middle['throughput_bytes_per_s'])}",
        f"black-out: median {format_duration(blackout['median_s'])} ({ratio['median']:.1f} times the floor "
        f"of {format_duration(result['floor_s'])}), 95th percentile {format_duration(blackout['p95_s'])} "
        f"({ratio['p95']:.1f} times)",
    ]
    if blackout["median_parts"] is not None:
        said.append(blackout_line(BlackoutParts(**blackout["median_parts"])))
    for name, peer in result["peers"].items():
        if peer["median"] is None:
            said.append(f"{name}: not measured, {peer['problem']}")
        else:
            said.append(
                f"{name}: median {format_duration(peer['median']['total_s'])}, "
                f"{format_rate(peer['median']['throughput_bytes_per_s'])}; "
                f"ferry reaches {peer['ratio']:.2f} of it"
            )
    if result["set_aside"]:
        said.append(set_aside_line(result["set_aside"]))
    return said


def set_aside_line(runs: int) -> str:
    """Of runs that do not count."""
    some = "1 run was" if runs == 1 else f"{runs} runs were"
    return f"{some} made again: the hypervisor had taken processor time meanwhile."


def _peer_view(peer: PeerRuns, own_rate: float) -> dict[str, Any]:
    if not peer.runs:
        return {
            "median": None,
            "ratio": None,
            "command": peer.command or None,
            "runs": [],
            "problem": peer.problem,
        }
    rate = median(run.throughput_bytes_per_s for run in peer.runs)
    return {
        "median": {"total_s": median(run.total_s for run in peer.runs), "throughput_bytes_per_s": rate},
        "ratio": own_rate / rate,
        "command": peer.command,
        "runs": [asdict(run) for run in peer.runs],
        "problem": peer.problem or None,
    }
