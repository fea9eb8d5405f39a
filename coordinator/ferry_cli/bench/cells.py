"""What a whole bench measures: every option on every memory, with both guests, over every wire. Data only.

What has the same memory, guest and wire is measured in turn, round by round: a *group*. Peers have idle
memory, so that they stand beside idle guests. Bare streams send every byte, whatever it is, and stand beside
random memory and files; where contents decide, the peers that look at them do. Zeros are hardly sent, so that
peers on zeros stand where there is no wire to speak of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ferry_cli.bench.contents import FILES
from ferry_cli.bench.document import Question
from ferry_types.errors import FerryError, malformed
from ferry_types.migrations import TransportOption
from ferry_types.units import format_rate, format_size, parse_rate
from ferry_types.workloads import Fill

MIB: Final = 2**20
RUNS_DEFAULT: Final = 5
BLACKOUT_RUNS: Final = 100
"""Of an idle VM, for the distribution of its black-outs."""

QUICK_RUNS: Final = 1
QUICK_BLACKOUT_RUNS: Final = 5
QUICK_MEMORY_BYTES: Final = 64 * MIB


@dataclass(frozen=True, slots=True)
class Wire:
    """``rate_bytes_per_s``: of each host's NIC, None for no NICs. ``memory_bytes``: of what moves over it."""

    name: str
    rate_bytes_per_s: int | None
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Guest:
    """What the guest does meanwhile."""

    name: str
    workload: str
    write_rate_bytes_per_s: int | None = None


WIRES: Final = (
    Wire("unshaped", None, 1024 * MIB),
    Wire("10Gbit/s", parse_rate("10Gbit/s"), 512 * MIB),
    Wire("1Gbit/s", parse_rate("1Gbit/s"), 256 * MIB),
)
CONTENTS: Final = (Fill.RANDOM.value, FILES, Fill.ZERO.value)
IDLE: Final = Guest("idle", "idle")
DIRTYING: Final = Guest("dirtying", "sql", 50 * MIB)
GUESTS: Final = (IDLE, DIRTYING)
OPTIONS: Final = tuple(option.value for option in TransportOption)

_OF_EVERY_KIND: Final = ("qemu", "qemu-multifd", "grpc", "socket")
PEERS: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("unshaped", "random"): (*_OF_EVERY_KIND, "grpc-2", "socket-2"),
    ("unshaped", "files"): _OF_EVERY_KIND,
    ("unshaped", "zero"): ("qemu", "qemu-multifd"),
    ("10Gbit/s", "random"): _OF_EVERY_KIND,
    ("10Gbit/s", "files"): ("qemu", "qemu-zstd"),
    ("10Gbit/s", "zero"): (),
    ("1Gbit/s", "random"): _OF_EVERY_KIND,
    ("1Gbit/s", "files"): ("qemu", "qemu-zstd"),
    ("1Gbit/s", "zero"): (),
}
"""By wire and contents."""

BLACKOUT: Final = "blackout"


@dataclass(frozen=True, slots=True)
class Group:
    """Cells that are measured in turn: one for each option, and the peers."""

    wire: Wire
    contents: str
    guest: Guest
    options: tuple[str, ...]
    peers: tuple[str, ...]
    runs: int
    is_distribution: bool = False
    """It is there for the distribution of black-outs, over many moves of one option."""

    @property
    def questions(self) -> tuple[Question, ...]:
        """One for each option."""
        return tuple(
            Question(
                self.wire.memory_bytes,
                self.contents,
                self.guest.workload,
                option,
                self.guest.write_rate_bytes_per_s,
                self.wire.rate_bytes_per_s,
            )
            for option in self.options
        )

    @property
    def is_compared(self) -> bool:
        """Whether its times are: with peers, or with those of another guest. Zeros are, with peers alone."""
        return bool(self.peers) or (self.contents != Fill.ZERO and not self.is_distribution)

    @property
    def title(self) -> str:
        """For people."""
        size = format_size(self.wire.memory_bytes)
        kind = ", black-outs" if self.is_distribution else ""
        return f"{self.wire.name}, {size} of {self.contents} memory, {self.guest.name} guest{kind}"

    def command(self, option: str) -> str:
        """What measures one cell of it by itself."""
        words = [f"ferry bench migrate --memory {self.wire.memory_bytes // MIB}MiB --fill {self.contents}"]
        words.append(f"--workload {self.guest.workload}")
        if self.guest.write_rate_bytes_per_s is not None:
            words.append(f"--write-rate {format_rate(self.guest.write_rate_bytes_per_s).replace(' ', '')}")
        if self.wire.rate_bytes_per_s is not None:
            words.append(f"--rate {self.wire.name}")
        words.append(f"--option {option} --runs {self.runs}")
        if self.peers:
            words.append(f"--against {','.join(self.peers)}")
        return " ".join(words)


def all_groups(runs: int = RUNS_DEFAULT, blackout_runs: int = BLACKOUT_RUNS) -> list[Group]:
    """The whole matrix, wire by wire, and the distribution of black-outs where the wire is not shaped."""
    groups = []
    for wire in WIRES:
        for contents in CONTENTS:
            for guest in GUESTS:
                peers = PEERS[wire.name, contents] if guest is IDLE else ()
                groups.append(Group(wire, contents, guest, OPTIONS, peers, runs))
        if wire.rate_bytes_per_s is None:
            small = replace(wire, memory_bytes=256 * MIB)
            tcpip = (TransportOption.TCPIP.value,)
            groups.append(Group(small, "random", IDLE, tcpip, (), blackout_runs, is_distribution=True))
    return groups


def chosen(
    groups: Iterable[Group],
    only: Sequence[str],
    against: Sequence[str] | None = None,
    memory_bytes: int | None = None,
) -> list[Group]:
    """The groups that are asked for, cut to what is asked for of them.

    ``only``: names of options, contents, guests and wires, or `blackout`; of each kind any if none is named.
    ``against``: peers that are left, where they were; None for all. ``memory_bytes``: in place of each
    wire's. Raises FerryError for a word that names nothing, or if nothing is left.
    """
    kinds = {
        "options": OPTIONS,
        "contents": CONTENTS,
        "guests": tuple(guest.name for guest in GUESTS),
        "wires": tuple(wire.name for wire in WIRES),
    }
    known = [word for words in kinds.values() for word in words] + [BLACKOUT]
    for word in only:
        if word not in known:
            raise FerryError(malformed(f"the bench has no {word!r}", f"choose from {', '.join(known)}"))
    asked = {kind: [word for word in words if word in only] or words for kind, words in kinds.items()}
    left = []
    for group in groups:
        if BLACKOUT in only and not group.is_distribution:
            continue
        options = tuple(option for option in group.options if option in asked["options"])
        if not options or group.contents not in asked["contents"]:
            continue
        if group.guest.name not in asked["guests"] or group.wire.name not in asked["wires"]:
            continue
        peers = tuple(peer for peer in group.peers if against is None or peer in against)
        wire = group.wire if memory_bytes is None else replace(group.wire, memory_bytes=memory_bytes)
        left.append(replace(group, wire=wire, options=options, peers=peers))
    if not left:
        raise FerryError(malformed(f"nothing of the bench is {', '.join(only)} at once", "name fewer words"))
    return left
