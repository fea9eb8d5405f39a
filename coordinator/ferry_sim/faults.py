"""What goes wrong in a world, by name: to hosts, the network, the witness and coordinators."""

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from ferry_cluster.inputs import DeathCertified
from ferry_sim.processes import Agent, Stream
from ferry_sim.world import World
from ferry_types.messages import DeathCertificate
from ferry_types.quorum import WITNESS

LEASES_FROZEN: Final = (0.15, 0.5, 0.95, 1.5, 3.0)
"""For how long a process stands still, in leases."""

LAPSE_LEASES: Final = 0.95
AMBUSH_S: Final = 3.0
RESTART_S_MAX: Final = 4.0
SOON_S: Final = 0.3

SIEGE_SPELLS: Final = 3
SIEGE_LEASES: Final = (0.5, 1.2, 1.5, 2.0)
"""How long each spell of a siege is: promises of the one before run out in it, or not."""

SIEGE_DEATHS: Final = 0.4
"""Probability that a voter dies in its spell, and that the host stands still."""

LASTING_LEASES: Final = max(*LEASES_FROZEN, (SIEGE_SPELLS + 1) * max(SIEGE_LEASES))
"""All that stands still or is cut off is back after so many leases, except for coordinators and witnesses."""

AWAY_S: Final = (0.1, 1.0, 5.0, 25.0)
"""For how long there is no coordinator, or no witness."""


class Faults:
    """Strikes at hosts, streams and processes that chance picks. ``over``: no ambush waits any longer."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.over = False
        self._world = world
        self._rng = rng
        self._siege_until = 0.0
        self._kinds: Mapping[str, Callable[[Agent], bool]] = {
            "kill": self._kill,
            "isolate": self._isolate,
            "freeze": self._freeze,
            "guest": self._crash_guest,
            "hand-over": self._ambush,
            "cut": self._cut,
            "drop": self._drop,
            "stall": self._stall,
            "part": self._part,
            "split": self._split,
            "mute": self._mute,
            "siege": self._besiege,
            "witness": self._trouble_witness,
            "coordinator": self._kill_coordinator,
            "frozen coordinator": self._freeze_coordinator,
            "successor": self._succeed_coordinator,
        }

    def strike(self, kind: str) -> bool:
        """Do it, to some host if it is about one; whether that could be done."""
        return self._kinds[kind](self._world.agents[self._rng.choice(sorted(self._world.agents))])

    def _leases_s(self) -> float:
        return self._rng.choice(LEASES_FROZEN) * self._world.settings.timing.lease_s

    # --- hosts ------------------------------------------------------------------------------------

    def _kill(self, agent: Agent) -> bool:
        was_alive = agent.alive
        self._die(agent)
        return was_alive

    def _die(self, agent: Agent, restart_s_max: float = RESTART_S_MAX) -> None:
        """A host dies if it still lives, is perhaps certified dead, and starts again."""
        world = self._world
        if not agent.alive or world.agents[agent.name] is not agent:
            return
        world.kill_host(agent.name)
        if world.clockwork.happens(0.5):
            self._certify(agent)
        after_s = self._rng.uniform(0.0, restart_s_max)
        world.clockwork.later(after_s, lambda: world.start_host(agent.name))

    def _certify(self, agent: Agent) -> None:
        """The dead agent's watchdog says so: at once or late, perhaps more than once, perhaps to nobody."""
        world, clockwork = self._world, self._world.clockwork
        certificate = DeathCertified(DeathCertificate(agent.name, agent.incarnation, "killed"))

        def arrive() -> None:
            reign = world.reigns[-1]
            reign.do(lambda: world.submit(reign, certificate))

        for _ in range(clockwork.rng.randint(1, 3)):
            clockwork.later(clockwork.delay() + clockwork.rng.choice([0.0, 0.2, 2.0, 6.0]), arrive)

    def _isolate(self, agent: Agent) -> bool:
        if agent.alive:
            self._world.isolate_host(agent.name)
        return agent.alive

    def _freeze(self, agent: Agent) -> bool:
        possible = agent.alive and not agent.frozen
        self._stand_still(agent)
        return possible

    def _stand_still(self, agent: Agent) -> None:
        if agent.alive and not agent.frozen:
            self._world.freeze(agent, self._leases_s())

    def _crash_guest(self, agent: Agent) -> bool:
        if not agent.alive or not agent.vcpus:
            return False
        self._world.shell.crash_guest(agent, self._rng.choice(sorted(agent.vcpus)))
        return True

    def _ambush(self, _agent: Agent) -> bool:
        self._strike_at_a_hand_over(self._world.now + AMBUSH_S)
        return True

    def _strike_at_a_hand_over(self, until: float) -> None:
        """Wait for a commit, and strike its target while that raises its epoch and lets the VM run.

        It dies, or stands still for just so long that its lease runs out on its own clock.
        """
        world, cluster = self._world, self._world.cluster
        moves = [] if cluster is None else cluster.state.active_migrations()
        committed = [move for move in moves if cluster is not None and cluster.state.is_committed(move)]
        if committed:
            target = world.agents[committed[0].target]
            lapses = partial(world.freeze, target, LAPSE_LEASES * world.settings.timing.lease_s)
            strike = self._rng.choice([partial(self._die, target), lapses])
            world.clockwork.later(self._rng.uniform(0.0, 0.06), strike)
        elif world.now < until and not self.over:
            world.clockwork.later(0.003, lambda: self._strike_at_a_hand_over(until))

    # --- streams to the coordinator ---------------------------------------------------------------

    def _cut(self, agent: Agent) -> bool:
        return self._with_stream(agent, self._world.network.cut)

    def _drop(self, agent: Agent) -> bool:
        return not agent.frozen and self._with_stream(agent, self._world.network.drop)

    def _stall(self, agent: Agent) -> bool:
        direction, seconds = self._rng.choice(["up", "down"]), self._leases_s()
        return self._with_stream(agent, lambda stream: self._world.network.stall(stream, direction, seconds))

    def _with_stream(self, agent: Agent, act: Callable[[Stream], None]) -> bool:
        stream = agent.stream
        if stream is not None:
            act(stream)
        return stream is not None

    def _part(self, _agent: Agent) -> bool:
        """Some hosts lose the coordinator, one way or both."""
        world, rng = self._world, self._rng
        directions = rng.choice([("up",), ("down",), ("up", "down")])
        names = rng.sample(sorted(world.agents), rng.randint(1, len(world.agents) // 2))
        seconds = self._leases_s()
        for name in names:
            world.network.part(name, directions, seconds)
        return True

    # --- voters -----------------------------------------------------------------------------------

    def _split(self, _agent: Agent) -> bool:
        """Some hosts, perhaps with the witness, lose the others; any of them may lose the coordinator too."""
        world, rng = self._world, self._rng
        names = sorted(world.agents)
        some = rng.sample(names, rng.randint(1, len(names) - 1))
        seconds = self._leases_s()
        world.network.split([*some, *rng.choice([[], [WITNESS]])], seconds)
        others = [name for name in names if name not in some]
        for name in rng.choice([some, some, others, names, []]):
            world.network.part(name, ("up", "down"), seconds)
        return True

    def _mute(self, _agent: Agent) -> bool:
        """Two voters do not reach each other."""
        names = self._rng.sample([*sorted(self._world.agents), WITNESS], 2)
        self._world.network.mute(frozenset(names), self._leases_s())
        return True

    def _besiege(self, agent: Agent) -> bool:
        """A host loses the coordinator for long, and meanwhile one voter after the other, which may die.

        Perhaps it stands still itself meanwhile, with a poll under way.
        """
        world, rng, later = self._world, self._rng, self._world.clockwork.later
        if world.now < self._siege_until:
            return False
        spell_s = rng.choice(SIEGE_LEASES) * world.settings.timing.lease_s
        self._siege_until = world.now + (SIEGE_SPELLS + 1) * spell_s
        world.network.part(agent.name, ("up", "down"), SIEGE_SPELLS * spell_s)
        if rng.random() < SIEGE_DEATHS:
            later(rng.random() * spell_s, partial(self._stand_still, agent))
        others = [name for name in (*sorted(world.agents), WITNESS) if name != agent.name]
        for spell in range(SIEGE_SPELLS):
            for name in rng.sample(others, min(rng.choice([1, 1, 2]), len(others))):
                mute = partial(world.network.mute, frozenset((agent.name, name)), spell_s)
                later(spell * spell_s, mute)
                if name != WITNESS and rng.random() < SIEGE_DEATHS:
                    dies_after_s = (spell + rng.uniform(0.5, 1.2)) * spell_s
                    later(dies_after_s, partial(self._die, world.agents[name], SOON_S))
        return True

    def _trouble_witness(self, _agent: Agent) -> bool:
        """The witness stands still, or is away; what it has kept stays."""
        world, rng = self._world, self._rng
        witness = world.ballots.witness
        if not witness.alive:
            return False
        if not witness.frozen and rng.random() < 0.5:
            world.freeze(witness, self._leases_s())
        else:
            witness.alive = False
            world.clockwork.later(rng.choice(AWAY_S), lambda: setattr(witness, "alive", True))
        return True

    # --- coordinators -----------------------------------------------------------------------------

    def _kill_coordinator(self, _agent: Agent) -> bool:
        world = self._world
        if world.cluster is None:
            return False
        world.kill_coordinator()
        world.clockwork.later(self._rng.choice(AWAY_S), world.revive_coordinator)
        return True

    def _freeze_coordinator(self, _agent: Agent) -> bool:
        world = self._world
        if world.cluster is None or world.reigns[-1].frozen:
            return False
        world.freeze(world.reigns[-1], self._leases_s())
        return True

    def _succeed_coordinator(self, agent: Agent) -> bool:
        """A coordinator stands still, and wakes up beside its successor, with some of its streams."""
        world = self._world
        if not self._freeze_coordinator(agent):
            return False
        reign = world.reigns[-1]
        world.start_coordinator()
        theirs = [stream for stream in world.network.streams if stream.reign is reign]
        for stream in [stream for stream in theirs if self._rng.random() < 0.5]:
            world.network.cut(stream)
        return True
