"""What is well formed in a topology file, each by itself, and does not fit together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ferry_cli.lab.state import BROKER, COORDINATOR, WITNESS
from ferry_cli.topology.addresses import OWN, NoAddressLeft, deal
from ferry_sim.scenarios.document import Place
from ferry_types.links import MTU_STANDARD
from ferry_types.migrations import BEST
from ferry_types.networks import networks_problem
from ferry_types.qos import qos_problem
from ferry_types.roles import SWITCH_DEFAULT, Failback
from ferry_types.scale import memory_problem, rate_problem

if TYPE_CHECKING:
    from ferry_cli.topology.model import Host, HostNic, Topology

_RESERVED: Final = (COORDINATOR, WITNESS, BROKER, BEST)


@dataclass(frozen=True, slots=True)
class Misfit:
    """What is wrong, where, and by which rule."""

    place: Place
    what: str
    rule: str


def misfits(topology: "Topology", scale: int) -> list[Misfit]:
    """All of them, hosts before VMs; ``scale``: of the lab."""
    found = [
        Misfit(("hosts", name), f"no host may be named {name}", "reserved name")
        for name in topology.hosts
        if name in _RESERVED
    ]
    if (problem := networks_problem(topology.network_values)) is not None:
        found.append(Misfit(("networks",), problem.message, problem.rule))
    for name, host in topology.hosts.items():
        found += _in_nics(topology, name, host)
        found += _in_teams(name, host)
    found += _in_qos(topology)
    found += _addresses(topology)
    found += _jumbo(topology)
    found += _in_vms(topology)
    found += _in_scale(topology, scale)
    return found


def _nics(topology: "Topology") -> Iterator[tuple[str, str, "HostNic", Place]]:
    for host, described in topology.hosts.items():
        for name, nic in described.nics.items():
            yield host, name, nic, ("hosts", host, "nics", name)


def _missing(kind: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {kind} {name}: the file has {', '.join(known) or 'none'}"


def _in_nics(topology: "Topology", name: str, host: "Host") -> Iterator[Misfit]:
    for nic_name, nic in host.nics.items():
        place: Place = ("hosts", name, "nics", nic_name)
        if nic.network not in topology.networks:
            what = _missing("network", nic.network, topology.networks)
            yield Misfit((*place, "network"), what, "known network")
        if nic.team is not None and nic.team not in host.teams:
            what = f"host {name} has no team {nic.team}: it has {', '.join(host.teams) or 'none'}"
            yield Misfit((*place, "team"), what, "known team")
        if nic.team is not None and nic.rdma:
            what = f"it has RDMA and is in team {nic.team}: a team and RDMA exclude each other"
            yield Misfit((*place, "rdma"), what, "rdma in a team")


def _in_teams(name: str, host: "Host") -> Iterator[Misfit]:
    for team in host.teams:
        place: Place = ("hosts", name, "teams", team)
        members = {nic_name: nic.network for nic_name, nic in host.nics.items() if nic.team == team}
        if not members:
            yield Misfit(place, f"no NIC of host {name} is in team {team}", "team members")
        elif len(set(members.values())) > 1:
            who = ", ".join(f"{nic} of {network}" for nic, network in members.items())
            yield Misfit(place, f"its NICs are of several networks: {who}", "team of one network")


def _in_qos(topology: "Topology") -> Iterator[Misfit]:
    if topology.qos and not any(host.nics for host in topology.hosts.values()):
        yield Misfit(("qos",), "no host has a NIC that it could hold on", "qos without nic")
    told: set[str] = set()
    for name, host in topology.hosts.items():
        problem = qos_problem(topology.qos_values(name), has_nics=bool(host.nics))
        if problem is not None and (host.qos or problem.message not in told):
            told.add(problem.message)
            place: Place = ("hosts", name, "qos") if host.qos else ("qos",)
            yield Misfit(place, f"{problem.message}: {problem.hint}", problem.rule)


def _addresses(topology: "Topology") -> Iterator[Misfit]:
    seen: dict[str, str] = {}
    networks = {network.name: network for network in topology.network_values}
    for host, name, nic, place in _nics(topology):
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
        deal(topology)
    except NoAddressLeft as problem:
        host, name = problem.owner
        yield Misfit(("hosts", host, "nics", name), problem.what, "subnet")


def _jumbo(topology: "Topology") -> Iterator[Misfit]:
    """Jumbo frames must agree end to end: a file that says otherwise is a slip."""
    first: dict[str, tuple[str, int]] = {}
    for host, name, nic, place in _nics(topology):
        one, mtu = first.setdefault(nic.network, (f"{name} of {host}", nic.mtu))
        if nic.mtu != mtu and max(nic.mtu, mtu) > MTU_STANDARD:
            what = (
                f"jumbo frames must agree end to end on network {nic.network}: {one} has an MTU of {mtu}, "
                f"{name} of {host} of {nic.mtu}"
            )
            yield Misfit((*place, "mtu"), what, "jumbo frames")


def _in_scale(topology: "Topology", scale: int) -> Iterator[Misfit]:
    for _, name, nic, place in _nics(topology):
        if (problem := rate_problem(nic.value(name, ""), scale)) is not None:
            yield Misfit((*place, "rate"), f"{problem.message}; {problem.hint}", problem.rule)
    for name, vm in topology.vms.items():
        if (problem := memory_problem(name, vm.memory, scale)) is not None:
            yield Misfit(("vms", name, "memory"), f"{problem.message}; {problem.hint}", problem.rule)


def _in_vms(topology: "Topology") -> Iterator[Misfit]:
    switches = {
        name: (SWITCH_DEFAULT,) if host.switches is None else host.switches
        for name, host in topology.hosts.items()
    }
    for name, vm in topology.vms.items():
        if name in topology.hosts:
            yield Misfit(("vms", name), f"{name} is both a host and a VM", "names")
        if vm.node is not None and vm.node not in switches:
            what = _missing("host", vm.node, switches)
            yield Misfit(("vms", name, "node"), what, "known names")
        elif vm.node is not None and vm.possible and vm.node not in vm.possible:
            what = f"{vm.node} is none of its possible owners: {', '.join(vm.possible)}"
            yield Misfit(("vms", name, "node"), what, "possible owners")
        for field, owners in (("possible", vm.possible), ("preferred", vm.preferred)):
            for index, owner in enumerate(owners):
                if owner not in switches:
                    what = _missing("host", owner, switches)
                    yield Misfit(("vms", name, field, index), what, "known names")
                elif vm.possible and owner not in vm.possible:
                    what = f"{owner} is none of its possible owners: {', '.join(vm.possible)}"
                    yield Misfit(("vms", name, field, index), what, "preferred owners")
        if vm.rules.failback is not Failback.OFF and not vm.preferred:
            yield Misfit(("vms", name, "failback"), "it has no preferred owner to go back to", "failback")
        owners = (vm.node,) if vm.node is not None else vm.possible or tuple(switches)
        if not any(vm.switch in switches.get(owner, (vm.switch,)) for owner in owners):
            what = f"no virtual switch {vm.switch} is on {', '.join(owners)}"
            yield Misfit(("vms", name, "switch"), what, "virtual switch")
