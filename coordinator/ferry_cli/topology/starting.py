"""A lab from a topology: its processes, and then its VMs."""

from dataclasses import replace
from pathlib import Path

from ferry.v1 import admin_pb2
from ferry_cli.admin import LOOK_S, connect
from ferry_cli.lab import lifecycle
from ferry_cli.lab.lifecycle import Progress
from ferry_cli.lab.state import COORDINATOR, Lab, LabNode, LabSpec
from ferry_cli.scenarios import requests
from ferry_cli.topology.model import Topology
from ferry_sim.scenarios import steps
from ferry_types.errors import FerryError
from ferry_types.network_words import network_words, nic_words, qos_words, team_words


async def up(directory: Path, spec: LabSpec, topology: Topology, progress: Progress) -> Lab:
    """Start a lab as ``lifecycle.up`` does, with these networks and hosts, and create its VMs.

    A VM that is there already stays as it is. Raises FerryError: as ``lifecycle.up``, or if a VM cannot be
    created; then the lab stays up.
    """
    networks = tuple(network_words(network) for network in topology.network_values)
    nodes = tuple(LabNode(name, agent_options(topology, name)) for name in topology.hosts)
    scale = topology.scale or spec.scale
    wanted = replace(spec, nodes=nodes, networks=networks, scale=scale)
    lab = await lifecycle.up(directory, wanted, progress)
    async with connect(lab.process(COORDINATOR).address) as admin:
        known = {vm.spec.name for vm in (await admin.ListVms(admin_pb2.ListVmsRequest(), timeout=LOOK_S)).vms}
    for name in topology.vms:
        if name not in known:
            await _create(lab, topology, name)
            progress(f"VM {name} was created")
    return lab


def agent_options(topology: Topology, name: str) -> tuple[tuple[str, str], ...]:
    """What the agent of a host is told, but for what all agents of the lab are."""
    host = topology.hosts[name]
    options = {
        "memory": "" if host.memory is None else f"{host.memory}B",
        "processors": "" if host.processors is None else str(host.processors),
        "migration_limit": "" if host.migration_limit is None else str(host.migration_limit),
        "migration_option": host.migration_option or "",
        "processor": "" if host.processor is None else f"{host.processor.vendor}:{host.processor.generation}",
        "switches": "" if host.switches is None else ",".join(host.switches),
        "domain": host.domain or "",
        "level": host.level or "",
    }
    return (
        *((option, value) for option, value in options.items() if value),
        *(("team", team_words(team)) for team in topology.team_values(name)),
        *(("nic", nic_words(nic)) for nic in topology.nic_values(name)),
        *(("qos", qos_words(policy)) for policy in topology.qos_values(name)),
    )


async def _create(lab: Lab, topology: Topology, name: str) -> None:
    vm = topology.vms[name]
    wanted = steps.CreateVm(vm.spec(name), vm.node or "", vm.start, vm.rules)
    try:
        async with connect(lab.process(COORDINATOR).address) as admin:
            await requests.put(admin, wanted, "")
    except FerryError as error:
        what = f"the lab is up, but VM {name} was not created: {error.refusal.message}"
        raise FerryError(replace(error.refusal, message=what)) from None
