"""Tests of the category inventory: what there is, and whether it fits together."""

from collections import defaultdict

from ferry_cli.validation.facts import COORDINATOR, Facts, NodeFacts
from ferry_cli.validation.verdicts import Verdict, counted, judge, listed
from ferry_types.inspection import MachineReport
from ferry_types.units import format_size


def hosts_and_processors(facts: Facts) -> Verdict:
    """List the hosts. Fails if there are none."""
    if not facts.nodes:
        return judge("", failures=["the cluster has no nodes"], advice="start an agent: ferry agent run")
    return judge([_host(node) for node in facts.nodes])


def software_versions(facts: Facts) -> Verdict:
    """Fails if a process is of another version than the coordinator."""
    versions = {node.name: node.version for node in facts.nodes if node.version}
    if facts.coordinator.report is None:
        return judge("", failures=[f"the version of {COORDINATOR} is not known"])
    ours = facts.coordinator.report.version
    return judge(
        f"{COORDINATOR} and {counted(len(versions), 'node')} run version {ours}",
        failures=[
            f"{name} runs version {version}, the coordinator {ours}"
            for name, version in versions.items()
            if version != ours
        ],
        advice="bring every process to one version, node by node: drain, upgrade, start",
    )


def memory(facts: Facts) -> Verdict:
    """Fails if a host offers its VMs more than its machine has.

    Warns if what the hosts of one machine still have to give is more than the machine has available.
    """
    machines: dict[str, list[tuple[NodeFacts, MachineReport]]] = defaultdict(list)
    for node in facts.nodes:
        if (report := node.process.report) is not None:
            machines[report.machine.boot_id].append((node, report.machine))
    failures, warnings = [], []
    for members in machines.values():
        lacking = [_too_little(node, machine) for node, machine in members]
        if any(lacking):
            failures += [line for line in lacking if line]
        else:
            warnings += _promised_twice(members)
    return judge(
        [_share(node) for node in facts.nodes],
        failures=failures,
        warnings=warnings,
        advice="let the hosts offer less (ferry agent run --memory), or give the machine more; VMs that find "
        "no memory when they use it get their host killed by the kernel",
    )


def virtual_machines(facts: Facts) -> Verdict:
    """List the VMs."""
    states = sorted({vm.state for vm in facts.vms})
    by_state = [counted(sum(vm.state == state for vm in facts.vms), f"{state} VM") for state in states]
    total = format_size(sum(vm.memory_bytes for vm in facts.vms))
    return judge(f"{listed(by_state)} with {total} of memory" if facts.vms else "there are no VMs")


def _host(node: NodeFacts) -> str:
    capacity = node.capacity
    processor = f"{capacity.processor.vendor}:{capacity.processor.generation}"
    return f"{node.name} at {node.address or 'no address'}: {capacity.processors} x {processor}"


def _share(node: NodeFacts) -> str:
    offered, used = format_size(node.capacity.memory_bytes), format_size(node.used_bytes)
    report = node.process.report
    if report is None:
        return f"{node.name} offers {offered}, {used} in use; its machine is not known"
    total, available = format_size(report.machine.memory_bytes), format_size(report.machine.available_bytes)
    offered += _really(node, node.capacity.memory_bytes)
    return f"{node.name} offers {offered}, {used} in use; its machine has {total}, {available} available"


def _really(node: NodeFacts, emulated_bytes: int) -> str:
    """In brackets, what memory that a host emulates takes of its machine; empty if that is the same."""
    scale = node.capacity.scale
    return "" if scale == 1 else f" ({format_size(emulated_bytes / scale)} really, at scale {scale})"


def _too_little(node: NodeFacts, machine: MachineReport) -> str:
    offered_bytes = node.capacity.memory_bytes
    if offered_bytes / node.capacity.scale <= machine.memory_bytes:
        return ""
    offered = format_size(offered_bytes) + _really(node, offered_bytes)
    has = format_size(machine.memory_bytes)
    return f"too little memory: {node.name} offers {offered} to VMs, its machine has {has}"


def _promised_twice(members: list[tuple[NodeFacts, MachineReport]]) -> list[str]:
    """``members``: hosts of one machine."""
    free_bytes = sum(
        max(node.capacity.memory_bytes - node.used_bytes, 0) / node.capacity.scale for node, _ in members
    )
    available_bytes = min(machine.available_bytes for _, machine in members)
    if free_bytes <= available_bytes:
        return []
    names = listed(node.name for node, _ in members)
    free = format_size(free_bytes)
    if any(node.capacity.scale > 1 for node, _ in members):
        free += " of real memory"
    together = f"{names}, on one machine, still offer {free} together"
    if len(members) == 1:
        together = f"{names} still offers {free}"
    return [f"{together}, but {format_size(available_bytes)} of its memory are available"]
