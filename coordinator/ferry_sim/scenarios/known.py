"""Names that a scenario uses and nobody has introduced: refused before anything runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ferry_sim.scenarios import steps
from ferry_sim.scenarios.document import Place
from ferry_sim.scenarios.grammar import COORDINATOR
from ferry_sim.scenarios.role_words import OWNERS
from ferry_sim.scenarios.steps import Action
from ferry_types.migrations import BEST
from ferry_types.quorum import WITNESS
from ferry_types.roles import RoleRules

if TYPE_CHECKING:
    from ferry_sim.scenarios.model import Scenario

NOBODY: Final = "none"
"""In place of an owner's name: nobody may run the VM."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A name that the file does not know, and where it stands."""

    place: Place
    what: str


def unknown_names(scenario: "Scenario") -> list[Unknown]:
    """All of them, in the order of the file.

    A step that is to be refused may name what does not exist: that may be what it shows. A VM exists from
    the step on that creates it.
    """
    nodes, vms = set(scenario.nodes), set(scenario.vms)
    found = list(_in_topology(scenario, nodes))
    for index, line in enumerate(scenario.steps):
        action = line.parsed.action
        if not line.refused:
            found += _in_step(scenario, action, ("steps", index), vms)
        if isinstance(action, steps.CreateVm):
            vms.add(action.spec.name)
    return [*found, *_in_expectations(scenario, nodes, vms)]


def _missing(place: Place, kind: str, name: str, known: set[str]) -> Iterator[Unknown]:
    if name and name not in known:
        has = f"the file has {', '.join(sorted(known))}" if known else "the file has none"
        yield Unknown(place, f"there is no {kind} {name}: {has}")


def _in_topology(scenario: "Scenario", nodes: set[str]) -> Iterator[Unknown]:
    for name, node in scenario.nodes.items():
        for key, nic in node.nics.items():
            place: Place = ("nodes", name, "nics", key)
            yield from _missing(place, "network", nic.network, set(scenario.networks))
    for name, vm in scenario.vms.items():
        yield from _missing(("vms", name, "node"), "node", vm.node or "", nodes)
        for field, owners in (("possible", vm.possible), ("preferred", vm.preferred)):
            for index, owner in enumerate(owners):
                yield from _missing(("vms", name, field, index), "node", owner, nodes)


def _in_step(scenario: "Scenario", action: Action, place: Place, vms: set[str]) -> Iterator[Unknown]:
    nodes = set(scenario.nodes)
    for name in _nodes_of(action):
        yield from _missing(place, "node", name, nodes)
    for name in _vms_of(action):
        yield from _missing(place, "VM", name, vms)
    if isinstance(action, steps.TurnNic) and action.node in scenario.nodes:
        nics = scenario.nodes[action.node].nics
        if action.nic not in nics:
            what = f"node {action.node} has no NIC {action.nic}: it has {', '.join(sorted(nics)) or 'none'}"
            yield Unknown(place, what)
    if isinstance(action, steps.WaitFor):
        yield from _missing(place, "node or VM", action.name, nodes | vms)


def _nodes_of(action: Action) -> list[str]:
    """Names of nodes in a step; ``best`` and processes that are no nodes are not among them."""
    match action:
        case (
            steps.Power(node=node)
            | steps.Kill(node=node)
            | steps.Shutdown(node=node)
            | steps.Reboot(node=node)
            | steps.TurnNic(node=node)
            | steps.PauseNode(node=node)
            | steps.ResumeNode(node=node)
            | steps.EvictNode(node=node)
        ):
            return [node]
        case steps.Network():
            ends = {end for way in action.ways for end in (way.sender, way.receiver)}
            return sorted(({action.node} | ends) - {COORDINATOR, WITNESS})
        case steps.Freeze(process=process):
            return [] if process == COORDINATOR else [process]
        case steps.DrainNode():
            return [action.node, action.to]
        case steps.MigrateVm(to=to) | steps.Relocate(to=to):
            return [] if to == BEST else [to]
        case steps.CreateVm():
            return [action.node, *_owners(action.rules)]
        case steps.SetVm():
            return _owners(action.changes.rules)
        case steps.ChangeList() if action.field in OWNERS and action.add:
            return list(action.names)
    return []


def _owners(rules: RoleRules) -> list[str]:
    return [*rules.possible_owners, *rules.preferred_owners]


def _vms_of(action: Action) -> list[str]:
    match action:
        case (
            steps.CrashGuest(vm=vm)
            | steps.StartVm(vm=vm)
            | steps.StopVm(vm=vm)
            | steps.RemoveVm(vm=vm)
            | steps.MigrateVm(vm=vm)
            | steps.CancelMove(vm=vm)
            | steps.Relocate(vm=vm)
            | steps.SetVm(vm=vm)
            | steps.ChangeList(vm=vm)
        ):
            return [vm]
    return []


def _in_expectations(scenario: "Scenario", nodes: set[str], vms: set[str]) -> Iterator[Unknown]:
    for name, vm in scenario.end.vms.items():
        yield from _missing(("end", "vms", name), "VM", name, vms)
        for node in vm.node:
            yield from _missing(("end", "vms", name, "node"), "node", node, nodes | {NOBODY})
    for name in scenario.end.nodes:
        yield from _missing(("end", "nodes", name), "node", name, nodes)
    for field, events in (("events", scenario.events), ("no_events", scenario.no_events)):
        for index, event in enumerate(events):
            yield from _missing((field, index, "node"), "node", event.node or "", nodes)
            yield from _missing((field, index, "vm"), "VM", event.vm or "", vms)
    for index, vm_name in enumerate(scenario.uninterrupted):
        yield from _missing(("uninterrupted", index), "VM", vm_name, set(scenario.vms))
    for index, drain in enumerate(scenario.drains):
        yield from _missing(("drains", index, "node"), "node", drain.node, nodes)
        for position, vm_name in enumerate(drain.order):
            yield from _missing(("drains", index, "order", position), "VM", vm_name, vms)
    for index, move in enumerate(scenario.moves):
        yield from _missing(("moves", index, "vm"), "VM", move.vm, vms)
        for field, host in (("from", move.source), ("to", move.target)):
            yield from _missing(("moves", index, field), "node", host or "", nodes)
