"""What shapes a host's traffic: one adapter for each NIC that is in no team, one for each team."""

from itertools import count

from ferry_agent.migration.ports import Wire, unshaped
from ferry_agent.network.nic import Nic as Adapter
from ferry_agent.network.nics import Nics
from ferry_host.shaping.adapters import ClassPolicy, Distribution, NicSpec, TeamSpec
from ferry_types.eras import RULES, Era, EraRules
from ferry_types.links import LINK_SHARE_FROM_BYTES_PER_S, TrafficClass
from ferry_types.networks import Nic


class Adapters:
    """Follows the NICs' ups and downs. Use it from the event loop; the wires that it gives, from anywhere."""

    def __init__(self, nics: Nics) -> None:
        self._nics = nics
        self._rules = RULES[Era.WS2012R2]
        self._flows = count(1)
        self._by_nic = self._made_under(self._rules)
        nics.on_change(self._turn)

    def obey(self, rules: EraRules) -> None:
        """The cluster's era, which may leave live migration a share of fast links only."""
        if rules.migration_link_share != self._rules.migration_link_share:
            self._by_nic = self._made_under(rules)
        self._rules = rules

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

    def _adapter(self, nic: str) -> Adapter:
        return self._by_nic[self._nics.get(nic).name]

    def _flow(self, nic: str) -> str:
        return f"{nic}/{next(self._flows)}"

    def _made_under(self, rules: EraRules) -> dict[str, Adapter]:
        """An adapter for each NIC, by its name; members of a team share theirs."""
        made: dict[str, Adapter] = {}
        for team in self._nics.teams:
            members = tuple(_spec(nic) for nic in self._nics.all if nic.team == team.name)
            spec = TeamSpec(team.name, members, Distribution(team.mode))
            adapter = Adapter(spec, _policies(sum(one.rate_bytes_per_s for one in members), rules))
            made |= {member.name: adapter for member in members}
        for nic in self._nics.all:
            if not nic.team:
                made[nic.name] = Adapter(_spec(nic), _policies(nic.rate_bytes_per_s, rules))
        for fault in self._nics.faults:
            made[fault.nic].down(fault.nic)
        return made

    def _turn(self, nic: Nic, up: bool) -> None:
        adapter = self._by_nic[nic.name]
        if up:
            adapter.up(nic.name)
        else:
            adapter.down(nic.name)


def _spec(nic: Nic) -> NicSpec:
    return NicSpec(nic.name, nic.rate_bytes_per_s, nic.latency_s, nic.mtu, nic.rdma)


def _policies(rate_bytes_per_s: float, rules: EraRules) -> dict[TrafficClass, ClassPolicy]:
    if rules.migration_link_share == 1 or rate_bytes_per_s < LINK_SHARE_FROM_BYTES_PER_S:
        return {}
    limit_bytes_per_s = rules.migration_link_share * rate_bytes_per_s
    return {TrafficClass.MIGRATION: ClassPolicy(limit_bytes_per_s=limit_bytes_per_s)}
