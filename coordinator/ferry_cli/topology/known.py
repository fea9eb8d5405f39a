"""What is well formed in a topology file, each by itself, and does not fit together."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ferry_cli.lab.state import BROKER, COORDINATOR, WITNESS
from ferry_sim.scenarios.document import Place
from ferry_sim.scenarios.miswired import Misfit, misscaled, missing, miswired
from ferry_types.migrations import BEST
from ferry_types.qos import qos_problem
from ferry_types.roles import SWITCH_DEFAULT, Failback

if TYPE_CHECKING:
    from ferry_cli.topology.model import Topology

_RESERVED: Final = (COORDINATOR, WITNESS, BROKER, BEST)


def misfits(topology: "Topology", scale: int) -> list[Misfit]:
    """All of them, hosts before VMs; ``scale``: of the lab."""
    found = [
        Misfit(("hosts", name), f"no host may be named {name}", "reserved name")
        for name in topology.hosts
        if name in _RESERVED
    ]
    found += miswired(topology.wiring)
    found += _in_qos(topology)
    found += _in_vms(topology)
    found += misscaled(topology.wiring, {name: vm.memory for name, vm in topology.vms.items()}, scale)
    return found


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


def _in_vms(topology: "Topology") -> Iterator[Misfit]:
    switches = {
        name: (SWITCH_DEFAULT,) if host.switches is None else host.switches
        for name, host in topology.hosts.items()
    }
    for name, vm in topology.vms.items():
        if name in topology.hosts:
            yield Misfit(("vms", name), f"{name} is both a host and a VM", "names")
        if vm.node is not None and vm.node not in switches:
            what = missing("host", vm.node, switches)
            yield Misfit(("vms", name, "node"), what, "known names")
        elif vm.node is not None and vm.possible and vm.node not in vm.possible:
            what = f"{vm.node} is none of its possible owners: {', '.join(vm.possible)}"
            yield Misfit(("vms", name, "node"), what, "possible owners")
        for field, owners in (("possible", vm.possible), ("preferred", vm.preferred)):
            for index, owner in enumerate(owners):
                if owner not in switches:
                    what = missing("host", owner, switches)
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
