"""Tests of the category network: who reaches whom, and how fast."""

import ipaddress
from collections import defaultdict
from collections.abc import Iterable

from ferry_cli.validation.facts import COORDINATOR, WITNESS, Facts, PathFacts
from ferry_cli.validation.verdicts import Verdict, counted, judge, listed
from ferry_types.errors import FerryError
from ferry_types.units import format_duration
from ferry_wire.addresses import parse_address

LATENCY_BEATS_MAX = 0.2
"""A round trip within a fifth of a beat is no concern: a renewal is one, and a host that has lost the
coordinator must get two rounds of its voters in before its lease ends."""


def processes_answer(facts: Facts) -> Verdict:
    """Fails if a node does not answer when it is asked about itself, or answers for another."""
    failures = [
        f"{node.name} does not answer: {node.process.problem}"
        for node in facts.nodes
        if node.process.report is None
    ]
    for name, report in facts.reports:
        if report.host is not None and report.host.node != name:
            failures.append(f"at the address of {name}, {report.host.node} answers")
    listening = [f"{name} listens on {listed(report.listening)}" for name, report in facts.reports]
    return judge(
        listening,
        failures=failures,
        warnings=[f"{name} did not measure its paths: {why}" for name, why in facts.unmeasured],
        advice="start what does not run; else see whether this machine may connect to that address",
    )


def ip_configuration(facts: Facts) -> Verdict:
    """Fails if two share an address. Warns if only some addresses are of the loopback interface."""
    services = {node.name: node.address for node in facts.nodes if node.address}
    echoes = {f"{node.name} (echo)": node.echo_address for node in facts.nodes if node.echo_address}
    failures = [*_shared(services), *_shared(echoes)]
    others = {WITNESS: facts.quorum.witness} if facts.quorum.witness else {}
    for node in facts.nodes:
        if node.process.report is not None and node.process.report.host:
            others[f"{COORDINATOR}, as {node.name} knows it"] = node.process.report.host.coordinator
    kinds: dict[bool, list[str]] = defaultdict(list)
    for name, address in (services | echoes | others).items():
        loopback = _is_loopback(address)
        if loopback is not None:
            kinds[loopback].append(f"{name} {address}")
    mixed = len(kinds) == 2
    return judge(
        f"{counted(len(services) + len(echoes), 'address', 'addresses')}, each of one process, "
        f"{'all' if kinds[True] else 'none'} of the loopback interface",
        failures=failures,
        warnings=[f"loopback, for one machine alone: {listed(kinds[True])}; not: {listed(kinds[False])}"]
        if mixed
        else [],
        advice="give each process an address of its own that all machines reach (--listen, --advertise)",
    )


def communication(facts: Facts) -> Verdict:
    """Fails if a node does not reach another: each direction counts for itself."""
    names = {node.name for node in facts.nodes}
    paths = [path for path in facts.paths if path.source in names and path.target in names]
    reached = {(path.source, path.target) for path in paths if not path.problem}
    failures = []
    for path in paths:
        if path.problem:
            back = (path.target, path.source) in reached
            hint = f" (but {path.target} reaches {path.source}: the path is cut one way)" if back else ""
            failures.append(f"{_broken(path)}{hint}")
    return judge(
        _reached(paths, "between nodes"),
        failures=failures,
        advice="look for a firewall rule, a route or a cable on that way: moves and votes need it",
    )


def latency(facts: Facts) -> Verdict:
    """Warns of paths whose round trip takes more than a fifth of a beat."""
    bound_s = facts.cluster.beat_s * LATENCY_BEATS_MAX
    measured = [path for path in facts.paths if not path.problem]
    if not measured:
        return judge("no path was measured")
    slowest = max(measured, key=lambda path: path.median_s)
    return judge(
        f"the slowest of {counted(len(measured), 'path')} is from {slowest.source} to {slowest.target}: "
        f"{_times(slowest)}; allowed are {format_duration(bound_s)}",
        warnings=[
            f"{path.source} to {path.target}: {_times(path)}; allowed are {format_duration(bound_s)}"
            for path in measured
            if path.median_s > bound_s
        ],
        advice="use a faster path or less load; or start the coordinator with a profile of longer beats",
    )


def coordinator_communication(facts: Facts) -> Verdict:
    """Fails if the coordinator does not reach a node, or a node the coordinator."""
    ends = {node.name for node in facts.nodes} | {COORDINATOR}
    up = {node.name for node in facts.nodes if node.is_up}
    paths = [path for path in _paths_with(facts, COORDINATOR) if {path.source, path.target} <= ends]
    failures = []
    for path in paths:
        if path.problem:
            counts = f" (but {path.target} is still up: it has just frozen, or the path is cut one way)"
            failures.append(f"{_broken(path)}{counts if path.target in up else ''}")
    return judge(
        _reached(paths, "between coordinator and nodes"),
        failures=failures,
        advice="see the nodes' --coordinator and --advertise, and the firewalls between",
    )


def witness_communication(facts: Facts) -> Verdict:
    """Fails if a node or the coordinator does not reach the witness."""
    if not facts.quorum.witness:
        return judge("there is no witness")
    paths = list(_paths_with(facts, WITNESS))
    return judge(
        _reached(paths, f"to the witness at {facts.quorum.witness}"),
        failures=[_broken(path) for path in paths if path.problem],
        advice="start the witness, or name another one: ferry quorum set --witness",
    )


def echo_ports(facts: Facts) -> Verdict:
    """Warns if a running guest is not heard on its host's echo port (UDP)."""
    asked = [echo.node for echo in facts.echoes]
    return judge(
        f"a guest of {listed(asked)} answers" if asked else "no host has a running VM that could answer",
        warnings=[
            f"{echo.vm} on {echo.node} does not answer at {echo.address} (UDP)"
            for echo in facts.echoes
            if not echo.answered
        ],
        advice="see whether UDP may pass to that port, and whether the VM is paused: ferry vm ping",
    )


def _paths_with(facts: Facts, end: str) -> Iterable[PathFacts]:
    return (path for path in facts.paths if end in (path.source, path.target))


def _broken(path: PathFacts) -> str:
    return f"{path.source} does not reach {path.target}: {path.problem}"


def _reached(paths: list[PathFacts], which: str) -> str:
    return f"{counted(len(paths), 'path')} {which}, all open" if paths else f"there is no path {which}"


def _times(path: PathFacts) -> str:
    return f"{format_duration(path.median_s)} (worst {format_duration(path.worst_s)})"


def _shared(addresses: dict[str, str]) -> list[str]:
    holders: dict[str, list[str]] = defaultdict(list)
    for name, address in addresses.items():
        holders[address].append(name)
    return [
        f"{listed(names)} have the same address {address}" for address, names in holders.items() if names[1:]
    ]


def _is_loopback(address: str) -> bool | None:
    """None: it is a name, which may mean anything."""
    try:
        host = parse_address(address).host
    except FerryError:
        return None
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return None
