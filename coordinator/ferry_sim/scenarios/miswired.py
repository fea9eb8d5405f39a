"""What is well formed in the wiring of a file, each by itself, and does not fit together."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ferry_sim.scenarios.addresses import OWN, NoAddressLeft, deal
from ferry_sim.scenarios.document import Place
from ferry_sim.scenarios.wiring import HostNic, Wired, Wiring
from ferry_types.links import MTU_STANDARD
from ferry_types.networks import networks_problem
from ferry_types.scale import memory_problem, rate_problem


@dataclass(frozen=True, slots=True)
class Misfit:
    """What is wrong, where, and by which rule."""

    place: Place
    what: str
    rule: str


def miswired(wiring: Wiring) -> list[Misfit]:
    """All of it."""
    found = []
    if (problem := networks_problem(wiring.network_values)) is not None:
        found.append(Misfit(("networks",), problem.message, problem.rule))
    for name, host in wiring.hosts.items():
        found += _in_nics(wiring, name, host)
        found += _in_teams(wiring, name, host)
    found += _addresses(wiring)
    found += _jumbo(wiring)
    return found


def misscaled(wiring: Wiring, memory_bytes: Mapping[str, int], scale: int) -> list[Misfit]:
    """What does not fit a scale. ``memory_bytes``: of the file's VMs."""
    found = []
    for _, name, nic, place in _nics(wiring):
        if (problem := rate_problem(nic.value(name, ""), scale)) is not None:
            found.append(Misfit((*place, "rate"), f"{problem.message}; {problem.hint}", problem.rule))
    for name, memory in memory_bytes.items():
        if (problem := memory_problem(name, memory, scale)) is not None:
            place = ("vms", name, "memory")
            found.append(Misfit(place, f"{problem.message}; {problem.hint}", problem.rule))
    return found


def missing(kind: str, name: str, known: Iterable[str]) -> str:
    """That a file uses a name that it does not introduce."""
    return f"there is no {kind} {name}: the file has {', '.join(known) or 'none'}"


def _nics(wiring: Wiring) -> Iterator[tuple[str, str, HostNic, Place]]:
    for host, described in wiring.hosts.items():
        for name, nic in described.nics.items():
            yield host, name, nic, (wiring.where, host, "nics", name)


def _in_nics(wiring: Wiring, name: str, host: Wired) -> Iterator[Misfit]:
    for nic_name, nic in host.nics.items():
        place: Place = (wiring.where, name, "nics", nic_name)
        if nic.network not in wiring.networks:
            what = missing("network", nic.network, wiring.networks)
            yield Misfit((*place, "network"), what, "known network")
        if nic.team is not None and nic.team not in host.teams:
            what = f"{wiring.noun} {name} has no team {nic.team}: it has {', '.join(host.teams) or 'none'}"
            yield Misfit((*place, "team"), what, "known team")
        if nic.team is not None and nic.rdma:
            what = f"it has RDMA and is in team {nic.team}: a team and RDMA exclude each other"
            yield Misfit((*place, "rdma"), what, "rdma in a team")


def _in_teams(wiring: Wiring, name: str, host: Wired) -> Iterator[Misfit]:
    for team in host.teams:
        place: Place = (wiring.where, name, "teams", team)
        members = {nic_name: nic.network for nic_name, nic in host.nics.items() if nic.team == team}
        if not members:
            yield Misfit(place, f"no NIC of {wiring.noun} {name} is in team {team}", "team members")
        elif len(set(members.values())) > 1:
            who = ", ".join(f"{nic} of {network}" for nic, network in members.items())
            yield Misfit(place, f"its NICs are of several networks: {who}", "team of one network")


def _addresses(wiring: Wiring) -> Iterator[Misfit]:
    seen: dict[str, str] = {}
    networks = {network.name: network for network in wiring.network_values}
    for host, name, nic, place in _nics(wiring):
        if nic.address is None:
            continue
        if nic.address in seen:
            what = f"{nic.address} is the address of {seen[nic.address]}, too"
            yield Misfit((*place, "address"), what, "nic addresses")
        seen.setdefault(nic.address, f"{name} of {host}")
        if nic.address == OWN:
            yield Misfit(
                (*place, "address"), f"at {OWN} the lab's processes listen themselves", "nic listens"
            )
        network = networks.get(nic.network)
        if network is not None and not network.contains(nic.address):
            what = f"{nic.address} is not in {network.subnet}, the subnet of {network.name}"
            yield Misfit((*place, "address"), what, "subnet")
    try:
        deal(wiring)
    except NoAddressLeft as problem:
        host, name = problem.owner
        yield Misfit((wiring.where, host, "nics", name), problem.what, "subnet")


def _jumbo(wiring: Wiring) -> Iterator[Misfit]:
    """Jumbo frames must agree end to end: a file that says otherwise is a slip."""
    first: dict[str, tuple[str, int]] = {}
    for host, name, nic, place in _nics(wiring):
        one, mtu = first.setdefault(nic.network, (f"{name} of {host}", nic.mtu))
        if nic.mtu != mtu and max(nic.mtu, mtu) > MTU_STANDARD:
            what = (
                f"jumbo frames must agree end to end on network {nic.network}: {one} has an MTU of {mtu}, "
                f"{name} of {host} of {nic.mtu}"
            )
            yield Misfit((*place, "mtu"), what, "jumbo frames")
