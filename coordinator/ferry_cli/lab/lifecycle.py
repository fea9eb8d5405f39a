"""A lab from its first process to its last: up, down, kill, start.

What is noted is what may be running: a process is in ``lab.json`` as soon as it has been started, and the
notes go only when nothing that bears the lab's mark is left.
"""

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc

from ferry.v1 import admin_pb2
from ferry_cli.admin import LOOK_S, connect, is_away
from ferry_cli.lab import launch, processes
from ferry_cli.lab.processes import ProcessIdentity, RunState
from ferry_cli.lab.state import (
    COORDINATOR,
    WITNESS,
    Kind,
    Lab,
    LabProcess,
    LabSpec,
    no_lab,
    notes_file,
    read_lab,
    sole_use,
    write_lab,
)
from ferry_types.errors import FerryError, failed, not_found, refused
from ferry_types.vms import NodeState

Progress = Callable[[str], None]

JOIN_DEADLINE_S = 30.0
JOIN_DEADLINE_PER_HOST_S = 3.0
"""Every agent takes about a second of a core to start: sixteen on two cores take their time."""

TERMINATE_S = 5.0
"""What processes get to end by themselves before they are killed."""

KILLED_S = 10.0

_KEPT_OUT = (NodeState.PAUSED, NodeState.DRAINING, NodeState.QUARANTINED)
_POLL_S = 0.1
_CALL_S = 2.0


async def up(directory: Path, spec: LabSpec, progress: Progress) -> Lab:
    """Start a lab and wait until all its nodes are up.

    Raises FerryError if one runs there already, or if a process does not come up; then, and if it is
    cancelled, nothing is left running.
    """
    _make(directory)
    with sole_use(directory):
        if _noted(directory) or processes.find_marked(directory):
            raise FerryError(
                refused(
                    "one lab per directory",
                    f"a lab runs in {directory} already",
                    f"look at it with ferry lab status, end it with ferry lab down --dir {directory}",
                )
            )
        try:
            return await _up(directory, spec, progress)
        except BaseException:
            progress("cleaning up")
            await _end_all(directory)
            raise


async def _up(directory: Path, spec: LabSpec, progress: Progress) -> Lab:
    for folder in ("logs", "run", "nodes", *(["traces"] if spec.trace else [])):
        (directory / folder).mkdir(exist_ok=True)
    lab = Lab(spec)
    if spec.broker is None:
        lab = await _add(directory, lab, launch.start_broker(directory))
        progress(f"broker listens at {launch.broker_address(lab)}")
    lab = await _add(directory, lab, launch.start_witness(directory))
    progress(f"witness listens at {lab.process(WITNESS).address}")
    lab = await _add(directory, lab, launch.start_coordinator(directory, spec, launch.broker_address(lab)))
    progress(f"coordinator listens at {lab.process(COORDINATOR).address}")
    await _name_witness(lab)
    before = await _incarnations(lab)
    names = [node.name for node in spec.all_nodes]
    for node in spec.all_nodes:
        lab = lab.with_process(launch.start_agent(directory, node, spec, lab))
        write_lab(directory, lab)
    for name in names:
        lab = lab.with_process(await launch.listening(directory, lab.process(name)))
    write_lab(directory, lab)
    deadline_s = _join_deadline_s(spec) + JOIN_DEADLINE_PER_HOST_S * len(names)
    nodes = await _joined(directory, lab, {name: before.get(name, "") for name in names}, deadline_s)
    lab = _with_echo_addresses(lab, nodes)
    write_lab(directory, lab)
    progress(f"{len(names)} {'node is' if len(names) == 1 else 'nodes are'} up")
    return lab


async def _add(directory: Path, lab: Lab, process: LabProcess) -> Lab:
    write_lab(directory, lab.with_process(process))
    lab = lab.with_process(await launch.listening(directory, process))
    write_lab(directory, lab)
    return lab


async def _name_witness(lab: Lab) -> None:
    """Tell the coordinator where the witness listens: in a directory's former lab it was elsewhere."""
    change = admin_pb2.QuorumChange(witness=lab.process(WITNESS).address)
    async with connect(lab.process(COORDINATOR).address) as admin:
        await admin.SetQuorum(change, timeout=LOOK_S)


async def down(directory: Path) -> list[str]:
    """End everything that belongs to the lab in a directory, whatever state it is in; names what it ended.

    The logs, the store and the hosts' identities stay: a lab that is started there again goes on where
    this one was. Raises FerryError if something does not end.
    """
    if not _is_there(directory):
        return []
    with sole_use(directory):
        return await _end_all(directory)


async def kill(directory: Path, name: str, number: signal.Signals) -> LabProcess:
    """Kill, stop or continue a process of the lab, and wait until it is so. Raises FerryError.

    ``name``: a process, or for a node ``NODE`` (its agent; with its watchdog for anything but to kill it),
    ``NODE/watchdog``, or ``NODE/power``, both at once. What is returned has the identity of who was meant.
    """
    with sole_use(_existing(directory)):
        node, _, part = name.partition("/")
        process = existing_lab(directory).process(node)
        targets = _targets(directory, process, part, number)
        wanted = {
            signal.SIGKILL: RunState.DEAD,
            signal.SIGSTOP: RunState.STOPPED,
            signal.SIGCONT: RunState.RUNNING,
        }[number]
        reached = [processes.send_signal(identity, number) for identity in targets]
        if not any(reached):
            raise FerryError(
                refused("process running", f"{name} does not run", f"start it with ferry lab start {node}")
            )
        if not await processes.await_state(targets, wanted, KILLED_S):
            pids = ", ".join(str(identity.pid) for identity in targets)
            raise FerryError(failed(f"{name} (pid {pids}) is not {wanted} after {KILLED_S:.0f} s"))
        return replace(process, identity=targets[-1])


def _targets(
    directory: Path, process: LabProcess, part: str, number: signal.Signals
) -> list[ProcessIdentity]:
    """Whom a signal goes to, in order: without its watchdog, nobody can certify an agent's death."""
    if part and (process.kind is not Kind.AGENT or part not in {"watchdog", "power"}):
        hint = "a node has NODE, NODE/watchdog and NODE/power, any other process its name alone"
        raise FerryError(not_found(f"the lab has no process {process.name}/{part}", hint))
    if process.kind is not Kind.AGENT or part == "watchdog":
        return [process.identity]
    agent = agent_of(process, processes.find_marked(directory))
    whole = [process.identity] if part == "power" or number is not signal.SIGKILL else []
    present = [identity for identity in whole if processes.observe(identity) is not RunState.DEAD]
    return present if agent is None else [*present, agent]


def agent_of(process: LabProcess, marked: Sequence[tuple[str, ProcessIdentity]]) -> ProcessIdentity | None:
    """The agent of a node, whether its watchdog lives or not; None if it has ended.

    ``marked``: what ``processes.find_marked`` finds in the lab's directory.
    """
    agents = (each for name, each in marked if name == process.name and each != process.identity)
    return next(agents, None)


async def start(directory: Path, name: str, *, joins: bool = True) -> LabProcess:
    """Start a process of the lab again, where it was, and wait until it listens. Raises FerryError.

    ``joins``: wait until it, or all agents with it, have joined, too.
    """
    with sole_use(_existing(directory)):
        lab = existing_lab(directory)
        process = lab.process(name)
        marked = processes.find_marked(directory)
        agent = agent_of(process, marked) if process.kind is Kind.AGENT else None
        if process.kind is Kind.AGENT and agent is None:
            await _end([process.identity])  # it may still be telling of its agent's death
        observed = processes.observe(agent or process.identity)
        if observed is not RunState.DEAD:
            hint = (
                f"let it go on with ferry lab kill {name} --signal CONT"
                if observed is RunState.STOPPED
                else f"end it first with ferry lab kill {name}"
            )
            raise FerryError(refused("process dead", f"{name} is {observed}", hint))
        before = await _incarnations(lab) if process.kind is Kind.AGENT else {}
        process = replace(launch.start_again(directory, process), address=process.address)
        write_lab(directory, lab.with_process(process))
        process = await launch.listening(directory, process)
        lab = lab.with_process(process)
        write_lab(directory, lab)
        expected = {name: before.get(name, "")}
        if process.kind is not Kind.AGENT:
            expected = {
                agent.name: ""
                for agent in lab.agents
                if processes.observe(agent.identity) is RunState.RUNNING and agent_of(agent, marked)
            }
        if joins and process.kind in {Kind.AGENT, Kind.COORDINATOR}:
            await _joined(directory, lab, expected, _join_deadline_s(lab.spec))
        return process


@asynccontextmanager
async def temporary(spec: LabSpec, progress: Progress, prefix: str) -> AsyncIterator[tuple[Path, Lab]]:
    """A lab in a directory of its own under the system's temporary one; both are gone afterwards."""
    directory = _temporary_directory(prefix)
    try:
        yield directory, await up(directory, spec, progress)
    finally:
        await down(directory)
        shutil.rmtree(directory)


def existing_lab(directory: Path) -> Lab:
    """The lab that is noted in a directory. Raises FerryError(not_found) if none is."""
    lab = read_lab(directory)
    if lab is None:
        raise no_lab(directory)
    return lab


async def nodes(lab: Lab) -> list[admin_pb2.Node] | None:
    """The cluster's nodes; None if the coordinator does not answer."""
    return await _list_nodes(lab.process(COORDINATOR).address)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        what = f"{directory} cannot be made: {problem.strerror}"
        raise FerryError(failed(what, "choose another --dir")) from None


def _temporary_directory(prefix: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=prefix)).resolve()


def _is_there(directory: Path) -> bool:
    return directory.is_dir()


def _forget(directory: Path) -> None:
    for leftover in (notes_file(directory), *directory.glob(".lab-*.json")):
        leftover.unlink(missing_ok=True)
    shutil.rmtree(directory / "run", ignore_errors=True)


def _existing(directory: Path) -> Path:
    if not _is_there(directory):
        raise no_lab(directory)
    return directory


def _noted(directory: Path) -> bool:
    """Whether a process that is noted runs; the notes of a machine that was restarted mean nothing."""
    lab = read_lab(directory)
    return lab is not None and any(
        processes.observe(process.identity) is not RunState.DEAD for process in lab.processes
    )


async def _end_all(directory: Path) -> list[str]:
    ended: dict[str, None] = {}
    try:
        lab = read_lab(directory)
    except FerryError:
        lab = None  # damaged notes: the processes are found by their mark
    noted = [(process.name, process.identity) for process in lab.processes] if lab else []
    for agent in lab.agents if lab else ():
        # Nobody is left to be told of a death, and a watchdog without its agent has nothing else to do.
        processes.send_signal(agent.identity, signal.SIGKILL)
    for name, identity in noted:
        if processes.observe(identity) is not RunState.DEAD:
            ended[name] = None
    while found := _alive(noted, processes.find_marked(directory)):
        ended.update(dict.fromkeys(name for name, _ in found))
        await _end(identity for _, identity in found)
    _forget(directory)
    return list(ended)


def _alive(
    noted: Iterable[tuple[str, ProcessIdentity]], marked: Iterable[tuple[str, ProcessIdentity]]
) -> list[tuple[str, ProcessIdentity]]:
    every = {identity: name for name, identity in (*noted, *marked)}
    return [
        (name, identity)
        for identity, name in every.items()
        if processes.observe(identity) is not RunState.DEAD
    ]


async def _end(identities: Iterable[ProcessIdentity]) -> None:
    every = list(identities)
    for identity in every:
        processes.send_signal(identity, signal.SIGTERM)
        processes.send_signal(identity, signal.SIGCONT)
    if await processes.await_state(every, RunState.DEAD, TERMINATE_S):
        return
    for identity in every:
        processes.send_signal(identity, signal.SIGKILL)
    if not await processes.await_state(every, RunState.DEAD, KILLED_S):
        left = [str(each.pid) for each in every if processes.observe(each) is not RunState.DEAD]
        raise FerryError(failed(f"processes do not end: {', '.join(left)}", "look at them with ps"))


async def _list_nodes(address: str) -> list[admin_pb2.Node] | None:
    """The cluster's nodes; None if the coordinator does not answer."""
    try:
        async with connect(address) as admin:
            try:
                return list((await admin.ListNodes(admin_pb2.ListNodesRequest(), timeout=_CALL_S)).nodes)
            except grpc.aio.AioRpcError as error:
                if is_away(error):
                    return None
                raise
    except OSError:
        return None


async def _incarnations(lab: Lab) -> dict[str, str]:
    nodes = await _list_nodes(lab.process(COORDINATOR).address)
    return {node.name: node.incarnation for node in nodes or ()}


def _join_deadline_s(spec: LabSpec) -> float:
    """A node whose former life nobody has certified dead joins once that one's lease has run out."""
    return JOIN_DEADLINE_S + spec.timing.coordinator_span_s


async def _joined(
    directory: Path, lab: Lab, former: dict[str, str], deadline_s: float
) -> list[admin_pb2.Node]:
    """Wait until nodes have joined; ``former``: the name of each, and the incarnation that does not count."""
    address = lab.process(COORDINATOR).address
    deadline = time.monotonic() + deadline_s
    while True:
        nodes = await _list_nodes(address)
        up_now = {
            node.name
            for node in nodes or ()
            if _has_joined(node) and node.incarnation != former.get(node.name)
        }
        if nodes is not None and up_now >= former.keys():
            return nodes
        for name in (COORDINATOR, *former):
            launch.check_alive(directory, lab.process(name))
        if time.monotonic() >= deadline:
            missing = ", ".join(sorted(former.keys() - up_now))
            what = "the coordinator does not answer" if nodes is None else f"{missing} did not join"
            raise FerryError(
                failed(f"{what} within {deadline_s:.0f} s", f"the logs are in {directory / 'logs'}")
            )
        await asyncio.sleep(_POLL_S)


def _has_joined(node: admin_pb2.Node) -> bool:
    """Whether a node that was admitted is connected, or gets no VMs, and says only that."""
    # A node that is up by its lease alone, without a connection, bears a reason.
    return node.state in _KEPT_OUT or (node.state == NodeState.UP and not node.reason)


def _with_echo_addresses(lab: Lab, nodes: Iterable[admin_pb2.Node]) -> Lab:
    """Keep each node's echo address in its command, so that it is at the same place when it comes back."""
    for node in nodes:
        if node.echo_address and any(agent.name == node.name for agent in lab.agents):
            agent = lab.process(node.name)
            command = launch.with_option(agent.command, "--echo-listen", node.echo_address)
            lab = lab.with_process(replace(agent, command=command))
    return lab
