"""A scenario on virtual time: the real cores in a ``World``, whose checkers look at every step.

The same file and seed give the same course, event by event; ``Outcome.trace`` proves it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ferry_cluster.cluster import Cluster
from ferry_cluster.records import MigrationRecord
from ferry_sim.clockwork import Clockwork
from ferry_sim.processes import Memory
from ferry_sim.scenarios import steps
from ferry_sim.scenarios.faults import Faults
from ferry_sim.scenarios.fields import GONE
from ferry_sim.scenarios.figures import checks
from ferry_sim.scenarios.model import Scenario
from ferry_sim.scenarios.outcome import Outcome, StepFailed, check_answer, missed
from ferry_sim.scenarios.requests import Ask, asks
from ferry_sim.scenarios.seen import NOTHING, Seen, SeenEvent, SeenMove, SeenVm
from ferry_sim.scenarios.settled import leftovers, unsettled
from ferry_sim.world import Size, World
from ferry_types.errors import FerryError, Refusal
from ferry_types.events import EventRecord

LOOK_S: Final = 0.05
"""How often a run looks whether all has come true."""

LOOK_CLOSELY_S: Final = 0.001
"""How often it looks for a state that may last for milliseconds."""

ANSWER_S: Final = 60.0
"""How long a request may take to be answered."""

SETUP_S: Final = 30.0
"""How long a cluster, and then its VMs, may take to come up."""

SETUP_US: Final = round(2 * SETUP_S * 1e6)
"""By so much a world's wall clock is behind until the timeline begins: it must not go back then."""


@dataclass(frozen=True, slots=True)
class _Left:
    """A request that nobody waits for."""

    where: str
    number: int
    refused: str | None


def run(scenario: Scenario, seed: int | None = None) -> Outcome:
    """Run a scenario; ``seed`` in place of the file's."""
    chosen = scenario.seed if seed is None else seed
    stage = Stage(scenario, chosen)
    failures: list[str] = []
    violations: list[str] = []
    try:
        stage.set_up()
        stage.play()
        failures += stage.finish()
    except StepFailed as problem:
        failures.append(str(problem))
    except Exception as problem:  # noqa: BLE001 - the cores raise nothing in order: whatever it is, it must not be
        violations.append(f"at {stage.elapsed_s:.3f} s: {type(problem).__name__}: {problem}")
    seen = stage.seen()
    if stage.is_settled and not violations:
        violations += leftovers(stage.world)
    return Outcome(
        scenario.title,
        chosen,
        seen,
        tuple(failures),
        tuple(violations),
        stage.world.clockwork.trace,
        stage.elapsed_s,
        tuple(checks(scenario, seen)),
    )


class Stage:
    """A cluster as the file describes it, and what is done to it."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.world = World(
            Size(len(scenario.nodes), profile=scenario.profile),
            Clockwork(seed),
            scenario.era,
            hosts=scenario.capacities,
            networks=scenario.network_values,
            wall_clock_us=scenario.wall_clock_us - SETUP_US,
            lease_s=scenario.resiliency_period,
        )
        self.world.evicted_end = True
        self.world.shell.rate_bytes_per_s = scenario.migration_rate
        self.world.on_event = self._note
        self._faults = Faults(self.world)
        self._events: list[SeenEvent] = []
        self._left: list[_Left] = []
        self._began_at = self.world.now
        self._ran_with: dict[str, Memory] = {}
        """VM -> its memory when the timeline began."""

    @property
    def elapsed_s(self) -> float:
        """Since the timeline began."""
        return self.world.now - self._began_at

    @property
    def is_settled(self) -> bool:
        """Whether nothing is under way."""
        return not unsettled(self.world)

    def _note(self, event: EventRecord) -> None:
        kind = event.kind
        self._events.append(
            SeenEvent(
                self.world.wall_us, kind.event_id, kind.log, kind.level, event.node, event.vm, event.message
            )
        )

    # --- before the timeline ----------------------------------------------------------------------

    def set_up(self) -> None:
        """Have all nodes up, votes, policy and VMs as the file says; then the log begins.

        Raises StepFailed if that cannot be.
        """
        chosen = self.scenario.cluster
        self._settle(SETUP_S, "the cluster comes up")
        self._put("quorum", steps.SetQuorum(chosen.dynamic_quorum, self.scenario.witness))
        if (policy := chosen.policy) is not None:
            self._put("cluster", policy)
        for name, vm in self.scenario.vms.items():
            wanted = steps.CreateVm(vm.spec(name), vm.node or "", vm.start, vm.rules)
            self._put(f"vms.{name}", wanted)
        self._settle(SETUP_S, "the cluster comes up")
        self.world.shift_wall_clock(self.scenario.wall_clock_us)
        self.world.run(self.world.settings.timing.beat_s)  # the coordinator has looked at the clock
        self._events.clear()
        self._began_at = self.world.now
        self._ran_with = dict(self.world.newest_memory)

    # --- the timeline -----------------------------------------------------------------------------

    def play(self) -> None:
        """Do all steps. Raises StepFailed at the first that goes otherwise."""
        for index, line in enumerate(self.scenario.steps):
            step, where = line.parsed, f"steps[{index}] ({line.step})"
            try:
                self._do(step, where, line.refused)
            except FerryError as error:
                check_answer(where, error.refusal, line.refused)

    def _do(self, step: steps.Step, where: str, refused: str | None) -> None:
        match step.action:
            case steps.Delay(seconds=seconds):
                self.world.run(seconds)
            case steps.Wait(seconds=seconds):
                self._settle(seconds, where)
            case steps.WaitFor():
                self._wait_for(step.action, where)
            case action if isinstance(action, steps.Fault):
                self._faults.strike(action)
            case action:
                self._request(action, where, refused, background=step.background)

    def _request(self, action: steps.Request, where: str, refused: str | None, *, background: bool) -> None:
        if not background:
            self._put(where, action, refused)
            return
        requests = asks(action, self._cluster(where).state, self.world.wall_us)
        if len(requests) > 1:
            raise StepFailed(f"{where}: it is several requests, and cannot be left to itself")
        self._left.append(_Left(where, self.world.ask(requests[0]), refused))

    def _put(self, where: str, action: steps.Request, refused: str | None = None) -> None:
        """Ask, and wait for the answer; the last one of several is what may be refused."""
        requests = asks(action, self._cluster(where).state, self.world.wall_us)
        for position, ask in enumerate(requests):
            answer = self._answer(where, ask)
            is_last = position == len(requests) - 1
            if is_last or answer is not None:
                check_answer(where, answer, refused)
            if answer is not None:
                return

    def _answer(self, where: str, ask: Ask) -> Refusal | None:
        """None: it was accepted."""
        self._cluster(where)
        number = self.world.ask(ask)
        replies = self.world.replies
        if not self._comes_true(lambda: number in replies, ANSWER_S, LOOK_CLOSELY_S):
            raise StepFailed(f"{where}: nobody has answered for {ANSWER_S:.0f} s")
        return _refusal(replies[number])

    def _cluster(self, where: str) -> Cluster:
        cluster = self.world.cluster
        if cluster is None:
            raise StepFailed(f"{where}: there is no coordinator to ask: start it first")
        return cluster

    # --- time -------------------------------------------------------------------------------------

    def _comes_true(self, condition: Callable[[], bool], seconds: float, step_s: float) -> bool:
        end = self.world.now + seconds
        while not condition():
            if self.world.now >= end:
                return False
            self.world.run(min(step_s, max(0.0, end - self.world.now)) or step_s)
        return True

    def _settle(self, seconds: float, where: str) -> None:
        if not self._comes_true(lambda: self.is_settled, seconds, LOOK_S):
            left = "; ".join(unsettled(self.world))
            raise StepFailed(f"{where}: after {seconds:g} s something is still under way: {left}")

    def _wait_for(self, action: steps.WaitFor, where: str) -> None:
        if not self._comes_true(
            lambda: action.state in self._states(action.name), action.seconds, LOOK_CLOSELY_S
        ):
            states = " and ".join(sorted(self._states(action.name)))
            raise StepFailed(f"{where}: after {action.seconds:g} s {action.name} is {states}")

    def _states(self, name: str) -> set[str]:
        """What a node, or a VM and its newest move, is called now."""
        cluster = self.world.cluster
        if cluster is None:
            return {"not known: there is no coordinator"}
        state = cluster.state
        if name in state.nodes:
            return {cluster.node_view(name).state}
        if name not in state.vms:
            return {GONE}
        ours = [move for move in state.migrations.values() if move.vm == name]
        newest = max(ours, key=lambda move: move.number, default=None)
        return {cluster.vm_view(name).state, *([newest.state] if newest else [])}

    # --- the end ----------------------------------------------------------------------------------

    def finish(self) -> list[str]:
        """Let all come true that is expected; what did not, in words.

        It first takes as long as the cluster takes to notice a host that is lost.
        """
        timing = self.world.settings.timing
        ends_at = self.world.now + self.scenario.within
        self.world.run(min(timing.coordinator_span_s + 2 * timing.beat_s, self.scenario.within))
        self._comes_true(
            lambda: self.is_settled and not missed(self.scenario, self.seen()),
            max(0.0, ends_at - self.world.now),
            LOOK_S,
        )
        return [*self._unanswered(), *missed(self.scenario, self.seen())]

    def _unanswered(self) -> list[str]:
        failures = []
        for left in self._left:
            try:
                check_answer(left.where, _refusal(self.world.replies.get(left.number)), left.refused)
            except StepFailed as problem:
                failures.append(str(problem))
        return failures

    def seen(self) -> Seen:
        """The cluster as its admins see it now."""
        cluster = self.world.cluster
        if cluster is None:
            return replace(NOTHING, events=tuple(self._events), interrupted=self._interrupted(()))
        moves = tuple(_move(view.record) for view in cluster.migration_views())
        return Seen(
            {view.spec.name: SeenVm(view.state, view.node) for view in cluster.vm_views()},
            {view.name: view.state for view in cluster.node_views()},
            tuple(self._events),
            moves,
            self._interrupted(moves),
        )

    def _interrupted(self, moves: tuple[SeenMove, ...]) -> frozenset[str]:
        """VMs that were booted since, or let run more often than for their moves."""
        found = set()
        for vm, before in self._ran_with.items():
            memory = self.world.newest_memory[vm]
            paused_for = sum(move.vm == vm for move in moves)
            if memory.boot_epoch != before.boot_epoch or memory.runs > before.runs + paused_for:
                found.add(vm)
        return frozenset(found)


def _refusal(answer: object) -> Refusal | None:
    return answer if isinstance(answer, Refusal) else None


def _move(record: MigrationRecord) -> SeenMove:
    return SeenMove(
        record.id,
        record.vm,
        record.source,
        record.target,
        record.state,
        record.reason,
        record.options.option or "",
    )
