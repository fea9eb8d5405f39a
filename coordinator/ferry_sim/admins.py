"""Admins who choose rules, and pause, drain, resume and evict nodes, by chance; and who clear it all away."""

import random
from collections.abc import Callable, Sequence
from typing import Final

from ferry_cluster.inputs import (
    AdminRequest,
    DrainNode,
    EvictNode,
    PauseNode,
    ResumeNode,
    SetPolicy,
    SetVm,
    TurnOnVm,
)
from ferry_cluster.state import ClusterState
from ferry_sim.world import World
from ferry_types.drains import Stuck
from ferry_types.roles import NO_RULES, Failback, Priority, RoleChanges, RoleRules

RULE_REQUESTS: Final = (*("rule",) * 3, "policy", "pause", *("drain",) * 2, *("resume",) * 5, "force")

_ALL_RULES: Final = (
    "possible_owners",
    "preferred_owners",
    "anti_affinity",
    "failback",
    "failover_threshold",
    "start_delay_s",
)
_WITHIN_S: Final = (None, 1.0, 30.0)


def draw(world: World, rng: random.Random, vms: Sequence[str], action: str) -> None:
    """Have an admin ask for one of ``RULE_REQUESTS``; much of it is refused."""
    cluster = world.cluster
    assert cluster is not None
    nodes = sorted(cluster.state.nodes)
    if not nodes:
        return
    node, other, vm = rng.choice(nodes), rng.choice(["", "", *nodes]), rng.choice(vms)
    match action:
        case "rule":
            changes = _some_rules(rng, nodes)
            world.ask(lambda number: SetVm(number, vm, changes))
        case "policy":
            enforced = rng.choice([False, True])
            world.ask(lambda number: SetPolicy(number, enforced_anti_affinity=enforced))
        case "pause":
            world.ask(lambda number: PauseNode(number, node))
        case "drain":
            within_s, stuck = rng.choice(_WITHIN_S), rng.choice(list(Stuck))
            world.ask(lambda number: DrainNode(number, node, other, within_s, stuck))
        case "resume":
            held = [name for name in nodes if cluster.state.nodes[name].paused] or nodes
            node, failback = rng.choice(held), rng.choice([False, True])
            world.ask(lambda number: ResumeNode(number, node, failback))
        case "force":
            world.ask(lambda number: EvictNode(number, node, force=True))


def _some_rules(rng: random.Random, nodes: Sequence[str]) -> RoleChanges:
    possible = rng.sample(nodes, rng.randint(1, len(nodes))) if rng.random() < 0.5 else []
    preferred = rng.sample(possible or nodes, 1)
    rules = RoleRules(
        possible_owners=tuple(possible),
        preferred_owners=tuple(preferred),
        anti_affinity=tuple(rng.sample(["red", "green", "blue"], rng.randint(0, 2))),
        failback=rng.choice([Failback.OFF, Failback.NOW]),
        failover_threshold=rng.choice([0, 1, 3]),
        start_delay_s=rng.choice([0.0, 0.5, 5.0]),
    )
    return RoleChanges((*_ALL_RULES, "priority"), rng.choice([*Priority]), rules)


def clear(world: World) -> None:
    """Ask for all nodes to take VMs, and for no rule to hold any more."""
    cluster = world.cluster
    assert cluster is not None
    world.ask(lambda number: SetPolicy(number, enforced_anti_affinity=False))
    for request in _clearing(cluster.state):
        world.ask(request)


def _clearing(state: ClusterState) -> list[Callable[[int], AdminRequest]]:
    asked: list[Callable[[int], AdminRequest]] = []
    for name, node in state.nodes.items():
        if node.paused or state.is_quarantined(node):
            asked.append(lambda number, name=name: ResumeNode(number, name, failback=False))  # type: ignore[misc]
    changes = RoleChanges(_ALL_RULES, Priority.MEDIUM, NO_RULES)
    for name, vm in state.vms.items():
        if vm.rules != NO_RULES:
            asked.append(lambda number, name=name: SetVm(number, name, changes))  # type: ignore[misc]
        if vm.given_up:
            asked.append(lambda number, name=name: TurnOnVm(number, name))  # type: ignore[misc]
    return asked
