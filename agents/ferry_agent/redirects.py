"""Where guests answer that have moved away from this host, for those who still ask here."""

from dataclasses import dataclass

REDIRECT_S = 30.0
"""How long a host says where a guest went: as long as a neighbour may believe an address without asking
again (REACHABLE_TIME of RFC 4861, section 10; Windows' base reachable time)."""

REDIRECTS_MAX = 1024
"""As many as a host runs at most (era 2012); beyond, the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The guest answers at ``address`` (``host:port``) under this epoch. A hint: it decides nothing."""

    address: str
    epoch: int


class Redirects:
    """The latest redirect of each VM, for a bounded time. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._until_s: dict[str, tuple[Redirect, float]] = {}

    def add(self, vm: str, redirect: Redirect, now: float) -> None:
        """Remember where a VM went, instead of anything before."""
        self._until_s.pop(vm, None)
        self._until_s[vm] = (redirect, now + REDIRECT_S)
        while len(self._until_s) > REDIRECTS_MAX:
            del self._until_s[next(iter(self._until_s))]

    def find(self, vm: str, now: float) -> Redirect | None:
        """Where a VM went, if that was not too long ago."""
        redirect, until_s = self._until_s.get(vm, (None, now))
        return redirect if now < until_s else None

    def forget(self, vm: str) -> None:
        """The VM is here again."""
        self._until_s.pop(vm, None)
