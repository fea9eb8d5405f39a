"""A lab's directory: what is in it, and the notes about the lab that runs there.

::

    DIR/lab.json        the lab that runs here; gone when it is down
    DIR/logs/NAME.log   of each process
    DIR/run/            addresses that processes have written down; gone when the lab is down
    DIR/coordinator/    the cluster's store
    DIR/witness/        the witness's records
    DIR/nodes/NAME/     each host's data
    DIR/traces/         with --trace: when each host ran its VMs
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from ferry_cli.lab.processes import ProcessIdentity
from ferry_types.eras import Era
from ferry_types.errors import FerryError, failed, not_found, refused
from ferry_types.limits import HOST_MEMORY_BYTES_DEFAULT, MIGRATION_LIMIT_DEFAULT
from ferry_types.profiles import LeaseTiming
from ferry_types.resiliency import timing_of

FORMAT = 1
BROKER = "broker"
WITNESS = "witness"
COORDINATOR = "coordinator"


class Kind(StrEnum):
    """Kinds of lab processes."""

    BROKER = "broker"
    WITNESS = "witness"
    COORDINATOR = "coordinator"
    AGENT = "agent"


@dataclass(frozen=True, slots=True)
class LabNode:
    """A host of a lab.

    ``options``: of its agent, with their values, in place of what all others have; some of them repeatedly.
    """

    name: str
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class LabSpec:
    """What a lab is made of.

    ``broker``: address of one that runs already, None for the lab's own. ``resiliency_period_s``: None for
    what profile and era say.
    """

    hosts: int = 3
    era: Era = Era.WS2012R2
    profile: str = "fast"
    memory_bytes: int = HOST_MEMORY_BYTES_DEFAULT
    migration_limit: int = MIGRATION_LIMIT_DEFAULT
    broker: str | None = None
    failpoints: bool = False
    trace: bool = False
    resiliency_period_s: float | None = None
    nodes: tuple[LabNode, ...] = ()
    """Hosts that have names and options of their own; none: as many as ``hosts`` says, all alike."""
    networks: tuple[str, ...] = ()
    """Networks as the coordinator is told them."""
    scale: int = 1
    """How much smaller the hosts' memory and rates really are; ``memory_bytes`` is what they seem to have."""

    @property
    def all_nodes(self) -> tuple[LabNode, ...]:
        """Its hosts: those that are named, else node1, node2, ..."""
        return self.nodes or tuple(LabNode(f"node{number}") for number in range(1, self.hosts + 1))

    @property
    def timing(self) -> LeaseTiming:
        """Beat and lease of its cluster. Raises ValueError if they are not to be had."""
        return timing_of(self.profile, self.era, self.resiliency_period_s)


@dataclass(frozen=True, slots=True)
class LabProcess:
    """A process of the lab, and the command that starts it again at the addresses that it has.

    A node's is its watchdog, the parent of its agent.
    """

    name: str
    kind: Kind
    command: tuple[str, ...]
    address: str
    identity: ProcessIdentity


@dataclass(frozen=True, slots=True)
class Lab:
    """The notes about a lab. ``processes`` in the order in which they were started."""

    spec: LabSpec
    processes: tuple[LabProcess, ...] = ()

    def process(self, name: str) -> LabProcess:
        """The process of that name. Raises FerryError(not_found)."""
        for process in self.processes:
            if process.name == name:
                return process
        known = ", ".join(process.name for process in self.processes)
        raise FerryError(not_found(f"the lab has no process {name}", f"it has {known}"))

    def with_process(self, changed: LabProcess) -> "Lab":
        """The same lab with one process noted anew."""
        others = [process for process in self.processes if process.name != changed.name]
        index = next((i for i, old in enumerate(self.processes) if old.name == changed.name), len(others))
        return replace(self, processes=(*others[:index], changed, *others[index:]))

    @property
    def agents(self) -> tuple[LabProcess, ...]:
        """The processes that are nodes of the cluster."""
        return tuple(process for process in self.processes if process.kind is Kind.AGENT)


def lab_directory(chosen: Path | None) -> Path:
    """The lab's directory: the one given, else FERRY_LAB, else in the user's state directory."""
    if chosen is not None:
        return chosen.expanduser().resolve()
    if named := os.environ.get("FERRY_LAB"):
        return Path(named).expanduser().resolve()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return (Path(state).expanduser() / "hyperferry" / "lab").resolve()


def notes_file(directory: Path) -> Path:
    """Where the notes about the lab in a directory are."""
    return directory / "lab.json"


def log_file(directory: Path, name: str) -> Path:
    """Where a process of the lab logs."""
    return directory / "logs" / f"{name}.log"


def address_file(directory: Path, name: str) -> Path:
    """Where a process of the lab writes its address down once it listens."""
    return directory / "run" / f"{name}.address"


def no_lab(directory: Path) -> FerryError:
    """No lab is up in that directory."""
    return FerryError(not_found(f"no lab is up in {directory}", "start one: ferry lab up"))


def read_lab(directory: Path) -> Lab | None:
    """The notes about the lab in a directory, None without any. Raises FerryError if they are damaged."""
    path = notes_file(directory)
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']}, not {FORMAT}")
        return _lab(document)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise FerryError(
            failed(f"{path} cannot be read: {problem}", f"clean up with: ferry lab down --dir {directory}")
        ) from None


def write_lab(directory: Path, lab: Lab) -> None:
    """Replace the notes about the lab: readers see the old ones or the new ones, whole."""
    document = {"format": FORMAT, **asdict(lab)}
    descriptor, name = tempfile.mkstemp(dir=directory, prefix=".lab-", suffix=".json")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=2)
        Path(name).replace(notes_file(directory))
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def sole_use(directory: Path) -> Iterator[None]:
    """Hold the lab's directory against other commands that start or end processes there.

    The lock is on the directory itself, so that it leaves no file and goes with this process. Raises
    FerryError(refused) if another command holds it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FerryError(
            refused(
                "one lab command at a time",
                f"another ferry command is changing the lab in {directory}",
                "wait until it is done",
            )
        ) from None


def _lab(document: dict[str, Any]) -> Lab:
    spec = dict(document["spec"])
    nodes = tuple(
        LabNode(node["name"], tuple((option, value) for option, value in node["options"]))
        for node in spec.get("nodes", ())
    )
    for entry in document["processes"]:
        texts = (entry["name"], entry["address"], *entry["command"])
        numbers = (entry["identity"]["pid"], entry["identity"]["start_ticks"])
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("a name, an address or a command is not text")
        if not all(isinstance(number, int) for number in numbers):
            raise ValueError("a process ID or a start time is not a number")
    return Lab(
        LabSpec(
            **{
                **spec,
                "era": Era(spec["era"]),
                "nodes": nodes,
                "networks": tuple(spec.get("networks", ())),
            }
        ),
        tuple(
            LabProcess(
                name=entry["name"],
                kind=Kind(entry["kind"]),
                command=tuple(entry["command"]),
                address=entry["address"],
                identity=ProcessIdentity(**entry["identity"]),
            )
            for entry in document["processes"]
        ),
    )
