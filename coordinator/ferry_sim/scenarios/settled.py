"""Whether anything is under way in a world, and what is left over where nothing is."""

from ferry_cluster.state import ClusterState
from ferry_sim import storm
from ferry_sim.network import COORDINATOR
from ferry_sim.processes import Agent
from ferry_sim.world import World
from ferry_types.drains import DrainState
from ferry_types.vms import VmState

_PASSING = frozenset({VmState.STARTING, VmState.PAUSED, VmState.MIGRATING, VmState.UNMONITORED})


def unsettled(world: World) -> list[str]:
    """What is under way, in words."""
    cluster = world.cluster
    if cluster is None:
        return ["there is no coordinator"]
    state = cluster.state
    found = [f"request {number} is not answered" for number in world.unanswered()]
    found += [f"move {move.id} of {move.vm} is {move.state}" for move in state.active_migrations()]
    found += [f"{node} is about to be evicted" for node in state.evicting]
    found += [f"{node} is being drained" for node, drain in state.drains.items() if _is_active(drain.state)]
    found += [f"{node} is being judged" for node in state.rounds]
    joining = (node for node in state.pending if not state.is_quarantined(state.nodes[node]))
    found += [f"{node} waits until its former life is known to be lost" for node in joining]
    if state.proposal is not None or state.quorum.number < state.quorum.highest:
        found.append("the votes change")
    found += [f"{view.spec.name} is {view.state}" for view in cluster.vm_views() if view.state in _PASSING]
    later = (vm for vm in state.vms.values() if vm.wanted and vm.starts_at_us > state.wall_us)
    found += [f"{vm.spec.name} starts later" for vm in later]
    return found + _unsettled_hosts(world, state)


def _is_active(state: DrainState) -> bool:
    return state is DrainState.ACTIVE


def _unsettled_hosts(world: World, state: ClusterState) -> list[str]:
    """Hosts that are not what the cluster takes them for."""
    found = []
    if (reign := world.newest()) is not None and reign.frozen:
        found.append("the coordinator stands still")
    for name, agent in world.agents.items():
        node = state.nodes.get(name)
        known = node is not None and node.up and node.incarnation == agent.incarnation
        if not is_reached(world, agent):
            found += [f"the loss of {name} is not known yet"] if known else []
        elif agent.frozen:
            found.append(f"{name} stands still")
        elif node is not None and state.is_quarantined(node):
            continue  # it is kept out, perhaps for hours
        elif agent.stream is None or not known:
            found.append(f"{name} has not joined")
        elif agent.host.state.claim is None or agent.host.state.claim.votes_number != state.quorum.number:
            found.append(f"{name} has not heard yet who votes")
    return found


def is_reached(world: World, agent: Agent) -> bool:
    """Whether a host lives, and the network lets it and the coordinator talk."""
    ways = {(agent.name, COORDINATOR), (COORDINATOR, agent.name)}
    return agent.alive and not ways & world.network.severed


def leftovers(world: World) -> list[str]:
    """What hosts hold and should not, in a world where nothing is under way."""
    found = []
    for agent in world.agents.values():
        if is_reached(world, agent) and not agent.frozen:
            found += [f"left over: {what}" for what in storm.leftovers(world, agent)]
    return found
