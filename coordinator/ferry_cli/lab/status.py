"""What ``lab status`` shows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ferry.v1 import admin_pb2
from ferry_cli.lab import lifecycle, processes
from ferry_cli.lab.state import COORDINATOR, Kind, Lab, LabProcess, log_file
from ferry_cli.output import print_table, say
from ferry_cli.tables import UNKNOWN
from ferry_cli.views import node_view


def status_view(directory: Path, lab: Lab, nodes: Sequence[admin_pb2.Node] | None) -> dict[str, Any]:
    """The lab as JSON; ``nodes`` None: the coordinator does not answer."""
    return {
        "dir": str(directory),
        "coordinator": lab.process(COORDINATOR).address,
        "era": lab.spec.era.value,
        "profile": lab.spec.profile,
        "scale": lab.spec.scale,
        "processes": process_views(directory, lab.processes),
        "nodes": None if nodes is None else [node_view(node) for node in nodes],
    }


def process_views(directory: Path, shown: Sequence[LabProcess]) -> list[dict[str, Any]]:
    """Processes of the lab as JSON; ``pid`` is null when one has ended. A node's is its agent."""
    marked = processes.find_marked(directory)
    return [
        _node_view(directory, process, marked)
        if process.kind is Kind.AGENT
        else signalled_view(directory, process)
        for process in shown
    ]


def _node_view(
    directory: Path, process: LabProcess, marked: Sequence[tuple[str, processes.ProcessIdentity]]
) -> dict[str, Any]:
    agent = lifecycle.agent_of(process, marked)
    view = signalled_view(directory, process if agent is None else replace(process, identity=agent))
    if agent is None:
        view |= {"state": processes.RunState.DEAD.value, "pid": None}
    alive = processes.observe(process.identity) is not processes.RunState.DEAD
    return view | {"watchdog_pid": process.identity.pid if alive else None}


def signalled_view(directory: Path, process: LabProcess) -> dict[str, Any]:
    """That very process as JSON, be it a watchdog; ``pid`` is null when it has ended."""
    state = processes.observe(process.identity)
    return {
        "name": process.name,
        "kind": process.kind.value,
        "state": state.value,
        "pid": None if state is processes.RunState.DEAD else process.identity.pid,
        "address": process.address or None,
        "log": str(log_file(directory, process.name)),
    }


def print_status(directory: Path, lab: Lab, nodes: Sequence[admin_pb2.Node] | None) -> None:
    """The lab as a table."""
    states = {node.name: node.state for node in nodes or ()}
    views = process_views(directory, lab.processes)
    rows = [
        (
            view["name"],
            view["state"],
            str(view["pid"] or UNKNOWN),
            view["address"] or UNKNOWN,
            states.get(view["name"], UNKNOWN),
            view["log"],
        )
        for view in views
    ]
    print_table(("PROCESS", "STATE", "PID", "ADDRESS", "NODE", "LOG"), rows)
    if nodes is None:
        say("the coordinator does not answer, so that nothing is known about the nodes")
