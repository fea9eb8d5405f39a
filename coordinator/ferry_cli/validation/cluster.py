"""Tests of the category cluster: what the coordinator says of the whole."""

from datetime import UTC, datetime

from ferry_cli.validation.facts import Facts, NodeFacts, VmFacts
from ferry_cli.validation.verdicts import Verdict, counted, judge, listed
from ferry_types.units import format_size
from ferry_types.vms import NodeState

_PASSING = (NodeState.PAUSED, NodeState.DRAINING, NodeState.JOINING)
"""States that somebody has chosen, or that end by themselves."""


def nodes_up(facts: Facts) -> Verdict:
    """Fails if a node is lost. Warns of those that are paused, draining or joining."""
    states = [(node, f"{node.name} is {node.state}{_because(node.reason)}") for node in facts.nodes]
    return judge(
        f"{counted(len(facts.nodes), 'node')} up" if facts.nodes else "there are no nodes",
        failures=[told for node, told in states if not node.is_up and node.state not in _PASSING],
        warnings=[told for node, told in states if node.state in _PASSING],
        advice="start what is down (ferry lab start, ferry agent run), resume what is paused, "
        "evict what is gone for good (ferry node evict)",
    )


def quorum(facts: Facts) -> Verdict:
    """Fails if the witness is silent. Warns of votes that bear no failure, and of quorum that was forced."""
    votes, failures, warnings = facts.quorum, [], []
    advice = ["see ferry quorum show"]
    if votes.witness and votes.witness_state == "silent":
        failures.append(f"the witness at {votes.witness} is silent")
        advice.append("start the witness, or name another one: ferry quorum set --witness")
    if votes.forced:
        warnings.append("an admin has overridden quorum for this reign: hosts that it cannot see may run on")
        advice.append("start the coordinator without --force-quorum once a majority is there again")
    if votes.nodes == 1:
        warnings.append("there is one node: nothing fails over")
        advice.append("add nodes")
    elif votes.nodes % 2 == 0 and not votes.witness:
        warnings.append(f"{votes.nodes} nodes and no witness: half of them are no majority")
        advice.append("add a witness (ferry witness run, then ferry quorum set --witness), or a node")
    if votes.reason:
        warnings.append(votes.reason)
    mode = f"a witness at {votes.witness}" if votes.witness else "no witness"
    return judge(
        f"{votes.majority} of {counted(votes.votes, 'vote')} are a majority; "
        f"{counted(votes.nodes, 'node')}, {mode}",
        failures=failures,
        warnings=warnings,
        advice="; ".join(advice),
    )


def capacity_to_lose_a_node(facts: Facts) -> Verdict:
    """Warns if the VMs of some node found no room on the others (N+1)."""
    nodes = [node for node in facts.nodes if node.is_up]
    warnings = []
    for lost in nodes:
        vms = [vm for vm in facts.vms if vm.node == lost.name]
        homeless = _without_room(vms, [node for node in nodes if node is not lost])
        if homeless:
            needed = format_size(sum(vm.memory_bytes for vm in homeless))
            names = listed(vm.name for vm in homeless)
            warnings.append(f"without {lost.name} there is no room for {names} ({needed})")
    used = format_size(max((node.used_bytes for node in nodes), default=0))
    return judge(
        f"the others have room for the VMs of any node; the fullest uses {used}",
        warnings=warnings,
        advice="add memory or a node, or remove VMs, until the cluster bears the loss of one node (N+1)",
    )


def event_log(facts: Facts) -> Verdict:
    """Warns of critical events within the last hour."""
    return judge(
        "no critical event within the last hour",
        warnings=[f"{_clock(event.time_us)}: {event.message}" for event in facts.critical_events],
        advice="see what came before and after: ferry events --since 1h",
    )


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _without_room(vms: list[VmFacts], hosts: list[NodeFacts]) -> list[VmFacts]:
    """Those left over when the largest are placed first, each on the host that has the most room."""
    room_bytes = {node.name: node.capacity.memory_bytes - node.used_bytes for node in hosts}
    left = []
    for vm in sorted(vms, key=lambda vm: vm.memory_bytes, reverse=True):
        roomiest = max(room_bytes, key=lambda name: room_bytes[name], default=None)
        if roomiest is None or room_bytes[roomiest] < vm.memory_bytes:
            left.append(vm)
        else:
            room_bytes[roomiest] -= vm.memory_bytes
    return left


def _clock(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%H:%M:%S UTC")
