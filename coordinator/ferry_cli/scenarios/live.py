"""A scenario on real processes: a lab of its own, the same steps by signals and by the Admin API.

Every host writes down when it ran which VM; two hosts that ran one VM at once are a violation.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import grpc.aio

from ferry.v1 import admin_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli.admin import LOOK_S, connect
from ferry_cli.demo.failover import newest_event_id
from ferry_cli.lab import lifecycle
from ferry_cli.lab.state import COORDINATOR, WITNESS, LabNode, LabSpec
from ferry_cli.scenarios import requests, watcher
from ferry_cli.scenarios.hosts import Hosts
from ferry_cli.scenarios.traces import interrupted, overlaps, read_runs
from ferry_cli.scenarios.watcher import Look
from ferry_sim.scenarios import steps
from ferry_sim.scenarios.fields import GONE
from ferry_sim.scenarios.figures import checks
from ferry_sim.scenarios.model import Scenario
from ferry_sim.scenarios.outcome import Outcome, StepFailed, check_answer, missed
from ferry_sim.scenarios.seen import NOTHING, Seen
from ferry_types.errors import FerryError, Refusal
from ferry_types.network_words import network_words, nic_words, team_words
from ferry_types.profiles import PROFILES
from ferry_types.vms import Capacity
from ferry_wire.status import refusal_of

LOOK_EVERY_S: Final = 0.1
LOOK_CLOSELY_S: Final = 0.01
"""How often a state is looked for that may not last."""

SETUP_S: Final = 60.0
DELAYS_S_MAX: Final = 600.0
"""Delays that somebody may be expected to sit through."""

_NOBODY: Final = Look(NOTHING, ("there is no coordinator",))

Progress = Callable[[str], None]


def virtual_only(scenario: Scenario) -> list[str]:
    """Why a scenario cannot be run live on one machine, in words; nothing if it can."""
    why = {steps.Network: "cuts the network, which needs root", steps.CrashGuest: "crashes a guest"}
    cannot = {type(line.parsed.action): line.step for line in reversed(scenario.steps)}
    found = [f"the step {cannot[kind]!r} {what}" for kind, what in why.items() if kind in cannot]
    if scenario.wall_clock is not None:
        found.append("wall_clock chooses the hour")
    if scenario.migration_rate:
        found.append("migration_rate chooses how fast memory is copied")
    delays = [line.parsed.action for line in scenario.steps]
    delays_s = sum(action.seconds for action in delays if isinstance(action, steps.Delay))
    if delays_s > DELAYS_S_MAX:
        found.append(f"its delays of {delays_s:.0f} s are more than {DELAYS_S_MAX:.0f} s")
    return found


async def run_live(scenario: Scenario, seed: int, progress: Progress) -> Outcome:
    """Run a scenario that can be run live, in a lab that is gone afterwards. Raises FerryError."""
    spec = LabSpec(
        hosts=len(scenario.nodes),
        era=scenario.era,
        profile=scenario.profile,
        trace=True,
        resiliency_period_s=scenario.resiliency_period,
        nodes=tuple(LabNode(name, _options(capacity)) for name, capacity in scenario.capacities.items()),
        networks=tuple(network_words(network) for network in scenario.network_values),
        scale=scenario.scale,
    )
    async with (
        lifecycle.temporary(spec, progress, "ferry-scenario-") as (directory, lab),
        connect(lab.process(COORDINATOR).address) as admin,
    ):
        stage = LiveStage(scenario, admin, Hosts(directory, list(scenario.nodes)), progress)
        stage.address, stage.witness = lab.process(COORDINATOR).address, lab.process(WITNESS).address
        failures: list[str] = []
        try:
            await stage.set_up()
            await stage.play()
            failures += await stage.finish()
        except StepFailed as problem:
            failures.append(str(problem))
        finally:
            await stage.close()
        lasted_s = stage.elapsed_s
        runs = read_runs(directory / "traces")
        still = interrupted(runs, round(stage.began_at_s * 1e9), time.monotonic_ns())
        seen = replace((await stage.look()).seen, interrupted=still)
        if not failures:
            failures += missed(scenario, seen)
    return Outcome(
        scenario.title,
        seed,
        seen,
        tuple(failures),
        tuple(overlaps(runs)),
        0,
        lasted_s,
        tuple(checks(scenario, seen)),
    )


def _options(node: Capacity) -> tuple[tuple[str, str], ...]:
    """What an agent is told so that it offers that."""
    options = {
        "memory": f"{node.memory_bytes}B",
        "processors": str(node.processors),
        "migration_limit": str(node.migration_limit),
        "processor": f"{node.processor.vendor}:{node.processor.generation}",
        "switches": ",".join(node.switches),
        "domain": node.domain,
        "level": node.level,
        "migration_option": node.migration_option or "",
    }
    return (
        *options.items(),
        *(("team", team_words(team)) for team in node.teams),
        *(("nic", nic_words(nic)) for nic in node.nics),
    )


class LiveStage:
    """A lab, and what is done to it."""

    def __init__(self, scenario: Scenario, admin: AdminStub, hosts: Hosts, progress: Progress) -> None:
        self.scenario = scenario
        self.address = ""
        self.witness = ""
        self._admin = admin
        self._hosts = hosts
        self._progress = progress
        self.began_at_s = time.monotonic()
        self._after_event = 0
        self._after_move = 0
        self._left: list[tuple[str, str | None, asyncio.Task[Refusal | None]]] = []

    @property
    def elapsed_s(self) -> float:
        """Since the timeline began."""
        return time.monotonic() - self.began_at_s

    async def close(self) -> None:
        """Leave nothing under way."""
        for _, _, task in self._left:
            task.cancel()
        await self._hosts.close()

    async def look(self) -> Look:
        """The cluster as its admins see it now; nothing if there is no coordinator."""
        try:
            found = await watcher.look(
                self._admin, self._after_event, self._after_move, tuple(self._hosts.alive)
            )
        except grpc.aio.AioRpcError:
            return _NOBODY
        frozen = tuple(f"{name} stands still" for name in sorted(self._hosts.frozen))
        return Look(found.seen, (*found.under_way, *frozen))

    # --- before the timeline ----------------------------------------------------------------------

    async def set_up(self) -> None:
        """Votes, policy and VMs as the file says; then the log begins. Raises StepFailed."""
        chosen = self.scenario.cluster
        await self._put("quorum", steps.SetQuorum(chosen.dynamic_quorum, self.scenario.witness), None)
        if (policy := chosen.policy) is not None:
            await self._put("cluster", policy, None)
        for name, vm in self.scenario.vms.items():
            wanted = steps.CreateVm(vm.spec(name), vm.node or "", vm.start, vm.rules)
            await self._put(f"vms.{name}", wanted, None)
        await self._settle(SETUP_S, "the cluster comes up")
        # Grants tell hosts of the votes: a host that has not heard of them asks nobody for promises.
        await asyncio.sleep(2 * PROFILES[self.scenario.profile].beat_s)
        self._after_event = await newest_event_id(self._admin)
        moves = await self._admin.ListMigrations(admin_pb2.ListMigrationsRequest(), timeout=LOOK_S)
        self._after_move = max((watcher.move_number(move) for move in moves.migrations), default=0)
        self.began_at_s = time.monotonic()

    # --- the timeline -----------------------------------------------------------------------------

    async def play(self) -> None:
        """Do all steps. Raises StepFailed at the first that goes otherwise."""
        for index, line in enumerate(self.scenario.steps):
            step, where = line.parsed, f"steps[{index}] ({line.step})"
            self._progress(f"+{self.elapsed_s:.1f} s  {line.step}")
            match step.action:
                case steps.Delay(seconds=seconds):
                    await asyncio.sleep(seconds)
                case steps.Wait(seconds=seconds):
                    await self._settle(seconds, where)
                case steps.WaitFor():
                    await self._wait_for(step.action, where)
                case action if isinstance(action, steps.Fault):
                    refusal = await self._refusal(self._hosts.strike(action))
                    check_answer(where, refusal, line.refused)
                case action if step.background:
                    asked = asyncio.create_task(self._refusal(self._ask(action)))
                    self._left.append((where, line.refused, asked))
                case action:
                    await self._put(where, action, line.refused)

    async def _ask(self, action: steps.Request) -> None:
        await requests.put(self._admin, action, self.witness)
        if isinstance(action, steps.EvictNode):
            self._hosts.forget(action.node)

    async def _put(self, where: str, action: steps.Request, refused: str | None) -> None:
        check_answer(where, await self._refusal(self._ask(action)), refused)

    async def _refusal(self, asked: Awaitable[None]) -> Refusal | None:
        """Why it was refused; None: it was not."""
        try:
            await asked
        except grpc.aio.AioRpcError as error:
            return refusal_of(error, self.address)
        except FerryError as error:
            return error.refusal
        return None

    # --- time -------------------------------------------------------------------------------------

    async def _comes_true(
        self, condition: Callable[[Look], bool], seconds: float, every_s: float = LOOK_EVERY_S
    ) -> Look | None:
        """The last look if the condition did not come true in time, else None."""
        until_s = time.monotonic() + seconds
        while not condition(found := await self.look()):
            if time.monotonic() >= until_s:
                return found
            await asyncio.sleep(every_s)
        return None

    async def _settle(self, seconds: float, where: str) -> None:
        last = await self._comes_true(lambda found: not found.under_way, seconds)
        if last is not None:
            left = "; ".join(last.under_way)
            raise StepFailed(f"{where}: after {seconds:g} s something is still under way: {left}")

    async def _wait_for(self, action: steps.WaitFor, where: str) -> None:
        last = await self._comes_true(
            lambda found: action.state in _states(found.seen, action.name), action.seconds, LOOK_CLOSELY_S
        )
        if last is not None:
            states = " and ".join(sorted(_states(last.seen, action.name)))
            raise StepFailed(f"{where}: after {action.seconds:g} s {action.name} is {states}")

    # --- the end ----------------------------------------------------------------------------------

    async def finish(self) -> list[str]:
        """Let all come true that is expected; what did not, in words."""
        timing = PROFILES[self.scenario.profile]
        lease_s = self.scenario.resiliency_period or timing.lease_s
        until_s = time.monotonic() + self.scenario.within
        await asyncio.sleep(min(lease_s + 2 * timing.beat_s, self.scenario.within))
        await self._comes_true(
            lambda found: not found.under_way and not missed(self.scenario, found.seen),
            max(0.0, until_s - time.monotonic()),
        )
        failures = []
        for where, refused, asked in self._left:
            try:
                check_answer(where, asked.result() if asked.done() else None, refused)
            except StepFailed as problem:
                failures.append(str(problem))
        return [*failures, *missed(self.scenario, (await self.look()).seen)]


def _states(seen: Seen, name: str) -> set[str]:
    """What a node, or a VM and its newest move, is called."""
    if name in seen.nodes:
        return {seen.nodes[name]}
    if name not in seen.vms:
        return {GONE if seen.nodes else "not known: there is no coordinator"}
    ours = [move.state for move in seen.moves if move.vm == name]
    return {seen.vms[name].state, *ours[-1:]}
