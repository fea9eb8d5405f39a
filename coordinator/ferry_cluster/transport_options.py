"""Which performance option a move gets: what was wished, as far as both hosts have it; else TCP/IP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ferry_cluster.networks import routes
from ferry_cluster.placement import level_of
from ferry_cluster.records import NodeRecord
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_types.eras import Era
from ferry_types.errors import Refusal, refused
from ferry_types.links import TrafficClass
from ferry_types.migrations import TransportOption
from ferry_types.networks import Nic


@dataclass(frozen=True, slots=True)
class Choice:
    """The option, and why it is not the one that was wished; empty if it is."""

    option: TransportOption
    reason: str = ""


def performance_options_level(
    settings: ClusterSettings, node: NodeRecord, _nics: Sequence[Nic], _option: TransportOption
) -> Refusal | None:
    """Performance options came with Windows Server 2012 R2; before, memory went by TCP/IP."""
    level = level_of(settings, node)
    if not level.is_before(Era.WS2012R2):
        return None
    return refused("performance options level", f"{node.name} is of level {level}, which has only tcpip")


def rdma_at_both_ends(
    _settings: ClusterSettings, node: NodeRecord, nics: Sequence[Nic], option: TransportOption
) -> Refusal | None:
    """SMB Direct needs RDMA on the way; a host that describes no NICs has whatever is asked of it."""
    without = [nic.name for nic in nics if not nic.rdma]
    if option is not TransportOption.DIRECT or not without:
        return None
    return refused("rdma at both ends", f"{', '.join(without)} of {node.name} has no RDMA")


Rule = Callable[[ClusterSettings, NodeRecord, Sequence[Nic], TransportOption], Refusal | None]

RULES: list[Rule] = [performance_options_level, rdma_at_both_ends]
"""Why a node, be it source or target, has not got an option other than TCP/IP by these of its NICs."""


def choose_option(
    settings: ClusterSettings, state: ClusterState, source: str, target: str, wished: TransportOption | None
) -> Choice:
    """The option of a move; without a wish the source's own preference counts."""
    nodes = state.nodes[source], state.nodes[target]
    option = wished or nodes[0].capacity.migration_option or TransportOption.TCPIP
    if option is TransportOption.TCPIP:
        return Choice(option)
    ways = routes(settings, state, source, target, TrafficClass.MIGRATION)
    on_the_way = {way.source_nic for way in ways}, {way.target_nic for way in ways}
    for node, names in zip(nodes, on_the_way, strict=True):
        nics = [nic for nic in node.capacity.nics if nic.name in names]
        for rule in RULES:
            if (problem := rule(settings, node, nics, option)) is not None:
                reason = f"tcpip in place of {option}: {problem.message} ({problem.rule})"
                return Choice(TransportOption.TCPIP, reason)
    return Choice(option)
