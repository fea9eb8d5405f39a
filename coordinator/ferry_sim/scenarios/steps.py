"""What may be done to a cluster in a scenario, one frozen value per kind of step.

``ferry_sim.scenarios.grammar`` makes them of the words that people write.
"""

from dataclasses import dataclass

from ferry_types.drains import Stuck
from ferry_types.migrations import MigrationOptions
from ferry_types.roles import RoleChanges, RoleRules
from ferry_types.vms import VmSpec

# --- faults ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Power:
    """A host loses its power, agent and watchdog at once, or gets it again."""

    node: str
    on: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """A host's agent dies, and its watchdog certifies that."""

    node: str


@dataclass(frozen=True, slots=True)
class Shutdown:
    """A host is shut down in order: its agent ends, and its watchdog says so."""

    node: str


@dataclass(frozen=True, slots=True)
class Reboot:
    """A host is shut down in order and starts again."""

    node: str


@dataclass(frozen=True, slots=True)
class Way:
    """From whom to whom something passes: nodes, ``coordinator`` or ``witness``."""

    sender: str
    receiver: str


@dataclass(frozen=True, slots=True)
class Network:
    """Ways through the network are cut, without anybody being told, or open again."""

    node: str
    on: bool
    ways: tuple[Way, ...]
    """Empty: all that lead to the node or from it."""


@dataclass(frozen=True, slots=True)
class TurnNic:
    """A NIC is taken down, or brought up; with its last one that carries the cluster a host is cut off."""

    node: str
    nic: str
    up: bool


@dataclass(frozen=True, slots=True)
class Freeze:
    """A host, or the coordinator, stands still for so long, and goes on as if nothing had been."""

    process: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Coordinator:
    """The coordinator is killed, or starts."""

    start: bool


@dataclass(frozen=True, slots=True)
class Witness:
    """The witness is killed, or starts with the record that it has kept."""

    start: bool


@dataclass(frozen=True, slots=True)
class CrashGuest:
    """A VM's guest crashes."""

    vm: str


# --- VMs ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateVm:
    """A VM is created, and started unless told otherwise; ``node`` empty: where it fits best."""

    spec: VmSpec
    node: str
    start: bool
    rules: RoleRules


@dataclass(frozen=True, slots=True)
class StartVm:
    """A VM is turned on."""

    vm: str


@dataclass(frozen=True, slots=True)
class StopVm:
    """A VM is turned off."""

    vm: str


@dataclass(frozen=True, slots=True)
class RemoveVm:
    """A VM that is off is deleted."""

    vm: str


@dataclass(frozen=True, slots=True)
class MigrateVm:
    """A VM is moved live to a node or to the ``best``; the step is done when the move was accepted."""

    vm: str
    to: str
    options: MigrationOptions


@dataclass(frozen=True, slots=True)
class CancelMove:
    """The VM's move is cancelled."""

    vm: str


@dataclass(frozen=True, slots=True)
class Relocate:
    """A VM is turned off, and on again at another node."""

    vm: str
    to: str


@dataclass(frozen=True, slots=True)
class SetVm:
    """What the cluster heeds for a VM is changed."""

    vm: str
    changes: RoleChanges


@dataclass(frozen=True, slots=True)
class ChangeList:
    """Names are added to one of a VM's lists of rules, or taken out. ``field``: its name in RoleRules."""

    vm: str
    field: str
    names: tuple[str, ...]
    add: bool


# --- nodes and cluster ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PauseNode:
    """A node gets no VM any more."""

    node: str


@dataclass(frozen=True, slots=True)
class DrainNode:
    """A node is paused and emptied. ``to`` empty: the best for each VM; ``within_s`` None: without end."""

    node: str
    to: str
    within_s: float | None
    stuck: Stuck


@dataclass(frozen=True, slots=True)
class ResumeNode:
    """A node takes VMs again; ``failback``: those come home that were drained."""

    node: str
    failback: bool


@dataclass(frozen=True, slots=True)
class EvictNode:
    """A node is removed from the cluster; ``force``: its VMs fail over."""

    node: str
    force: bool


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """What is chosen for the whole cluster; None: as it is."""

    enforced_anti_affinity: bool | None = None
    quarantine_threshold: int | None = None
    quarantine_period_s: float | None = None
    quarantine_s: float | None = None


@dataclass(frozen=True, slots=True)
class SetQuorum:
    """Whether votes follow the nodes, and whether the witness is used; None: as it is."""

    dynamic: bool | None = None
    witness: bool | None = None


# --- time -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delay:
    """Time goes by."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Until nothing is under way any more; ``seconds``: at most."""

    seconds: float


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Until a VM, its move or a node is in a state; ``seconds``: at most."""

    name: str
    state: str
    seconds: float


Fault = Power | Kill | Shutdown | Reboot | Network | TurnNic | Freeze | Coordinator | Witness | CrashGuest
Request = (
    CreateVm
    | StartVm
    | StopVm
    | RemoveVm
    | MigrateVm
    | CancelMove
    | Relocate
    | SetVm
    | ChangeList
    | PauseNode
    | DrainNode
    | ResumeNode
    | EvictNode
    | SetPolicy
    | SetQuorum
)
Pause = Delay | Wait | WaitFor
Action = Fault | Request | Pause


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a timeline. ``background``: nobody waits until it is answered."""

    text: str
    action: Action
    background: bool = False
