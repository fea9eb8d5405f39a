"""Where moves are measured: a lab of two hosts, and beside it the link that the peers share.

Unshaped, hosts have no NICs. With a rate, each has one of it, with jumbo frames and RDMA, so that it can be
moved over by every option.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli.admin import connect
from ferry_cli.bench.link import MTU_BYTES, shaped_link
from ferry_cli.bench.peers import PeerUnavailable
from ferry_cli.lab import lifecycle
from ferry_cli.lab.processes import find_marked
from ferry_cli.lab.state import COORDINATOR, Lab, LabNode, LabSpec
from ferry_types.network_words import network_words, nic_words
from ferry_types.networks import Network, NetworkRole, Nic

Progress = Callable[[str], None]

NODES: Final = ("node1", "node2")
_NETWORK: Final = "live"
_SPARE_BYTES: Final = 2**30


@dataclass(frozen=True, slots=True)
class Arena:
    """A lab that is up.

    ``agent_pids``: of each node. ``behind``: words that start a peer's command behind the link, none if it is
    not shaped. ``problem``: why peers cannot run here, if so.
    """

    admin: AdminStub
    lab: Lab
    directory: Path
    agent_pids: dict[str, int]
    behind: tuple[str, ...] = ()
    problem: str = ""

    @property
    def coordinator_address(self) -> str:
        """Of the lab's."""
        return self.lab.process(COORDINATOR).address

    @property
    def host_address(self) -> str:
        """Of one of the agents."""
        return self.lab.process(NODES[0]).address


@asynccontextmanager
async def open_arena(
    memory_bytes: int, rate_bytes_per_s: int | None, progress: Progress, *, compared: bool
) -> AsyncIterator[Arena]:
    """An arena for VMs of so much memory; ``rate_bytes_per_s``: of the NICs, None for none.

    ``compared``: there will be peers. Raises FerryError; leaves nothing behind, however the block ends.
    """
    async with AsyncExitStack() as stack:
        spec = lab_spec(memory_bytes, rate_bytes_per_s)
        directory, lab = await stack.enter_async_context(lifecycle.temporary(spec, progress, "ferry-bench-"))
        admin = await stack.enter_async_context(connect(lab.process(COORDINATOR).address))
        behind: tuple[str, ...] = ()
        problem = ""
        if compared and rate_bytes_per_s is not None:
            try:
                behind = await stack.enter_async_context(shaped_link(rate_bytes_per_s))
            except PeerUnavailable as error:
                problem = error.refusal.message
        yield Arena(admin, lab, directory, _agent_pids(directory, lab), behind, problem)


def lab_spec(memory_bytes: int, rate_bytes_per_s: int | None) -> LabSpec:
    """Two hosts that can hold the VM, with a NIC each if there is a rate."""
    if rate_bytes_per_s is None:
        return LabSpec(hosts=len(NODES), memory_bytes=memory_bytes + _SPARE_BYTES)
    nodes = []
    for number, name in enumerate(NODES, start=1):
        nic = Nic("nic", _NETWORK, f"127.1.{number}.1", rate_bytes_per_s, mtu=MTU_BYTES, rdma=True)
        nodes.append(LabNode(name, (("nic", nic_words(nic)),)))
    network = network_words(Network(_NETWORK, NetworkRole.MIGRATION))
    return LabSpec(memory_bytes=memory_bytes + _SPARE_BYTES, nodes=tuple(nodes), networks=(network,))


def _agent_pids(directory: Path, lab: Lab) -> dict[str, int]:
    marked = find_marked(directory)
    agents = {process.name: lifecycle.agent_of(process, marked) for process in lab.agents}
    return {name: agent.pid for name, agent in agents.items() if agent is not None}
