"""Which performance option a move gets: what was wished, as far as both hosts have it; else TCP/IP."""

from collections.abc import Callable
from dataclasses import dataclass

from ferry_cluster.placement import level_of
from ferry_cluster.records import NodeRecord
from ferry_cluster.state import ClusterSettings
from ferry_types.eras import Era
from ferry_types.errors import Refusal, refused
from ferry_types.migrations import TransportOption


@dataclass(frozen=True, slots=True)
class Choice:
    """The option, and why it is not the one that was wished; empty if it is."""

    option: TransportOption
    reason: str = ""


def performance_options_level(
    settings: ClusterSettings, node: NodeRecord, _option: TransportOption
) -> Refusal | None:
    """Performance options came with Windows Server 2012 R2; before, memory went by TCP/IP."""
    level = level_of(settings, node)
    if not level.is_before(Era.WS2012R2):
        return None
    return refused("performance options level", f"{node.name} is of level {level}, which has only tcpip")


def rdma_at_both_ends(
    _settings: ClusterSettings, node: NodeRecord, option: TransportOption
) -> Refusal | None:
    """SMB Direct needs NICs with RDMA; a host that describes no NICs has whatever is asked of it."""
    nics = node.capacity.nics
    if option is not TransportOption.DIRECT or not nics or any(nic.rdma for nic in nics):
        return None
    return refused("rdma at both ends", f"{node.name} has no NIC with RDMA")


Rule = Callable[[ClusterSettings, NodeRecord, TransportOption], Refusal | None]

RULES: list[Rule] = [performance_options_level, rdma_at_both_ends]
"""Why a node, be it source or target, has not got an option other than TCP/IP."""


def choose_option(
    settings: ClusterSettings, source: NodeRecord, target: NodeRecord, wished: TransportOption | None
) -> Choice:
    """The option of a move; without a wish the source's own preference counts."""
    option = wished or source.capacity.migration_option or TransportOption.TCPIP
    if option is TransportOption.TCPIP:
        return Choice(option)
    for node in (source, target):
        for rule in RULES:
            if (problem := rule(settings, node, option)) is not None:
                reason = f"tcpip in place of {option}: {problem.message} ({problem.rule})"
                return Choice(TransportOption.TCPIP, reason)
    return Choice(option)
