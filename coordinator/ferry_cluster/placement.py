"""Where a VM may go, and where it goes: rules that exclude hosts, and an order among the others.

A host that no rule excludes is the better, the fewer VMs of its anti-affinity classes run there; then the
earlier it comes among the preferred owners; then the more memory it has free; then by name.
"""

from collections.abc import Callable, Set
from dataclasses import dataclass

from ferry_cluster import networks
from ferry_cluster.plans import STARS_MAX, HostRating
from ferry_cluster.records import NodeRecord, VmRecord
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_cluster.turn import Turn
from ferry_types.eras import Era
from ferry_types.errors import Refusal, refused
from ferry_types.units import format_size

_TEMPORARY = frozenset({"node up", "node paused", "network path", "memory", "anti-affinity", "vms per node"})
"""Rules that time may lift."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A VM that is to get a host. ``source``: where it runs and comes from live; None: it boots."""

    vm: VmRecord
    source: NodeRecord | None = None


class Room:
    """What the hosts have free: counted once, and kept up while VMs are given out."""

    def __init__(self, settings: ClusterSettings, state: ClusterState, now: float) -> None:
        self.settings = settings
        self.state = state
        self.now = now
        self.used_bytes = dict.fromkeys(state.nodes, 0)
        self.vms = dict.fromkeys(state.nodes, 0)
        self._classes: dict[tuple[str, str], int] = {}
        self._settled: dict[str, list[VmRecord]] | None = None
        self._being_made: dict[str, str] = {}
        self._paths: dict[tuple[str, str], Refusal | None] = {}
        for vm, owner in state.owners.items():
            if owner.node is not None:
                self.give(state.vms[vm], owner.node)
        for move in state.active_migrations():
            self.give(state.vms[move.vm], move.source if state.is_committed(move) else move.target)

    @classmethod
    def of(cls, turn: Turn) -> "Room":
        """What there is now."""
        return cls(turn.settings, turn.state, turn.now)

    def give(self, vm: VmRecord, node: str) -> None:
        """The VM is to be on that host."""
        self.used_bytes[node] += vm.spec.memory_bytes
        self.vms[node] += 1
        for one in vm.rules.anti_affinity:
            self._classes[node, one] = self._classes.get((node, one), 0) + 1

    def take(self, vm: VmRecord, node: str) -> None:
        """The VM is to leave that host."""
        self.used_bytes[node] -= vm.spec.memory_bytes
        self.vms[node] -= 1
        for one in vm.rules.anti_affinity:
            self._classes[node, one] -= 1

    def settled(self, node: str) -> list[VmRecord]:
        """VMs that are on that host to stay: they neither move nor are turned off."""
        return self._sorted()[node]

    def being_made_at(self, why: str) -> str | None:
        """The host where VMs are being turned off for that reason; None: nowhere."""
        self._sorted()
        return self._being_made.get(why)

    def _sorted(self) -> dict[str, list[VmRecord]]:
        """Who stays where, and where room is being made: found out once, when first asked for."""
        if self._settled is None:
            moving = {move.vm for move in self.state.active_migrations()}
            self._settled = {name: [] for name in self.state.nodes}
            for name, owner in self.state.owners.items():
                vm = self.state.vms[name]
                if owner.node is None:
                    continue
                if vm.ousted:
                    self._being_made[vm.ousted] = owner.node
                elif not vm.stops and name not in moving:
                    self._settled[owner.node].append(vm)
        return self._settled

    def free_bytes(self, node: str) -> int:
        """Memory that no VM has, or is on its way to."""
        return self.state.nodes[node].capacity.memory_bytes - self.used_bytes[node]

    def path_problem(self, source: str, target: str) -> Refusal | None:
        """Why no live migration gets from one host to another; found out once for each pair."""
        if (source, target) not in self._paths:
            problem = networks.path_problem(self.settings, self.state, source, target)
            self._paths[source, target] = problem
        return self._paths[source, target]

    def shared_classes(self, vm: VmRecord, node: str) -> tuple[str, ...]:
        """Anti-affinity classes of the VM that another VM there has, too."""
        if not vm.rules.anti_affinity:
            return ()
        owner = self.state.owners.get(vm.spec.name)
        own = 1 if owner is not None and owner.node == node else 0
        return tuple(one for one in vm.rules.anti_affinity if self._classes.get((node, one), 0) > own)


# --- rules that exclude a host ------------------------------------------------------------------


def node_up(room: Room, _wish: Wish, node: NodeRecord) -> Refusal | None:
    """A host must be up, connected, inside its lease, and not isolated."""
    if room.state.is_live(node.name, room.now):
        return None
    return refused("node up", f"node {node.name} is not up", "choose another one: ferry node list")


def node_paused(room: Room, _wish: Wish, node: NodeRecord) -> Refusal | None:
    """A node that is paused, quarantined or about to leave gets no VM."""
    return closed_problem(room.state, node)


def closed_problem(state: ClusterState, node: NodeRecord) -> Refusal | None:
    """Why a node gets no VM although it is up, or None."""
    if state.is_quarantined(node):
        hint = f"it takes VMs again when that ends, or after: ferry node resume {node.name}"
        return refused("node paused", f"node {node.name} is quarantined", hint)
    if node.name in state.evicting:
        return refused("node paused", f"node {node.name} is being evicted", "choose another one")
    if node.paused:
        hint = f"choose another one, or let it take VMs again: ferry node resume {node.name}"
        return refused("node paused", f"node {node.name} is paused", hint)
    return None


def possible_owners(_room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """Only its possible owners may have a VM, if any are named."""
    owners, name = wish.vm.rules.possible_owners, wish.vm.spec.name
    if not owners or node.name in owners:
        return None
    what = f"{node.name} is not a possible owner of {name}: {', '.join(owners)}"
    return refused("possible owners", what, f"choose one of those, or: ferry vm set {name} --possible-owners")


def switch(_room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """The host must have the virtual switch that the VM is connected to."""
    wanted = wish.vm.rules.switch
    if wanted in node.capacity.switches:
        return None
    known = ", ".join(node.capacity.switches) or "none"
    what = f"{node.name} has no virtual switch {wanted}, to which {wish.vm.spec.name} is connected: {known}"
    return refused("virtual switch", what, "choose another node, or another switch: ferry vm set --switch")


def domain(_room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """A VM moves live within its domain."""
    source = wish.source
    if source is None or source.capacity.domain == node.capacity.domain:
        return None
    what = (
        f"{node.name} is in domain {node.capacity.domain}, {source.name} in domain {source.capacity.domain}"
    )
    return refused("domain", what, "live migration needs hosts of one domain: choose another node")


def processor_vendor(_room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """A running VM never changes to a processor of another vendor."""
    source = wish.source
    if source is None or source.capacity.processor.vendor == node.capacity.processor.vendor:
        return None
    theirs, ours = node.capacity.processor.vendor, source.capacity.processor.vendor
    what = f"{node.name} has a processor of {theirs}, {source.name} one of {ours}"
    return refused("processor vendor", what, "choose another node, or stop the VM and start it there")


def processor_generation(_room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """To an older model a running VM moves only in processor compatibility mode."""
    source, vm = wish.source, wish.vm
    if source is None or vm.rules.processor_compatibility:
        return None
    theirs, ours = node.capacity.processor.generation, source.capacity.processor.generation
    if ours <= theirs:
        return None
    what = f"{node.name} has an older processor (generation {theirs}) than {source.name} ({ours})"
    hint = f"stop the VM, then: ferry vm set {vm.spec.name} --processor-compatibility"
    return refused("processor compatibility", what, hint)


def functional_level(room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """From an older release to a newer one, never back."""
    if wish.source is None:
        return None
    theirs, ours = level_of(room.settings, node), level_of(room.settings, wish.source)
    if not theirs.is_before(ours):
        return None
    what = f"{node.name} is of level {theirs}, {wish.source.name} of {ours}: a VM never moves back"
    return refused("functional level", what, "choose a node of the same level or a later one")


def network_path(room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """A network that may carry live migration must lead there."""
    if wish.source is None or wish.source.name == node.name:
        return None
    return room.path_problem(wish.source.name, node.name)


def vms_per_node(room: Room, _wish: Wish, node: NodeRecord) -> Refusal | None:
    """So many VMs does a host of this era run."""
    limit = room.settings.rules.vms_per_node_max
    if room.vms[node.name] < limit:
        return None
    what = f"{node.name} has {limit} VMs, as many as a host of era {room.settings.era} runs"
    return refused("vms per node", what, "choose another node")


def memory(room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """The VM must fit into what is free."""
    needed, total = wish.vm.spec.memory_bytes, node.capacity.memory_bytes
    if needed > total:
        return refused(
            "memory",
            f"{format_size(needed)} are more than node {node.name} has: {format_size(total)}",
            "choose a larger host, or ask for less memory",
        )
    free = room.free_bytes(node.name)
    if free < needed:
        return refused(
            "memory",
            f"node {node.name} is full: {format_size(free)} of {format_size(total)} are free, "
            f"the VM needs {format_size(needed)}",
            "choose another node, or let the coordinator choose",
        )
    return None


def anti_affinity(room: Room, wish: Wish, node: NodeRecord) -> Refusal | None:
    """Where the cluster enforces it, VMs that share a class never share a host."""
    shared = room.shared_classes(wish.vm, node.name) if room.state.policy.enforced_anti_affinity else ()
    if not shared:
        return None
    what = f"a VM of anti-affinity class {shared[0]} is on {node.name} already"
    return refused("anti-affinity", what, "add a host, or: ferry cluster set --no-enforced-anti-affinity")


Rule = Callable[[Room, Wish, NodeRecord], Refusal | None]

RULES: list[Rule] = [
    node_up,
    node_paused,
    possible_owners,
    switch,
    domain,
    processor_vendor,
    processor_generation,
    functional_level,
    network_path,
    vms_per_node,
    memory,
    anti_affinity,
]
"""In the order in which they are told: what lasts before what may pass, but for the first two."""


def level_of(settings: ClusterSettings, node: NodeRecord) -> Era:
    """The Windows release that a node plays."""
    return Era(node.capacity.level) if node.capacity.level else settings.era


# --- choosing -----------------------------------------------------------------------------------


def check_host(room: Room, wish: Wish, name: str) -> Refusal | None:
    """Why this host cannot take the VM, or None."""
    node = room.state.nodes[name]
    for rule in RULES:
        problem = rule(room, wish, node)
        if problem is not None:
            return problem
    return None


def choose_host(room: Room, wish: Wish, exclude: Set[str] = frozenset()) -> str | Refusal:
    """The host that suits best; or why none does."""
    problems: dict[str, Refusal | None] = {
        name: check_host(room, wish, name) for name in room.state.nodes if name not in exclude
    }
    suited = [name for name, problem in problems.items() if problem is None]
    if suited:
        return min(suited, key=lambda name: _order(room, wish, name))
    return _why_none(room, wish, [problem for problem in problems.values() if problem is not None])


def _order(room: Room, wish: Wish, node: str) -> tuple[int, int, int, str]:
    return (
        len(room.shared_classes(wish.vm, node)),
        _preference(wish, node),
        -room.free_bytes(node),
        node,
    )


def _preference(wish: Wish, node: str) -> int:
    preferred = wish.vm.rules.preferred_owners
    return preferred.index(node) if node in preferred else len(preferred)


def _why_none(room: Room, wish: Wish, problems: list[Refusal]) -> Refusal:
    """One refusal for all hosts: those that are up tell more than those that are not."""
    told = [problem for problem in problems if problem.rule != "node up"]
    rules = {problem.rule for problem in told}
    if not told:
        return refused(
            "node up", "no host is up that could take the VM", "start one, or look at ferry node list"
        )
    if rules == {"memory"}:
        free = {
            name: room.free_bytes(name) for name in room.state.nodes if room.state.is_live(name, room.now)
        }
        best = min(free, key=lambda name: (-free[name], name))
        return refused(
            "memory",
            f"no host has {format_size(wish.vm.spec.memory_bytes)} free: "
            f"the most is {format_size(max(free[best], 0))} on {best}",
            "stop or move a VM, add a host, or ask for less memory",
        )
    first = min(told, key=lambda problem: problem.rule not in _TEMPORARY)
    if len(told) == 1:
        return first
    return refused(first.rule or "", f"no host can take {wish.vm.spec.name}: {_listed(told)}", first.hint)


def _listed(problems: list[Refusal]) -> str:
    shown = [problem.message for problem in problems[:3]]
    return "; ".join([*shown, f"and {len(problems) - 3} more"] if len(problems) > 3 else shown)


# --- rating -------------------------------------------------------------------------------------


def rate_hosts(room: Room, wish: Wish) -> tuple[HostRating, ...]:
    """Every host with its stars, best first; a host that a rule excludes has none."""
    problems = {name: check_host(room, wish, name) for name in room.state.nodes}
    suited = sorted(
        (name for name, problem in problems.items() if problem is None),
        key=lambda name: _order(room, wish, name),
    )
    most_bytes = max((room.free_bytes(name) for name in suited), default=0)
    ratings, stars = [], STARS_MAX
    for name in suited:
        stars = min(stars, _stars(room, wish, name, most_bytes))
        ratings.append(HostRating(name, stars, _reason(room, wish, name), ""))
    for name, problem in sorted(problems.items()):
        if problem is not None:
            ratings.append(HostRating(name, 0, problem.message, problem.rule or ""))
    return tuple(ratings)


def _stars(room: Room, wish: Wish, node: str, most_bytes: int) -> int:
    """Of 100 points a shared class takes 50, each place down the preferred owners 15, little memory 14."""
    points = 100 - (50 if room.shared_classes(wish.vm, node) else 0) - 15 * min(_preference(wish, node), 2)
    if most_bytes:
        points -= round(14 * (1 - room.free_bytes(node) / most_bytes))
    return max(1, points * STARS_MAX // 100)


def _reason(room: Room, wish: Wish, node: str) -> str:
    parts = [f"{format_size(room.free_bytes(node))} free"]
    preferred = wish.vm.rules.preferred_owners
    if node in preferred:
        parts.append(f"preferred owner {preferred.index(node) + 1} of {len(preferred)}")
    elif preferred:
        parts.append("no preferred owner")
    if shared := room.shared_classes(wish.vm, node):
        parts.append(f"shares anti-affinity class {shared[0]}")
    return ", ".join(parts)
