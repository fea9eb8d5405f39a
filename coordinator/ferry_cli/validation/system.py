"""Tests of the category system: whether the hosts are alike enough to take each other's VMs."""

from ferry_cli.validation.facts import Facts
from ferry_cli.validation.verdicts import Verdict, counted, judge, listed, odd_ones
from ferry_types.eras import Era
from ferry_types.units import format_duration

CLOCK_WARNING_S = 1.0
"""Beyond it, the logs of two hosts tell a failover in the wrong order: leases last 2 to 5 s."""

CLOCK_FAILURE_S = 60.0
"""A fifth of the five minutes beyond which Kerberos refuses to sign anybody on (Active Directory's "maximum
tolerance for computer clock synchronization"): both ends of a sign-on may be off, and clocks drift on."""


def clocks(facts: Facts) -> Verdict:
    """Compares wall clocks with the coordinator's: a warning above 1 s, a failure above 60 s."""
    failures, warnings = [], []
    asked = [node for node in facts.nodes if node.process.report is not None]
    for node in asked:
        ahead_s = node.process.ahead_s
        certain_s = abs(ahead_s) - node.process.uncertainty_s
        told = (
            f"the clock of {node.name} is {format_duration(abs(ahead_s))} "
            f"{'ahead of' if ahead_s > 0 else 'behind'} the coordinator's"
        )
        if certain_s > CLOCK_FAILURE_S:
            failures.append(told)
        elif certain_s > CLOCK_WARNING_S:
            warnings.append(told)
    largest_s = max((abs(node.process.ahead_s) for node in asked), default=0.0)
    return judge(
        f"the clocks of {counted(len(asked), 'node')} differ from the coordinator's by at most "
        f"{format_duration(largest_s)}",
        failures=failures,
        warnings=warnings,
        advice="let all machines follow the same time source (NTP, w32time); Kerberos bears five minutes",
    )


def processor_vendors(facts: Facts) -> Verdict:
    """Fails if processors are of different vendors: no VM moves live between those."""
    vendor, odd = odd_ones({node.name: node.capacity.processor.vendor for node in facts.nodes})
    return judge(
        f"all processors are of {vendor}" if vendor else "there is no processor",
        failures=[f"{name} has a processor of {other}, others of {vendor}" for name, other in odd.items()],
        advice="VMs move live only between processors of one vendor: make a cluster of each",
    )


def processor_generations(facts: Facts) -> Verdict:
    """Warns if processors of one vendor are of different generations."""
    warnings = []
    vendors = sorted({node.capacity.processor.vendor for node in facts.nodes})
    for vendor in vendors:
        generations = {
            node.name: node.capacity.processor.generation
            for node in facts.nodes
            if node.capacity.processor.vendor == vendor
        }
        oldest, newest = min(generations.values()), max(generations.values())
        if oldest != newest:
            old = listed(name for name, generation in generations.items() if generation == oldest)
            new = listed(name for name, generation in generations.items() if generation == newest)
            warnings.append(f"{old}: {vendor}:{oldest}, {new}: {vendor}:{newest}")
    return judge(
        "processors of one vendor are of one generation",
        warnings=warnings,
        advice="VMs move live from newer to older processors only with processor compatibility set",
    )


def domains(facts: Facts) -> Verdict:
    """Fails if the hosts are not in one Active Directory domain."""
    domain, odd = odd_ones({node.name: node.capacity.domain for node in facts.nodes})
    return judge(
        f"all nodes are in the domain {domain}" if domain else "no node is in a domain",
        failures=[
            f"{name} is in the domain {other or '(none)'}, others in {domain or '(none)'}"
            for name, other in odd.items()
        ],
        advice="let all nodes join one domain (ferry agent run --domain): VMs do not move across",
    )


def virtual_switches(facts: Facts) -> Verdict:
    """Warns if a host lacks a virtual switch that another has."""
    switches = sorted({switch for node in facts.nodes for switch in node.capacity.switches})
    return judge(
        f"all nodes have the virtual switches {listed(switches)}" if switches else "no node has a switch",
        warnings=[
            f"{node.name} has no virtual switch {switch}"
            for node in facts.nodes
            for switch in switches
            if switch not in node.capacity.switches
        ],
        advice="VMs on that switch cannot run there: make it on every node (ferry agent run --switches)",
    )


def functional_levels(facts: Facts) -> Verdict:
    """Fails if a node plays an older release than the cluster's level; warns of newer ones."""
    order = list(Era)
    cluster = facts.cluster.era
    failures, warnings = [], []
    for node in facts.nodes:
        level = node.capacity.level
        if level and level not in order:
            failures.append(f"{node.name} is of level {level}, which this ferry does not know")
        elif level and order.index(Era(level)) < order.index(cluster):
            failures.append(f"{node.name} is of level {level}, older than the cluster's {cluster}")
        elif level and order.index(Era(level)) > order.index(cluster):
            warnings.append(f"{node.name} is of level {level}, newer than the cluster's {cluster}")
    return judge(
        f"all nodes are of the cluster's level {cluster}",
        failures=failures,
        warnings=warnings,
        advice="bring all nodes to one release; once they are, start the coordinator with that --era",
    )
