"""What a step does to a world's processes and network."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from ferry_cluster.inputs import DeathCertified
from ferry_host.inputs import NicsTurned
from ferry_sim.network import COORDINATOR
from ferry_sim.processes import Agent, Process
from ferry_sim.scenarios import steps
from ferry_sim.scenarios.steps import Way
from ferry_sim.world import World
from ferry_types.errors import FerryError, refused
from ferry_types.messages import DeathCertificate
from ferry_types.networks import NicFault
from ferry_types.quorum import WITNESS

CERTIFY_AGAIN_S: Final = 0.5
CERTIFY_S_MAX: Final = 60.0
"""How often, and for how long, a watchdog tries to tell of its agent's death."""

BOOT_S: Final = 1.0
"""How long a host that is rebooted takes to come back."""


class Faults:
    """The steps that are done to processes, not asked of the cluster."""

    def __init__(self, world: World) -> None:
        self._world = world

    def strike(self, fault: steps.Fault) -> None:
        """Do it. Raises FerryError(refused) if it cannot be done: what is off cannot be turned off."""
        match fault:
            case steps.Power(on=True):
                self._start(fault.node)
            case steps.Power():
                self._living(fault.node)
                self._world.kill_host(fault.node)
            case steps.Kill():
                self._end(fault.node, "it was killed")
            case steps.Shutdown():
                self._end(fault.node, "it was told to stop", ordered=True)
            case steps.Reboot():
                self._end(fault.node, "it was told to stop", ordered=True)
                self._world.clockwork.later(BOOT_S, partial(self._start_if_off, fault.node))
            case steps.Network():
                self._cut_or_mend(fault)
            case steps.TurnNic():
                self._turn_nic(fault)
            case steps.Freeze():
                self._world.freeze(self._process(fault.process), fault.seconds)
            case steps.Coordinator():
                self._coordinator(fault)
            case steps.Witness():
                self._world.ballots.witness.alive = fault.start
            case steps.CrashGuest():
                self._crash(fault.vm)

    # --- hosts ------------------------------------------------------------------------------------

    def _living(self, name: str) -> Agent:
        agent = self._world.agents[name]
        if not agent.alive:
            raise FerryError(refused("power", f"{name} is off", f"give it power first: power {name} on"))
        return agent

    def _start(self, name: str) -> None:
        if self._world.agents[name].alive:
            raise FerryError(refused("power", f"{name} is on already"))
        self._world.start_host(name)

    def _start_if_off(self, name: str) -> None:
        if not self._world.agents[name].alive:
            self._world.start_host(name)

    def _end(self, name: str, cause: str, *, ordered: bool = False) -> None:
        """The agent ends; its watchdog goes on telling the coordinator until that is there to hear it."""
        agent = self._living(name)
        self._world.kill_host(name)
        certificate = DeathCertified(DeathCertificate(name, agent.incarnation, cause, ordered))
        self._certify(name, certificate, self._world.now + CERTIFY_S_MAX)

    def _certify(self, name: str, certificate: DeathCertified, until: float) -> None:
        world = self._world

        def arrive() -> None:
            ways = {(name, COORDINATOR), (COORDINATOR, name)}  # the dead agent's watchdog has them too
            reign = world.newest()
            if reign is not None and not ways & world.network.severed:
                reign.do(lambda: world.submit(reign, certificate))
            elif world.now < until:
                world.clockwork.later(CERTIFY_AGAIN_S, arrive)

        world.clockwork.later(world.clockwork.delay(), arrive)

    def _process(self, name: str) -> Process:
        if name != COORDINATOR:
            return self._living(name)
        reign = self._world.newest()
        if reign is None:
            raise FerryError(refused("coordinator", "there is no coordinator to freeze"))
        return reign

    def _crash(self, vm: str) -> None:
        for agent in self._world.agents.values():
            if agent.alive and vm in agent.vcpus:
                self._world.shell.crash_guest(agent, vm)
                return
        raise FerryError(refused("vm running", f"{vm} runs nowhere"))

    # --- the coordinator and the network ----------------------------------------------------------

    def _coordinator(self, fault: steps.Coordinator) -> None:
        there = self._world.newest() is not None
        if there == fault.start:
            raise FerryError(refused("coordinator", f"there is {'one' if there else 'none'} already"))
        if fault.start:
            self._world.start_coordinator()
        else:
            self._world.kill_coordinator()

    def _cut_or_mend(self, fault: steps.Network) -> None:
        world = self._world
        for way in fault.ways or self._all_ways(fault.node):
            if fault.on:
                world.network.mend(way.sender, way.receiver)
                continue
            world.network.sever(way.sender, way.receiver)
            if way.sender in world.agents and way.receiver in world.agents:
                world.shell.break_moves_between(way.sender, way.receiver)

    def _turn_nic(self, fault: steps.TurnNic) -> None:
        """What passes the NIC is cut, and with the last one that carries the cluster the host."""
        world, agent = self._world, self._living(fault.node)
        down = {each.nic: each for each in agent.host.state.nics_down}
        was_cut = self._is_cut_off(agent, down)
        if fault.up:
            down.pop(fault.nic, None)
        else:
            down[fault.nic] = NicFault(fault.nic, "its cable was pulled")
            self._break_moves(agent, fault.nic, down)
        world.feed(agent, NicsTurned(tuple(down.values())))
        if self._is_cut_off(agent, down) != was_cut:
            self._cut_or_mend(steps.Network(fault.node, was_cut, ()))

    def _break_moves(self, agent: Agent, nic: str, down: Mapping[str, NicFault]) -> None:
        """Moves that go over a network of which the host has no other NIC that is up."""
        nics = {each.name: each.network for each in agent.host.state.identity.capacity.nics}
        left = {network for name, network in nics.items() if name not in down}
        cluster = self._world.cluster
        for move in cluster.state.active_migrations() if cluster is not None else ():
            if agent.name in (move.source, move.target) and move.network == nics[nic] not in left:
                self._world.shell.break_moves_between(move.source, move.target)

    def _is_cut_off(self, agent: Agent, down: Mapping[str, NicFault]) -> bool:
        roles = {network.name: network.role for network in self._world.settings.networks}
        carrying = [
            nic.name for nic in agent.host.state.identity.capacity.nics if roles[nic.network].carries_cluster
        ]
        return bool(carrying) and all(nic in down for nic in carrying)

    def _all_ways(self, node: str) -> list[Way]:
        others = [name for name in (*self._world.agents, COORDINATOR, WITNESS) if name != node]
        return [way for other in others for way in (Way(node, other), Way(other, node))]
