"""One seed: a cluster in calm, under faults and admin requests, healed; and what must be true after it."""

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Final

from ferry_cluster.inputs import (
    AdminRequest,
    CancelMove,
    CreateVm,
    EvictNode,
    RemoveVm,
    SetQuorum,
    TurnOffVm,
    TurnOnVm,
)
from ferry_cluster.records import MigrationRecord
from ferry_sim import admins
from ferry_sim.admins import RULE_REQUESTS
from ferry_sim.ballots import ADDRESS
from ferry_sim.clockwork import Clockwork
from ferry_sim.faults import LASTING_LEASES, RESTART_S_MAX, Faults
from ferry_sim.processes import Agent
from ferry_sim.world import MIB, Size, World, make_spec
from ferry_types.eras import RULES as RULES_OF
from ferry_types.eras import Era
from ferry_types.vms import ImagePhase, NodeState

REQUESTS: Final = (
    *("move",) * 5,
    *("stop", "start", "start", "create", "remove", "cancel", "rush", "haste", "votes", "evict"),
)
HOSTS: Final = ("kill", "isolate", "freeze", "freeze", "guest", "hand-over", "hand-over")
STREAMS: Final = ("cut", "drop", "stall", "stall", "part", "split", "mute", "witness")
COORDINATORS: Final = ("coordinator", "successor", "frozen coordinator")
MOODS: Final = (
    HOSTS,
    STREAMS,
    COORDINATORS,
    ("hand-over",),
    STREAMS + COORDINATORS,
    HOSTS + STREAMS + COORDINATORS,
)
"""What goes wrong in one seed: everything at once would leave no move the time to be committed."""

HASTE_S_MAX: Final = 0.12
"""How soon somebody takes back what was just asked for: while it boots, waits, copies or switches."""

RUSH: Final = 5
"""Moves that are asked for at once, from one host."""

VM_BYTES: Final = 16 * MIB


@dataclass(frozen=True, slots=True)
class Course:
    """How a seed goes: its cluster and VMs; steps, at least; their length; how many of them are faults."""

    size: Size
    vms: int
    steps: int
    pauses_s: tuple[float, ...]
    faults: float
    moods: tuple[tuple[str, ...], ...] = MOODS
    moves_min: int = 0
    faults_min: int = 0
    seconds_min: float = 0.0
    requests: tuple[str, ...] = REQUESTS
    eras: tuple[Era, ...] = (Era.WS2012R2,)
    resiliency_s: float | None = None


SHORT: Final = Course(
    Size(hosts=3, host_memory_bytes=4 * VM_BYTES),
    vms=5,
    steps=25,
    pauses_s=(0.01, 0.03, 0.1, 0.5, 2.0),
    faults=0.4,
)
"""Small and dense. A host has room for four VMs: one that leaks one soon lacks it."""

VOTES: Final = Course(
    Size(hosts=3, host_memory_bytes=4 * VM_BYTES),
    vms=3,
    steps=60,
    pauses_s=(0.1, 0.3, 0.7, 1.5),
    faults=0.9,
    moods=(
        ("siege", "part", "split", "mute", "kill", "coordinator", "successor", "witness", "stall"),
        ("siege",),
    ),
)
"""Hosts that do not reach the coordinator, and reach only some of the voters, which come and go."""

PAIR: Final = replace(VOTES, size=replace(VOTES.size, hosts=2))
"""The same with two hosts, so that the witness has a vote."""

RULES: Final = replace(
    SHORT,
    steps=40,
    requests=REQUESTS + 2 * RULE_REQUESTS,
    eras=(Era.WS2012, Era.WS2012R2, Era.WS2016),
    resiliency_s=6.0,
)
"""Small and dense, with admins who choose rules and drain nodes."""

LONG: Final = Course(
    Size(hosts=16, host_memory_bytes=20 * VM_BYTES, profile="windows"),
    vms=200,
    steps=100,
    pauses_s=(0.02, 0.1, 1.0, 5.0, 20.0),
    faults=0.25,
    moves_min=20,
    faults_min=10,
    seconds_min=600.0,
    requests=4 * REQUESTS + RULE_REQUESTS,
    eras=(Era.WS2012, Era.WS2012R2, Era.WS2012R2, Era.WS2016),
    resiliency_s=30.0,
)
"""A cluster of a usual size, for ten minutes of its time."""


class Storm:
    """One seed's course of events. ``done`` counts requests and faults by name."""

    def __init__(self, seed: int, course: Course = SHORT) -> None:
        self.course = course
        self.rng = random.Random(seed)  # noqa: S311 - chance that can be repeated is the point
        self.world = self._begin(seed)
        self.done: Counter[str] = Counter()
        self.moves = 0
        """Moves that were accepted."""
        self._names = [f"vm{number}" for number in range(course.vms)]
        self._faults = Faults(self.world, self.rng)

    def _begin(self, seed: int) -> World:
        course = self.course
        era = course.eras[0] if len(course.eras) == 1 else self.rng.choice(course.eras)
        lease_s = course.resiliency_s if RULES_OF[era].resiliency else None
        return World(course.size, Clockwork(seed), era, lease_s=lease_s)

    @property
    def faults(self) -> int:
        """How many there have been."""
        return sum(count for name, count in self.done.items() if name not in self.course.requests)

    def run(self) -> None:
        """Calm, faults, healing. Raises AssertionError if anything that must hold does not."""
        world, rng, course = self.world, self.rng, self.course
        world.run_until(lambda: all_up(world))
        began_at = world.now
        for name in self._names:
            world.create(name, memory_bytes=VM_BYTES)
        world.run(1.0)
        world.clockwork.long_delays = rng.choice([0.0, 0.005, 0.03])
        world.shell.trouble = rng.choice([0.0, 0.03, 0.1, 0.2])
        world.network.repeats = rng.choice([0.0, 0.02, 0.1])
        world.network.losses = rng.choice([0.0, 0.02, 0.2])
        world.store_faults = rng.choice([0.0, 0.0, 0.01, 0.05])
        mood = rng.choice(course.moods)
        steps = 0
        while steps < course.steps or self._is_short(world.now - began_at):
            steps += 1
            action = rng.choice(mood if rng.random() < course.faults else course.requests)
            if self._act(action):
                self.done[action] += 1
            world.run(rng.choice(course.pauses_s))
        self._heal()

    def _is_short(self, seconds: float) -> bool:
        course = self.course
        return (
            seconds < course.seconds_min or self.moves < course.moves_min or self.faults < course.faults_min
        )

    # --- faults and requests ----------------------------------------------------------------------

    def _act(self, action: str) -> bool:
        """Do something; whether it could be done."""
        if action not in self.course.requests:
            return self._faults.strike(action)
        if self.world.cluster is None or self.world.reigns[-1].frozen:
            return False
        self._request(action)
        return True

    def _request(self, action: str) -> None:
        world, rng, vm = self.world, self.rng, self.rng.choice(self._names)
        cluster = world.cluster
        assert cluster is not None
        if action == "move":
            self._move(vm, rng.choice([*sorted(cluster.state.nodes), "best"]))
        elif action == "rush":
            node = rng.choice(sorted(cluster.state.nodes))
            asked = [self._move(vm.spec.name, "best") for vm in cluster.state.owned_by(node)[:RUSH]]
            accepted = [move for move in asked if move is not None]
            if accepted:
                self._soon("cancel", migration_id=rng.choice(accepted).id)
        elif action == "haste":
            idle = [
                name for name in self._names if not (known := cluster.state.vms.get(name)) or not known.wanted
            ]
            vm = rng.choice([*idle, vm])
            self._ask(rng.choice(["create", "start"]), vm)
            move = self._move(vm, "best")
            undo = "stop" if move is None else rng.choice(["cancel", "stop"])
            self._soon(undo, vm, "" if move is None else move.id)
        elif action == "votes":
            witness, dynamic = rng.choice(["", ADDRESS, ADDRESS, None]), rng.choice([False, True, True])
            world.ask(lambda number: SetQuorum(number, witness, dynamic))
        elif action == "evict":
            node = rng.choice(sorted(world.agents))
            world.ask(lambda number: EvictNode(number, node))
        elif action in RULE_REQUESTS:
            admins.draw(world, rng, self._names, action)
        elif action == "cancel":
            self._ask(action, migration_id=rng.choice(sorted(cluster.state.migrations) or ["m1"]))
        else:
            self._ask(action, vm)

    def _move(self, vm: str, to: str) -> MigrationRecord | None:
        """Ask for a move; None if it was not accepted."""
        answer = self.world.migrate(vm, to)
        if not isinstance(answer, MigrationRecord):
            return None
        self.moves += 1
        return answer

    def _soon(self, action: str, vm: str = "", migration_id: str = "") -> None:
        after_s = self.rng.uniform(0.0, HASTE_S_MAX)
        self.world.clockwork.later(after_s, lambda: self._ask(action, vm, migration_id))

    def _ask(self, action: str, vm: str = "", migration_id: str = "") -> None:
        if self.world.cluster is not None:
            self.world.ask(lambda number: make_request(action, number, vm, migration_id))

    # --- after it ---------------------------------------------------------------------------------

    def _heal(self) -> None:
        """Bring everything back; then all that is wanted runs, and nothing else is left anywhere."""
        world = self.world
        self._faults.over = True
        world.clockwork.long_delays = world.shell.trouble = world.store_faults = 0.0
        world.network.repeats = world.network.losses = 0.0
        world.ballots.witness.alive = True
        lease_s = world.settings.timing.lease_s
        world.run(LASTING_LEASES * lease_s + RESTART_S_MAX)  # whoever was frozen or killed is back by then
        self.world.revive_coordinator()
        healed_within_s = 60.0 + 10 * lease_s
        world.run_until(lambda: all_known(world), healed_within_s)
        admins.clear(world)
        world.run_until(lambda: all_up(world), healed_within_s, step_s=lease_s / 20)
        world.run(1.0)
        self._ask_for_refused_vms()
        world.run_until(lambda: not self._unsettled(), healed_within_s, self._unsettled, step_s=lease_s / 20)
        world.run(5.0)
        assert not self._unsettled(), self._unsettled()

    def _ask_for_refused_vms(self) -> None:
        """A VM that hosts have refused and no other has room for waits for its admin."""
        cluster = self.world.cluster
        assert cluster is not None
        for vm in list(cluster.state.refused_by):
            if cluster.state.owners[vm].node is None:
                self.world.ask(lambda number, vm=vm: TurnOnVm(number, vm))  # type: ignore[misc]

    def _unsettled(self) -> list[str]:
        """What is not as it should be, in words."""
        world, cluster = self.world, self.world.cluster
        assert cluster is not None
        state = cluster.state
        found = [f"request {number} is not answered" for number in world.unanswered()]
        found += [f"{waiting} still waited for" for waiting in state.waiting]
        found += [f"move {move} goes on" for move in state.active_migrations()]
        found += [f"round {known} against {node} goes on" for node, known in state.rounds.items()]
        if state.proposal is not None or state.quorum.number < state.quorum.highest:
            found.append(f"votes change: {state.proposal}, {state.quorum}")
        running = {name: agent.running(world.now) for name, agent in world.agents.items()}
        for name, vm in state.vms.items():
            owner = state.owners[name]
            if vm.wanted and (owner.node is None or name not in running[owner.node]):
                found.append(f"{name} is wanted and does not run: {owner}, {vm.reason}")
            elif vm.wanted and (state.running.get(name) != owner.epoch or name in state.held):
                found.append(f"{name} runs and is not known to")
            elif not vm.wanted and owner.node is not None:
                found.append(f"{name} is not wanted: {owner}")
        for agent in world.agents.values():
            found += leftovers(world, agent)
        return found


def all_known(world: World) -> bool:
    """Whether every host is a node."""
    return world.cluster is not None and len(world.cluster.state.nodes) == len(world.agents)


def all_up(world: World) -> bool:
    """Whether every host is a node that is up."""
    cluster = world.cluster
    if cluster is None:
        return False
    views = cluster.node_views()
    return len(views) == len(world.agents) and all(view.state is NodeState.UP for view in views)


def make_request(action: str, number: int, vm: str, migration_id: str) -> AdminRequest:
    """An admin's request by name."""
    match action:
        case "stop":
            return TurnOffVm(number, vm)
        case "start":
            return TurnOnVm(number, vm)
        case "remove":
            return RemoveVm(number, vm)
        case "cancel":
            return CancelMove(number, migration_id)
    return CreateVm(number, make_spec(vm, VM_BYTES), "", start=True)


def leftovers(world: World, agent: Agent) -> list[str]:
    """Images, memory, vCPUs and attempts at a host that should not be there."""
    found = []
    for image in agent.host.state.images.values():
        owner = world.store.owner(image.name)
        if owner is None or (owner.incarnation, owner.epoch) != (agent.incarnation, image.epoch):
            found.append(f"{agent.name} holds {image}, owned by {owner}")
        elif image.phase is not ImagePhase.RUNNING or image.held or image.outgoing is not None:
            found.append(f"{agent.name} holds {image}")
    names = agent.host.state.images.keys()
    if agent.memories.keys() != names or agent.vcpus.keys() != names:
        found.append(f"{agent.name} holds {set(names)}, memory of {set(agent.memories)}, vCPUs {agent.vcpus}")
    if agent.arriving or agent.leaving:
        found.append(f"{agent.name} still copies: {agent.arriving} {agent.leaving}")
    return found
