"""What is known of the wire between two hosts: the rate of their NICs, or what recent moves have shown."""

from dataclasses import dataclass
from statistics import median

from ferry_cluster.networks import routes
from ferry_cluster.records import MigrationRecord, NodeRecord
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_types.eras import RULES
from ferry_types.limits import PAGE_SIZE
from ferry_types.links import (
    TrafficClass,
    goodput_bytes_per_s,
    joint_rate_bytes_per_s,
    migration_rate_bytes_per_s,
)
from ferry_types.migrations import (
    MigrationFigures,
    MigrationState,
    TransportOption,
    WireFigures,
    lane_count,
)
from ferry_types.networks import Nic, TeamMode
from ferry_types.qos import limit_bytes_per_s

MOVES_MAX = 5
"""Completed moves, the latest ones, that are gone by; their median, so that one odd one does no harm."""

HAND_OFF_S = 0.005
"""A black-out but for its last pages, until a move has shown it: what processes on one machine take."""

TELLING_BYTES_MIN = 4 * 2**20
"""A pass that sent less says more about round trips than about the wire."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What one move has shown; ``floor_s``: its black-out but for the last pages, None if it is unknown."""

    number: int
    rate_bytes_per_s: float
    floor_s: float | None


def wire_figures(
    settings: ClusterSettings,
    state: ClusterState,
    source: str,
    target: str,
    option: TransportOption | None,
    *,
    is_under_way: bool = False,
) -> WireFigures | None:
    """The wire between two hosts, for moves by this option, either way.

    The rate is the NICs', where they have one and pages travel as they are, shared with the moves that are
    under way; else what moves have shown. None if nothing tells it. ``is_under_way``: the move that is asked
    for is one of those.
    """
    shown = _shown(state, source, target, option)
    shaped = _shaped_rate_bytes_per_s(settings, state, source, target, option, joins=not is_under_way)
    if not shaped or option is TransportOption.COMPRESSION:
        return shown
    return WireFigures(shaped, shown.blackout_floor_s if shown else HAND_OFF_S)


def _shaped_rate_bytes_per_s(
    settings: ClusterSettings,
    state: ClusterState,
    source: str,
    target: str,
    option: TransportOption | None,
    *,
    joins: bool,
) -> float:
    """What the NICs of the routes leave to one more move, or one of those under way, the slower end's.

    0 if neither end has a rate. Moves share NICs alike, each way by itself: those that leave the source, and
    those that come to the target.
    """
    ways = routes(settings, state, source, target, TrafficClass.MIGRATION)
    if not ways:
        return 0.0
    ways = ways[: lane_count(option or TransportOption.TCPIP, len(ways))]
    share, mtu = RULES[settings.era].migration_link_share, ways[0].mtu
    under_way = [move for move in state.active_migrations() if move.state is not MigrationState.QUEUED]
    leaving = sum(move.source == source for move in under_way) + joins
    coming = sum(move.target == target for move in under_way) + joins
    rates = (
        _end_rate_bytes_per_s(state.nodes[source], {way.source_nic for way in ways}, share) / max(1, leaving),
        _end_rate_bytes_per_s(state.nodes[target], {way.target_nic for way in ways}, share) / max(1, coming),
    )
    return goodput_bytes_per_s(min((rate for rate in rates if rate), default=0.0), mtu)


def _end_rate_bytes_per_s(node: NodeRecord, used: set[str], share: float) -> float:
    """What one end's NICs leave to moves: those used, all that are up of a dynamic team. 0: no bound.

    As on the host, a team is one link with the rates of all its NICs, of which the era may leave a share, and
    the host's own limit for live migration holds on each link.
    """
    down = {fault.nic for fault in node.nics_down}
    dynamic = {team.name for team in node.capacity.teams if team.mode is TeamMode.DYNAMIC}
    links: dict[str, list[Nic]] = {}
    for nic in node.capacity.nics:
        links.setdefault(f"team {nic.team}" if nic.team else nic.name, []).append(nic)
    rates = []
    for nics in links.values():
        spread = nics[0].team in dynamic and any(nic.name in used for nic in nics)
        passing = [nic for nic in nics if nic.name not in down and (spread or nic.name in used)]
        if passing:
            rate = joint_rate_bytes_per_s(nic.rate_bytes_per_s for nic in passing)
            whole = joint_rate_bytes_per_s(nic.rate_bytes_per_s for nic in nics)
            allowed = migration_rate_bytes_per_s(whole, share)
            limit = limit_bytes_per_s(node.capacity.qos, TrafficClass.MIGRATION)
            rates.append(min((bound for bound in (rate, allowed, limit) if bound), default=0.0))
    return joint_rate_bytes_per_s(rates)


def _shown(
    state: ClusterState, source: str, target: str, option: TransportOption | None
) -> WireFigures | None:
    hosts = {source, target}
    told = [
        shown
        for move in state.migrations.values()
        if {move.source, move.target} == hosts and (shown := _shown_by(move, option)) is not None
    ]
    if not told:
        return None
    latest = sorted(told, key=lambda shown: shown.number)[-MOVES_MAX:]
    floors_s = [shown.floor_s for shown in latest if shown.floor_s is not None]
    rate_bytes_per_s = median(shown.rate_bytes_per_s for shown in latest)
    return WireFigures(rate_bytes_per_s, median(floors_s) if floors_s else HAND_OFF_S)


def _shown_by(move: MigrationRecord, option: TransportOption | None) -> _Told | None:
    figures = move.figures
    if move.state is not MigrationState.COMPLETED or figures is None or option != move.options.option:
        return None
    # Those in which sending took longer than looking for pages that are zero.
    told = [
        one
        for one in figures.passes
        if one.bytes_sent >= TELLING_BYTES_MIN and one.pages_sent >= one.zero_pages and one.duration_s > 0
    ]
    if not told:
        return None
    pages_sent = sum(one.pages_sent for one in told)
    rate_bytes_per_s = pages_sent * PAGE_SIZE / sum(one.duration_s for one in told)
    return _Told(move.number, rate_bytes_per_s, _floor_s(figures, rate_bytes_per_s))


def _floor_s(figures: MigrationFigures, rate_bytes_per_s: float) -> float | None:
    if figures.final is None or figures.blackout_s is None:
        return None
    return max(0.0, figures.blackout_s - figures.final.pages_sent * PAGE_SIZE / rate_bytes_per_s)
