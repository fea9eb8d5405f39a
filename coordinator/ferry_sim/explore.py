"""Every interleaving of one move or failover at small scope: ``make explore``.

Time stands still, and whatever is under way may come next: messages in the order of their stream, the
agents' own steps in any order. That a lease runs out is a step of its own: time has passed for one host,
while all others have renewed. A scope allows so many faults of each kind, at any point. The three hosts have
votes, always the same, and acknowledge the loss of one; nobody polls, because no time passes, and what a
voter keeps is durable at once.

States are told apart by what both cores, the agents, the store and the wires hold. The search is breadth
first, so that the first trace that breaks a rule is a shortest one; it comes to a state by replaying a trace.
"""

import argparse
import hashlib
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from ferry_cluster import inputs as cluster_inputs
from ferry_cluster.records import MigrationRecord
from ferry_host import inputs as host_inputs
from ferry_host.state import HostState
from ferry_sim.ballots import DISK
from ferry_sim.clockwork import Clockwork
from ferry_sim.commands import add_jobs, positive, say
from ferry_sim.processes import Agent, Reign
from ferry_sim.storm import leftovers
from ferry_sim.world import Size, World
from ferry_types.messages import DeathCertificate

VM: Final = "a"
SOURCE, TARGET, SPARE = "n1", "n2", "n3"

STEP_CHARACTERS_MAX: Final = 200

Budget = dict[str, int]

KINDS: Final = (
    "crash", "certify", "restart", "lapse", "cut", "repeat", "break", "coordinator", "successor",
)  # fmt: skip

SCOPES: Final[tuple[Budget, ...]] = (
    {},
    {"coordinator": 1},
    {"crash": 1},
    {"certify": 1},
    {"successor": 1},
    {"cut": 1},
    {"repeat": 1},
    {"break": 1},
    {"certify": 1, "break": 1},
    {"cut": 1, "break": 1},
)
"""Faults of one search. ``lapse`` and ``restart`` are left to ``--faults``: nobody has seen their end."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that may come next."""

    name: str
    take: Callable[[], None]
    fault: str = ""


@dataclass(slots=True)
class Pending:
    """Something under way."""

    what: str
    lane: object
    action: Callable[[], None]


class Chooser(Clockwork):
    """Keeps what is under way, for somebody else to choose from. No time passes and nothing is drawn."""

    def __init__(self) -> None:
        super().__init__(0)
        self.pending: list[Pending] = []
        self._at_once: list[Callable[[], None]] = []

    def later(
        self, after_s: float, action: Callable[[], None], what: object = None, lane: object = None
    ) -> None:
        """Keep it; what a clock sets off is a step of its own, and disks are written at the step's end."""
        del after_s
        if isinstance(lane, tuple) and lane[-1] == DISK:
            self._at_once.append(action)
        elif what is not None:
            self.pending.append(Pending(repr(what), lane, action))

    def delay(self) -> float:
        """Does not matter."""
        return 0.0

    def clock_rate(self) -> float:
        """All clocks stand still alike."""
        return 1.0

    def choices(self) -> list[Pending]:
        """What may come next: of each lane its first, of equal things one."""
        seen: set[object] = set()
        chosen = []
        for pending in self.pending:
            mark = pending.what if pending.lane is None else pending.lane
            if mark not in seen:
                seen.add(mark)
                chosen.append(pending)
        return chosen

    def take(self, pending: Pending, *, again: bool = False) -> None:
        """Do one of them; ``again``: and keep it, to come once more."""
        if not again:
            self.pending.remove(pending)
        pending.action()
        self.write_disks()

    def write_disks(self) -> None:
        """Voters keep what they were about to."""
        while self._at_once:
            self._at_once.pop(0)()


class Play:
    """One course: a VM that runs on n1 and is asked to move to n2, three hosts, and what may yet go wrong."""

    def __init__(self, budget: Budget) -> None:
        self.left = Counter(budget)
        self.chooser = Chooser()
        self.world = World(Size(hosts=3), self.chooser)
        self.world.ask(lambda number: cluster_inputs.SetQuorum(number, "", False))
        self._settle()
        for agent in self.world.agents.values():
            self.world.feed(agent, host_inputs.Beat())
        self._settle()
        self.world.create(VM, SOURCE)
        self._settle()
        assert VM in self.world.agents[SOURCE].running(self.world.now), "the VM does not run to begin with"
        assert isinstance(self.world.migrate(VM, TARGET), MigrationRecord)

    def _settle(self) -> None:
        while choices := self.chooser.choices():
            self.chooser.take(choices[0])

    # --- what may come next -----------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """All of it, in an order that a replay repeats."""
        steps = [Step(one.what, partial(self.chooser.take, one)) for one in self.chooser.choices()]
        steps += [
            Step(f"{name} renews", partial(self._renew, agent))
            for name, agent in self.world.agents.items()
            if agent.alive and _needs_lease(agent.host.state)
        ]
        steps += [
            Step(f"term {reign.term} judges", partial(self._judge, reign))
            for reign in self.world.reigns
            if reign.alive and self._may_judge(reign)
        ]
        if self.world.cluster is None:
            steps.append(Step("a coordinator starts", self._start_coordinator))
        return steps + [step for step in self._faults() if self.left[step.fault] > 0]

    def _may_judge(self, reign: Reign) -> bool:
        """Whether a lease has run out that this reign has not judged, and voters are not being asked."""
        return any(
            one.lease_until is not None and one.lease_until <= self.world.now and not self._is_asked(name)
            for name, one in reign.cluster.state.attendance.items()
        )

    def _is_asked(self, name: str) -> bool:
        """Whether a question or an answer about a host's loss is under way."""
        about = f"(node='{name}'"
        words = ("AcknowledgeLoss", "LossAcknowledged")
        whats = [pending.what for pending in self.chooser.pending]
        return any(about in what and any(word in what for word in words) for what in whats)

    def _judge(self, reign: Reign) -> None:
        """A beat has passed: whoever has not answered is asked again."""
        known = reign.cluster.state.rounds
        for name, open_round in known.items():
            known[name] = replace(open_round, asked_at=float("-inf"))
        self.world.submit(reign, cluster_inputs.Tick())

    def _renew(self, agent: Agent) -> None:
        """All of it in one step, unless something else is under way on the stream."""
        before = {id(pending) for pending in self.chooser.pending}
        quiet = agent.stream is not None and not self._under_way(agent.stream.number)
        self.world.feed(agent, host_inputs.Beat())
        while quiet and agent.stream is not None:
            lane = [one for one in self._under_way(agent.stream.number) if id(one) not in before]
            if not lane:
                break
            self.chooser.take(lane[0])

    def _under_way(self, stream: int) -> list[Pending]:
        lanes = ((stream, "up"), (stream, "down"))
        return [pending for pending in self.chooser.pending if pending.lane in lanes]

    def _faults(self) -> Iterator[Step]:
        world = self.world
        for name in (SOURCE, TARGET):
            agent = world.agents[name]
            if agent.alive:
                yield Step(f"{name} dies", partial(self._crash, agent), "crash")
                yield Step(f"{name} dies, and is certified dead", partial(self._die, agent), "certify")
            else:
                yield Step(f"{name} starts again", partial(world.start_host, name), "restart")
            if agent.has_lease(world.now):
                yield Step(f"the lease of {name} runs out", partial(self._lapse, agent), "lapse")
            if agent.stream is not None:
                yield Step(f"the stream of {name} is cut", partial(world.network.cut, agent.stream), "cut")
            for migration_id in agent.leaving:
                broken = partial(world.shell.break_move, agent, migration_id)
                yield Step(f"the streams of {migration_id} break", broken, "break")
        for pending in self.chooser.choices():
            if pending.lane is not None:
                twice = partial(self.chooser.take, pending, again=True)
                yield Step(f"for the first time: {pending.what}", twice, "repeat")
        if world.cluster is not None:
            yield Step("the coordinator dies", world.kill_coordinator, "coordinator")
            yield Step("another coordinator starts", self._start_coordinator, "successor")

    def _crash(self, agent: Agent) -> None:
        """Nobody certifies it: its lease has to run out."""
        self.world.kill_host(agent.name)
        self._lapse(agent)

    def _die(self, agent: Agent) -> None:
        self.world.kill_host(agent.name)
        certificate = cluster_inputs.DeathCertified(DeathCertificate(agent.name, agent.incarnation, "killed"))
        self.chooser.later(0.0, partial(self._certify, certificate), (agent.incarnation, "is certified dead"))

    def _certify(self, certificate: cluster_inputs.DeathCertified) -> None:
        reign = self.world.newest()
        if reign is not None:
            self.world.submit(reign, certificate)
        else:  # its watchdog tries again
            what = (certificate.certificate.incarnation, "is certified dead")
            self.chooser.later(0.0, partial(self._certify, certificate), what)

    def _start_coordinator(self) -> None:
        """It waits as rule L5 has it, until hosts that are dead may be judged."""
        self.world.start_coordinator()
        for agent in self.world.agents.values():
            if not agent.alive:
                self._let_time_pass(agent)

    def _lapse(self, agent: Agent) -> None:
        """The lease of one host runs out; its timer goes off some time."""
        agent.deadline_s = self.world.now
        if agent.host.state.deadline_s is not None:
            agent.host.state.deadline_s = self.world.now
        if agent.alive:
            timer = partial(self.world.feed, agent, host_inputs.LeaseTimer())
            self.chooser.later(0.0, timer, (agent.incarnation, "looks at its clock"))
        self._let_time_pass(agent)

    def _let_time_pass(self, agent: Agent) -> None:
        """Until its coordinators may judge one host; all others have renewed."""
        for reign in self.world.reigns:
            state = reign.cluster.state
            state.judge_after = min(state.judge_after, self.world.now)
            present = state.attendance.get(agent.name)
            if present is not None and present.lease_until is not None:
                state.attendance[agent.name] = replace(present, lease_until=self.world.now)

    # --- what must hold ---------------------------------------------------------------------------

    def take(self, step: Step) -> None:
        """Do it. Raises AssertionError, or whatever a core raises, if anything that must hold does not."""
        if step.fault:
            self.left[step.fault] -= 1
        step.take()
        self.chooser.write_disks()
        self.world.check()

    def check_end(self) -> None:
        """Nothing but faults can come: the VM runs, once, and nothing is left over."""
        world, cluster = self.world, self.world.cluster
        assert cluster is not None
        assert not cluster.state.active_migrations(), f"a move goes on: {cluster.state.active_migrations()}"
        owner = cluster.state.owners[VM]
        assert owner.node is not None, f"{VM} has no host: {cluster.state.vms[VM]}"
        assert VM in world.agents[owner.node].running(world.now), f"{VM} does not run: {owner}"
        alive = [agent for agent in world.agents.values() if agent.alive]
        found = [line for agent in alive for line in leftovers(world, agent)]
        assert not found, found

    def key(self) -> bytes:
        """Equal for equal states."""
        world = self.world
        parts: list[object] = [sorted(self.left.items()), world.newest_memory]
        parts += [(reign.term, reign.alive, reign.cluster.state.fingerprint()) for reign in world.reigns]
        store = world.store
        parts += [sorted((key, repr(record)) for key, record in store.records.items())]
        parts += [sorted(store.let_go), sorted(store.ready), sorted(world.ballots.kept.items())]
        parts += [(stream.number, stream.up, stream.down) for stream in world.network.streams]
        for agent in world.agents.values():
            held = (agent.vcpus, agent.memories, sorted(agent.resumed), agent.arriving, agent.leaving)
            stream = agent.stream
            wires = None if stream is None else (stream.number, stream.up, stream.down)
            parts.append((agent.alive, agent.deadline_s, held, wires, agent.host.state.fingerprint()))
        loose = sorted(pending.what for pending in self.chooser.pending if pending.lane is None)
        lanes = [
            (str(pending.lane), pending.what) for pending in self.chooser.pending if pending.lane is not None
        ]
        parts += [loose, sorted(lanes, key=lambda pair: pair[0])]
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def _needs_lease(host: HostState) -> bool:
    """Whether a host would renew for the first time in its session."""
    return host.welcome and host.deadline_s is None and not host.sent_at


@dataclass(frozen=True, slots=True)
class Found:
    """Outcome of a search. ``trace``: names of the steps to the first violation, empty without one."""

    states: int
    depth: int
    violation: str
    trace: tuple[str, ...]
    whole: bool
    """Whether there was nothing left to visit."""


def search(budget: Budget, states_max: int) -> Found:
    """Visit every state that can be reached, or as many as that."""
    seen = {Play(budget).key()}
    frontier: deque[tuple[int, ...]] = deque([()])
    depth = 0
    while frontier:
        if len(seen) > states_max:
            return Found(len(seen), depth, "", (), whole=False)
        trace = frontier.popleft()
        depth = len(trace)
        names: tuple[str, ...] = ()
        play, names = _replay(budget, trace)
        count = len(play.steps())
        try:
            if all(step.fault for step in play.steps()):
                play.check_end()
            for index in range(count):
                if index:
                    play, names = _replay(budget, trace)
                step = play.steps()[index]
                names = (*names, step.name)
                play.take(step)
                key = play.key()
                if key not in seen:
                    seen.add(key)
                    frontier.append((*trace, index))
        except Exception as error:  # noqa: BLE001 - whatever a core raises is a violation
            return Found(len(seen), depth, f"{type(error).__name__}: {error}", names, whole=False)
    return Found(len(seen), depth, "", (), whole=True)


def _replay(budget: Budget, trace: tuple[int, ...]) -> tuple[Play, tuple[str, ...]]:
    play = Play(budget)
    names = []
    for index in trace:
        step = play.steps()[index]
        names.append(step.name)
        play.take(step)
    return play, tuple(names)


def _faults(text: str) -> Budget:
    pairs = (part.partition("=") for part in text.split(","))
    budget = {kind: int(count) for kind, _, count in pairs}
    if not budget.keys() <= set(KINDS) or min(budget.values()) < 1:
        raise ValueError(text)
    return budget


def describe(budget: Budget) -> str:
    """A scope in words."""
    return " and ".join(f"{count} {kind}" for kind, count in budget.items()) or "no fault"


def main() -> int:
    """The command: exit code 1 if a rule was broken or a scope was not exhausted."""
    parser = argparse.ArgumentParser(prog="python -m ferry_sim.explore", description="Explore small scopes.")
    parser.add_argument(
        "--states", type=positive, default=200_000, help="at most, per scope (default %(default)s)"
    )
    add_jobs(parser)
    parser.add_argument(
        "--faults",
        type=_faults,
        help="one scope of your own, for example lapse=1,cut=1; kinds: " + ", ".join(KINDS),
    )
    arguments = parser.parse_args()
    scopes = SCOPES if arguments.faults is None else (arguments.faults,)
    say(f"options: --states {arguments.states} --jobs {arguments.jobs}; one VM, three hosts, one move, and:")
    began_s, states, failed = time.monotonic(), 0, 0
    with ProcessPoolExecutor(arguments.jobs) as pool:
        searches = {pool.submit(search, budget, arguments.states): budget for budget in scopes}
        for ended in as_completed(searches):
            budget, found = searches[ended], ended.result()
            states += found.states
            failed += not found.whole
            how = "all" if found.whole else "not all"
            say(f"{describe(budget)}: {found.states} states, {how} visited, {found.depth} steps deep")
            for number, name in enumerate(found.trace, start=1):
                say(f"  {number}. {name[:STEP_CHARACTERS_MAX]}")
            if found.violation:
                say(f"  {found.violation}")
    took_s = time.monotonic() - began_s
    say(f"{states} states in {took_s:.0f} s, {failed} of {len(scopes)} scopes violated or not exhausted")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
