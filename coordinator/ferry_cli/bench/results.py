"""What a whole bench has measured, as one document that is written and read back.

Times of the runs are in their order, so that the n-th of all movers of a group are neighbours in time.
Throughput is the memory's size over the time, whatever went over the wire; a ratio is our throughput over a
peer's, of medians.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ferry_cli.bench.cells import Group
from ferry_cli.bench.document import OwnRun, PeerRuns, percentile
from ferry_cli.bench.machine import Machine
from ferry_cli.bench.rounds import Measured
from ferry_types.errors import FerryError, failed, malformed

FORMAT: Final = 1
_DIGITS: Final = 6
"""After the point: microseconds."""

Times = Annotated[tuple[float, ...], Field(min_length=1, max_length=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OwnResult(_Part):
    """One cell: an option. Medians of its runs, and the runs' own times.

    ``spread``: between the slowest and the fastest run, as a share of the median. ``processors``: that the
    agents kept busy, source and target. ``ratios``: to the group's peers.
    """

    option: str
    command: str
    total_s: float
    throughput_bytes_per_s: int
    spread: float
    brownout_s: float
    bytes_sent: int
    last_bytes_sent: int
    processors: tuple[float, float]
    blackout_s: float
    blackout_p95_s: float
    runs_total_s: Times
    runs_blackout_s: Times
    ratios: dict[str, float] = Field(default_factory=dict)


class PeerResult(_Part):
    """A peer; its figures are None if it did not run, and ``problem`` says why."""

    name: str
    command: str | None
    total_s: float | None = None
    throughput_bytes_per_s: int | None = None
    spread: float | None = None
    runs_total_s: tuple[float, ...] = ()
    problem: str | None = None


class GroupResult(_Part):
    """What was measured in turn. ``rate_bytes_per_s``: of the NICs, None without any."""

    wire: str
    rate_bytes_per_s: int | None
    contents: str
    guest: str
    workload: str
    write_rate_bytes_per_s: int | None
    is_distribution: bool
    memory_bytes: int
    floor_s: float = Field(gt=0)
    set_aside: int = Field(default=0, ge=0)
    """Runs of ours and of the peers' that were made again."""
    own: Annotated[tuple[OwnResult, ...], Field(min_length=1)]
    peers: tuple[PeerResult, ...]

    def option(self, name: str) -> OwnResult | None:
        """Of that option, if it was measured."""
        return next((each for each in self.own if each.option == name), None)

    def peer(self, name: str) -> PeerResult | None:
        """Of that peer, if it was measured."""
        found = (each for each in self.peers if each.name == name and each.throughput_bytes_per_s is not None)
        return next(found, None)


class SuiteResult(_Part):
    """A whole bench. ``made_at``: RFC 3339, when it began. ``duration_s``: that it took."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    made_at: str
    duration_s: float
    command: str
    release: str
    machine: Machine
    link_command: dict[str, str]
    """Of each shaped wire: what holds the link of the peers to its goodput, in a network namespace."""
    groups: Annotated[tuple[GroupResult, ...], Field(min_length=1)]


def group_result(group: Group, measured: Measured) -> GroupResult:
    """A group's figures, worked out of what was measured."""
    peers = tuple(_peer_result(each) for each in measured.peers)
    rates = {each.name: each.throughput_bytes_per_s for each in peers}
    return GroupResult(
        wire=group.wire.name,
        rate_bytes_per_s=group.wire.rate_bytes_per_s,
        contents=group.contents,
        guest=group.guest.name,
        workload=group.guest.workload,
        write_rate_bytes_per_s=group.guest.write_rate_bytes_per_s,
        is_distribution=group.is_distribution,
        memory_bytes=group.wire.memory_bytes,
        floor_s=round(measured.floor.total_s, _DIGITS),
        set_aside=measured.set_aside,
        own=tuple(
            _own_result(option, group.command(option), runs, rates)
            for option, runs in zip(group.options, measured.own, strict=True)
        ),
        peers=peers,
    )


def _own_result(
    option: str, command: str, runs: tuple[OwnRun, ...], rates: dict[str, int | None]
) -> OwnResult:
    throughput = median(run.throughput_bytes_per_s for run in runs)
    blackouts = sorted(run.blackout_s for run in runs)
    return OwnResult(
        option=option,
        command=command,
        total_s=_rounded(median(run.total_s for run in runs)),
        throughput_bytes_per_s=round(throughput),
        spread=_spread([run.total_s for run in runs]),
        brownout_s=_rounded(median(run.brownout_s for run in runs)),
        bytes_sent=round(median(run.bytes_sent for run in runs)),
        last_bytes_sent=round(median(run.last_bytes_sent for run in runs)),
        processors=(
            round(median(run.source_processors for run in runs), 2),
            round(median(run.target_processors for run in runs), 2),
        ),
        blackout_s=_rounded(median(blackouts)),
        blackout_p95_s=_rounded(percentile(blackouts, 0.95)),
        runs_total_s=tuple(_rounded(run.total_s) for run in runs),
        runs_blackout_s=tuple(_rounded(run.blackout_s) for run in runs),
        ratios={name: round(throughput / rate, 3) for name, rate in rates.items() if rate is not None},
    )


def _peer_result(peer: PeerRuns) -> PeerResult:
    problem, command = peer.problem or None, peer.command or None
    if not peer.runs:
        return PeerResult(name=peer.name, command=command, problem=problem)
    times = [run.total_s for run in peer.runs]
    return PeerResult(
        name=peer.name,
        command=command,
        total_s=_rounded(median(times)),
        throughput_bytes_per_s=round(median(run.throughput_bytes_per_s for run in peer.runs)),
        spread=_spread(times),
        runs_total_s=tuple(map(_rounded, times)),
        problem=problem,
    )


def as_document(result: SuiteResult) -> dict[str, Any]:
    """For JSON."""
    return result.model_dump(mode="json")


def as_text(result: SuiteResult) -> str:
    """For a file: an entry a line on the outer levels, what is in a cell on one line."""
    document = as_document(result)
    groups = document.pop("groups")
    head = json.dumps(document, indent=1, ensure_ascii=False).removesuffix("\n}")
    lines = []
    for group in groups:
        movers = {kind: ",\n".join(map(_line, group.pop(kind))) for kind in ("own", "peers")}
        inside = ",\n".join(f'"{kind}": [\n{each}\n]' for kind, each in movers.items())
        lines.append(f"{_line(group).removesuffix('}')},\n{inside}}}")
    return f'{head},\n "groups": [\n{",".join(lines)}\n]}}\n'


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def read(path: Path) -> SuiteResult:
    """The result in a file. Raises FerryError if it cannot be read, or is none."""
    try:
        return SuiteResult.model_validate_json(path.read_bytes())
    except OSError as error:
        hint = "name what ferry bench suite has written"
        raise FerryError(failed(f"cannot read {path}: {error.strerror}", hint)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        what = f"{path} is not a result of ferry bench suite: {place}: {first['msg']}"
        raise FerryError(malformed(what, "make one: ferry bench suite --out FILE.json")) from error


def _rounded(value_s: float) -> float:
    return round(value_s, _DIGITS)


def _spread(times_s: Iterable[float]) -> float:
    times = sorted(times_s)
    return round((times[-1] - times[0]) / median(times), 3)
