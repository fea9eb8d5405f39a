"""What Hyperferry has to reach, beside what a bench has measured: a pure function of its result.

Targets of ratios go by idle guests. A target whose figures were not measured is left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ferry_cli.bench.contents import FILES
from ferry_cli.bench.results import GroupResult, OwnResult, SuiteResult
from ferry_types.migrations import TransportOption
from ferry_types.workloads import Fill

TCPIP, COMPRESSION, SMB, DIRECT = (
    TransportOption.TCPIP,
    TransportOption.COMPRESSION,
    TransportOption.SMB,
    TransportOption.DIRECT,
)
UNSHAPED, GIGABIT = "unshaped", "1Gbit/s"
IDLE, DIRTYING = "idle", "dirtying"
SOCKETS = ("socket", "socket-2")
BLACKOUT_FLOORS, BLACKOUT_P95_FLOORS, DIRTYING_FLOORS = 2.0, 5.0, 3.0


@dataclass(frozen=True, slots=True)
class Target:
    """``what`` is compared, in words, with what is ``asked``: the least, or the most if not ``is_least``."""

    what: str
    measured: float
    asked: float
    is_least: bool

    @property
    def is_met(self) -> bool:
        """Whether what was measured is within the bound."""
        return self.measured >= self.asked if self.is_least else self.measured <= self.asked


def targets(result: SuiteResult) -> list[Target]:
    """All that the result tells of, in the order in which they are shown."""
    found: list[Target] = []
    for each in (_throughput, _compression, _blackouts):
        found.extend(each(result.groups))
    return found


def _throughput(groups: Sequence[GroupResult]) -> Iterator[Target]:
    random = _group(groups, UNSHAPED, Fill.RANDOM, IDLE)
    if random is not None:
        yield from _ratio(random, TCPIP, "grpc", 0.85)
        yield from _ratio(random, SMB, "grpc-2", 0.9)
        yield from _not_below(random, SMB, TCPIP)
        yield from _ratio(random, DIRECT, "qemu-multifd", 1.0)
        measured = [peer for peer in map(random.peer, SOCKETS) if peer is not None]
        if measured:
            best = max(measured, key=lambda peer: peer.throughput_bytes_per_s or 0.0)
            yield from _ratio(random, DIRECT, best.name, 0.85)
    zero = _group(groups, UNSHAPED, Fill.ZERO, IDLE)
    if zero is not None:
        for own in zero.own:
            yield from _ratio(zero, own.option, "qemu", 1.5)


def _compression(groups: Sequence[GroupResult]) -> Iterator[Target]:
    """Brown-out over the time that what was sent takes at the rate of the link, headers forgotten."""
    files = _group(groups, GIGABIT, FILES, IDLE)
    own = None if files is None else files.option(COMPRESSION)
    if files is None or own is None or files.rate_bytes_per_s is None:
        return
    arithmetic_s = own.bytes_sent / files.rate_bytes_per_s
    what = "compression, files at 1 Gbit/s: brown-out over bytes sent at link rate"
    yield Target(what, own.brownout_s / arithmetic_s, 1.05, is_least=False)


def _blackouts(groups: Sequence[GroupResult]) -> Iterator[Target]:
    for group in groups:
        if group.is_distribution:
            yield from _over_floor(group)
    for group in groups:
        own = group.option(TCPIP)
        if group.guest == DIRTYING and group.contents == Fill.RANDOM and own is not None:
            what = f"black-out, 50 MiB/s written, {group.wire}: over last pages at wire speed + 3 floors"
            most_s = own.last_bytes_sent / _wire_bytes_per_s(own) + DIRTYING_FLOORS * group.floor_s
            yield Target(what, own.blackout_s / most_s, 1.0, is_least=False)


def _over_floor(group: GroupResult) -> Iterator[Target]:
    for own in group.own:
        of = f"black-out of an idle VM, {len(own.runs_blackout_s)} moves"
        median, p95 = own.blackout_s / group.floor_s, own.blackout_p95_s / group.floor_s
        yield Target(f"{of}: median over floor", median, BLACKOUT_FLOORS, is_least=False)
        yield Target(f"{of}: 95th percentile over floor", p95, BLACKOUT_P95_FLOORS, is_least=False)


def _wire_bytes_per_s(own: OwnResult) -> float:
    """What the wire carried while the guest ran."""
    return (own.bytes_sent - own.last_bytes_sent) / own.brownout_s


def _ratio(group: GroupResult, option: str, peer: str, asked: float) -> Iterator[Target]:
    own = group.option(option)
    if own is not None and peer in own.ratios:
        what = f"{option} over {peer}, {group.contents}, {group.wire}"
        yield Target(what, own.ratios[peer], asked, is_least=True)


def _not_below(group: GroupResult, option: str, other: str) -> Iterator[Target]:
    own, than = group.option(option), group.option(other)
    if own is not None and than is not None:
        ratio = own.throughput_bytes_per_s / than.throughput_bytes_per_s
        yield Target(f"{option} over {other}, {group.contents}, {group.wire}", ratio, 1.0, is_least=True)


def _group(groups: Sequence[GroupResult], wire: str, contents: str, guest: str) -> GroupResult | None:
    for group in groups:
        if (group.wire, group.contents, group.guest) == (wire, contents, guest) and not group.is_distribution:
            return group
    return None
