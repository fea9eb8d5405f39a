"""Random faults and admin requests on a ``World``, then healing, and what must be true after it."""

import random
from typing import Final

from tests.property.cluster_world import MIB, World, make_spec
from tests.property.world_parts import Agent

from ferry_cluster.inputs import (
    AdminRequest,
    CancelMove,
    CreateVm,
    DeathCertified,
    RemoveVm,
    TurnOffVm,
    TurnOnVm,
)
from ferry_types.messages import DeathCertificate
from ferry_types.vms import ImagePhase, NodeState

HEALED_WITHIN_S: Final = 60.0
VMS: Final = ("vm0", "vm1", "vm2", "vm3", "vm4")
VM_BYTES: Final = 16 * MIB
HOST_BYTES: Final = 64 * MIB
"""Room for four VMs: a host that leaks one soon lacks it."""

FAULTS: Final = 0.4
AMBUSH_S: Final = 3.0
REQUESTS: Final = (*("move",) * 6, "stop", "start", "start", "create", "remove", "cancel")
HOSTS: Final = ("kill", "isolate", "freeze", "freeze", "guest", "hand-over", "hand-over")
STREAMS: Final = ("cut", "drop", "stall", "stall")
COORDINATORS: Final = ("coordinator", "successor", "frozen coordinator")
MOODS: Final = (HOSTS, STREAMS, COORDINATORS, STREAMS + COORDINATORS, HOSTS + STREAMS + COORDINATORS)
"""What goes wrong in one seed: everything at once would leave no move the time to be committed."""


def all_up(world: World) -> bool:
    cluster = world.cluster
    return (
        cluster is not None
        and len(cluster.node_views()) == len(world.agents)
        and all(view.state is NodeState.UP for view in cluster.node_views())
    )


class Storm:
    """One seed's course of events."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.world = World(3, seed, memory_bytes=HOST_BYTES)
        self.healing = False

    def run(self, steps: int = 25) -> None:
        """Calm, faults, healing. Raises AssertionError if anything that must hold does not."""
        world, rng = self.world, self.rng
        world.run_until(lambda: all_up(world))
        for name in VMS:
            world.create(name, memory_bytes=VM_BYTES)
        world.run(1.0)
        world.long_delays = rng.choice([0.0, 0.005, 0.03])
        world.trouble = rng.choice([0.0, 0.03, 0.1, 0.2])
        mood = rng.choice(MOODS)
        for _ in range(steps):
            self.act(rng.choice(mood if rng.random() < FAULTS else REQUESTS))
            world.run(rng.choice([0.01, 0.03, 0.1, 0.5, 2.0]))
        world.long_delays = world.trouble = 0.0
        self.heal()

    # --- faults and requests ----------------------------------------------------------------------

    def act(self, action: str) -> None:
        world, rng = self.world, self.rng
        agent = world.agents[rng.choice(sorted(world.agents))]
        match action:
            case "move" | "stop" | "start" | "create" | "remove" | "cancel":
                if world.cluster is not None and not world.reigns[-1].frozen:
                    self.request(action)
            case "kill":
                self.kill(agent)
            case "hand-over":
                self.strike_at_a_hand_over(world.now + AMBUSH_S)
            case "guest" if agent.alive and agent.vcpus:
                world.crash_guest(agent, rng.choice(sorted(agent.vcpus)))
            case "isolate" if agent.alive:
                world.isolate_host(agent.name)
            case "freeze" if agent.alive and not agent.frozen:
                world.freeze(agent, rng.choice([0.3, 1.0, 1.9, 3.0, 6.0]))
            case "coordinator" | "successor" | "frozen coordinator" if world.cluster is not None:
                self.trouble_coordinator(action)
            case _ if agent.stream is not None:
                self.trouble_stream(action, agent)

    def kill(self, agent: Agent) -> None:
        """A host dies, is perhaps certified dead, and starts again."""
        if not agent.alive or self.world.agents[agent.name] is not agent:
            return
        self.world.kill_host(agent.name)
        if self.world.happens(0.5):
            self.certify(agent)
        self.world.later(self.rng.uniform(0.0, 4.0), lambda: self.world.start_host(agent.name))

    def strike_at_a_hand_over(self, until: float) -> None:
        """Wait for a commit, and kill its target while that raises its epoch and lets the VM run."""
        world = self.world
        state = world.cluster.state if world.cluster is not None else None
        moves = state.active_migrations() if state is not None else []
        committed = [move for move in moves if state is not None and state.is_committed(move)]
        if committed:
            target = world.agents[committed[0].target]
            world.later(self.rng.uniform(0.0, 0.06), lambda: self.kill(target))
        elif world.now < until and not self.healing:
            world.later(0.003, lambda: self.strike_at_a_hand_over(until))

    def certify(self, agent: Agent) -> None:
        """The dead agent's watchdog says so: at once or late, perhaps more than once, perhaps to nobody."""
        world = self.world
        certificate = DeathCertified(DeathCertificate(agent.name, agent.incarnation, "killed"))

        def arrive() -> None:
            reign = world.reigns[-1]
            reign.do(lambda: world.submit(reign, certificate))

        for _ in range(world.rng.randint(1, 3)):
            world.later(world.delay() + world.rng.choice([0.0, 0.2, 2.0, 6.0]), arrive)

    def trouble_stream(self, action: str, agent: Agent) -> None:
        world, rng = self.world, self.rng
        stream = agent.stream
        assert stream is not None
        if action == "cut":
            world.cut(stream)
        elif action == "drop" and not agent.frozen:
            world.drop(stream)
        elif action == "stall":
            world.stall(stream, rng.choice(["up", "down"]), rng.choice([0.5, 1.5, 2.0, 2.5, 5.0]))

    def trouble_coordinator(self, action: str) -> None:
        world, rng = self.world, self.rng
        reign = world.reigns[-1]
        if action == "coordinator":
            world.kill_coordinator()
            world.later(rng.choice([0.1, 1.0, 5.0]), self.start_coordinator)
        elif not reign.frozen:
            world.freeze(reign, rng.choice([0.1, 0.4, 1.0, 3.0, 6.0]))
            if action == "successor":
                world.start_coordinator()
                for stream in [s for s in world.streams if s.reign is reign and world.happens(0.5)]:
                    world.cut(stream)

    def start_coordinator(self) -> None:
        if self.world.cluster is None:
            self.world.start_coordinator()

    def request(self, action: str) -> None:
        world, vm = self.world, self.rng.choice(VMS)
        cluster = world.cluster
        assert cluster is not None
        moves = sorted(cluster.state.migrations)
        if action == "move":
            world.migrate(vm, self.rng.choice([*sorted(cluster.state.nodes), "best"]))
        elif action != "cancel" or moves:
            migration_id = self.rng.choice(moves) if action == "cancel" else ""
            world.ask(lambda number: make_request(action, number, vm, migration_id))

    # --- after it ---------------------------------------------------------------------------------

    def heal(self) -> None:
        """Bring everything back; then all that is wanted runs, and nothing else is left anywhere."""
        world = self.world
        self.healing = True
        world.run(7.0)  # every process that was frozen or killed is back by then
        self.start_coordinator()
        world.run_until(lambda: all_up(world), HEALED_WITHIN_S)
        world.run(1.0)
        self.ask_for_refused_vms()
        world.run_until(lambda: not self.unsettled(), HEALED_WITHIN_S, self.unsettled)
        world.run(5.0)
        assert not self.unsettled(), self.unsettled()

    def ask_for_refused_vms(self) -> None:
        """A VM that hosts have refused and no other has room for waits for its admin."""
        cluster = self.world.cluster
        assert cluster is not None
        for vm in list(cluster.state.refused_by):
            if cluster.state.owners[vm].node is None:
                self.world.ask(lambda number, vm=vm: TurnOnVm(number, vm))  # type: ignore[misc]

    def unsettled(self) -> list[str]:
        """What is not as it should be, in words."""
        world, cluster = self.world, self.world.cluster
        assert cluster is not None
        state = cluster.state
        found = [f"request {number} is not answered" for number in world.unanswered()]
        found += [f"{waiting} still waited for" for waiting in state.waiting]
        found += [f"move {move} goes on" for move in state.active_migrations()]
        for name, vm in state.vms.items():
            owner = state.owners[name]
            if vm.wanted and (owner.node is None or name not in world.agents[owner.node].running(world.now)):
                found.append(f"{name} is wanted and does not run: {owner}, {vm.reason}")
            elif vm.wanted and (state.running.get(name) != owner.epoch or name in state.held):
                found.append(f"{name} runs and is not known to")
            elif not vm.wanted and owner.node is not None:
                found.append(f"{name} is not wanted: {owner}")
        for agent in world.agents.values():
            found += leftovers(world, agent)
        return found


def make_request(action: str, number: int, vm: str, migration_id: str) -> AdminRequest:
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
    names = set(agent.host.state.images)
    if set(agent.memories) != names or set(agent.vcpus) != names:
        found.append(
            f"{agent.name} holds {names}, memory of {set(agent.memories)}, vCPUs of {set(agent.vcpus)}"
        )
    if agent.arriving or agent.leaving:
        found.append(f"{agent.name} still copies: {agent.arriving} {agent.leaving}")
    return found
