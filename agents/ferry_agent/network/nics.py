"""This host's NICs: which are up, and who is told when that changes.

A NIC that was taken down stays so until it is brought up or the agent ends, also when the host joins again:
that is a pulled cable of an emulated host, not a setting of it.
"""

from collections.abc import Callable, Iterable
from typing import Final

from ferry_types.errors import FerryError, not_found
from ferry_types.networks import Network, NetworkRole, Nic, NicFault, Team

TAKEN_DOWN: Final = "an administrator has taken it down"

Listener = Callable[[Nic, bool], None]
"""Told a NIC that has changed, and whether it is up now."""


class Nics:
    """The NICs by name. Use it from one event loop; listeners are called at once, in their order."""

    def __init__(self, nics: Iterable[Nic], teams: Iterable[Team] = ()) -> None:
        self.all = tuple(nics)
        self.teams = tuple(teams)
        self._by_name = {nic.name: nic for nic in self.all}
        self._reasons: dict[str, str] = {}
        self._excluded: frozenset[str] = frozenset()
        self._of_clients: frozenset[str] = frozenset()
        self._listeners: list[Listener] = []

    def get(self, name: str) -> Nic:
        """The NIC of that name. Raises FerryError (not found)."""
        nic = self._by_name.get(name)
        if nic is None:
            known = ", ".join(self._by_name) or "none"
            raise FerryError(not_found(f"this host has no NIC {name[:80]}", f"it has {known}"))
        return nic

    def is_up(self, name: str) -> bool:
        """Whether traffic passes it. Raises FerryError (not found)."""
        return self.get(name).name not in self._reasons

    def reason(self, name: str) -> str:
        """Why it is down, in words; empty: it is up."""
        return self._reasons.get(name, "")

    @property
    def faults(self) -> tuple[NicFault, ...]:
        """Those that are down, in their order."""
        return tuple(
            NicFault(nic.name, self._reasons[nic.name]) for nic in self.all if nic.name in self._reasons
        )

    def on_change(self, listener: Listener) -> None:
        """Have this told of every change from now on."""
        self._listeners.append(listener)

    def turn(self, name: str, *, up: bool) -> bool:
        """Take a NIC down or bring it up; whether that changed anything. Raises FerryError (not found)."""
        if self.is_up(name) is up:
            return False
        if up:
            del self._reasons[name]
        else:
            self._reasons[name] = TAKEN_DOWN
        for listener in self._listeners:
            listener(self.get(name), up)
        return True

    # --- the cluster's traffic ----------------------------------------------------------------------

    def learn(self, networks: Iterable[Network]) -> None:
        """The cluster's networks, which say what each NIC may carry; until then each carries everything."""
        known = tuple(networks)
        self._excluded = frozenset(network.name for network in known if not network.role.carries_cluster)
        self._of_clients = frozenset(network.name for network in known if network.role is NetworkRole.CLIENT)

    @property
    def to_clients(self) -> Nic | None:
        """The NIC by which clients reach the guests: one of a network for clients, one that is up if any is.

        None: the host has no such NIC, and its guests are reached at its own address, whatever is down.
        """
        leading = [nic for nic in self.all if nic.network in self._of_clients]
        up = (nic for nic in leading if nic.name not in self._reasons)
        return next(up, leading[0] if leading else None)

    @property
    def is_cut_off(self) -> bool:
        """Whether all NICs that may carry the cluster's traffic are down; a host without any is not."""
        carrying = [nic.name for nic in self.all if nic.network not in self._excluded]
        return bool(carrying) and all(name in self._reasons for name in carrying)
