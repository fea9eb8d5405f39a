"""What shapes a host's traffic: one adapter for each NIC that is in no team, one for each team."""

from collections.abc import Iterator, Sequence
from itertools import count

from ferry_agent.migration.ports import Wire, unshaped
from ferry_agent.network.adapter import Adapter, Passed
from ferry_agent.network.guest_way import GuestWay
from ferry_agent.network.nics import Nics
from ferry_host.scale import UNSCALED, Scale
from ferry_host.shaping.policies import ClassPolicy
from ferry_types.eras import EraRules
from ferry_types.links import TrafficClass, migration_rate_bytes_per_s
from ferry_types.networks import Nic
from ferry_types.qos import QosPolicy, limit_bytes_per_s


class Adapters:
    """Follows the NICs' ups and downs. Use it from the event loop; the wires that it gives, from anywhere."""

    def __init__(self, nics: Nics, qos: Sequence[QosPolicy] = (), scale: Scale = UNSCALED) -> None:
        """``qos``: what the host's classes of traffic get, valid as ``qos_problem`` tells."""
        self._nics = nics
        self._migration_limit_bytes_per_s = limit_bytes_per_s(qos, TrafficClass.MIGRATION)
        policies = {each.traffic_class: ClassPolicy(each.limit_bytes_per_s, each.weight) for each in qos}
        self._flows = count(1)
        self._guest_ways: dict[str, GuestWay] = {}
        teams = (
            Adapter(team.name, [nic for nic in nics.all if nic.team == team.name], policies, team.mode, scale)
            for team in nics.teams
        )
        by_team = {adapter.name: adapter for adapter in teams}
        self._by_nic = {
            nic.name: by_team[nic.team] if nic.team else Adapter(nic.name, [nic], policies, scale=scale)
            for nic in nics.all
        }
        for fault in nics.faults:
            self._by_nic[fault.nic].down(fault.nic)
        nics.on_change(self._turn)

    def obey(self, rules: EraRules) -> None:
        """The cluster's era, which may leave live migration a share of fast links only, also of moves that
        are under way. Where the host has a limit of its own, the smaller one holds."""
        own = self._migration_limit_bytes_per_s
        for adapter in set(self._by_nic.values()):
            rate = adapter.rate_bytes_per_s
            allowed = migration_rate_bytes_per_s(rate, rules.migration_link_share)
            bounds = (own, allowed if allowed < rate else 0)
            adapter.limit(TrafficClass.MIGRATION, min((bound for bound in bounds if bound), default=0))

    def passed(self) -> Iterator[Passed]:
        """What each NIC has passed so far; may be read from any thread."""
        for adapter in set(self._by_nic.values()):
            yield from adapter.passed()

    def sending(self, nic: str, path_mtu: int) -> Wire:
        """A wire for pages of a move that leave by this NIC, a flow of its own; without a name, unshaped.

        ``path_mtu``: the smallest MTU on the way. Raises FerryError (not found).
        """
        return (
            self._adapter(nic).sending(self._flow(nic), TrafficClass.MIGRATION, path_mtu)
            if nic
            else unshaped(nic)
        )

    def receiving(self, nic: str, path_mtu: int) -> Wire:
        """The same for pages that arrive by it."""
        return (
            self._adapter(nic).receiving(self._flow(nic), TrafficClass.MIGRATION, path_mtu)
            if nic
            else unshaped(nic)
        )

    def guest_way(self) -> GuestWay | None:
        """How guests' own datagrams pass now; None: the host has no NIC of a network for clients."""
        nic = self._nics.to_clients
        if nic is None:
            return None
        if nic.name not in self._guest_ways:
            adapter = self._adapter(nic.name)
            flow = self._flow(nic.name)
            self._guest_ways[nic.name] = GuestWay(
                adapter.receiving(flow, TrafficClass.CLIENT), adapter.sending(flow, TrafficClass.CLIENT)
            )
        return self._guest_ways[nic.name]

    def _adapter(self, nic: str) -> Adapter:
        return self._by_nic[self._nics.get(nic).name]

    def _flow(self, nic: str) -> str:
        return f"{nic}/{next(self._flows)}"

    def _turn(self, nic: Nic, up: bool) -> None:
        adapter = self._by_nic[nic.name]
        if up:
            adapter.up(nic.name)
        else:
            adapter.down(nic.name)
