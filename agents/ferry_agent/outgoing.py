"""The source's side of moves: one task for each, between the engine and the host core."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from ferry_agent.estimates import estimate_move
from ferry_agent.failpoints import Failpoints
from ferry_agent.migration.ports import MoveFailed, WireOf, unshaped
from ferry_agent.migration.source import AwaitingOutcome, OutgoingMove
from ferry_agent.rack import Image, Rack
from ferry_agent.redirects import Redirect
from ferry_host import commands, inputs
from ferry_types.eras import RULES, Era, EraRules
from ferry_types.errors import FerryError, Refusal, failed, refused
from ferry_types.messages import BeginOutgoing, MigrationProgress
from ferry_types.migrations import HandOffTimes, MigrationFigures, MoveEstimate
from ferry_wire.channels import IdleChannels

IDLE_CHANNELS_MAX = 8
"""Connections to peers that are kept between moves: two or three for each of a few hosts."""

_log = structlog.get_logger("move")


class _Attempt:
    """One attempt; implements ``SourceHost`` for the engine."""

    def __init__(
        self,
        order: BeginOutgoing,
        image: Image,
        failpoints: Failpoints,
        submit: Callable[[inputs.Event], None],
    ) -> None:
        self.order = order
        self.image = image
        self.armed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.final_permitted = False
        self.awaiting: AwaitingOutcome | None = None
        self.sent = asyncio.Event()
        """Set once ``awaiting`` is there; the target may run even before."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.ended = False
        """Set when the core ends the attempt: from then on the guest is not its to pause."""
        self.has_given_up = False
        """Set once it ends its streams and gives its marks back by itself, which is not to be cut short."""
        self.estimating: asyncio.Task[None] | None = None
        """Looks at guest memory, for a moment, once pages travel."""
        self._estimate: MoveEstimate | None = None
        self._failpoints = failpoints
        self._submit = submit

    # --- SourceHost -------------------------------------------------------------------------------

    def report(self, progress: MigrationProgress) -> None:
        """Pass progress on."""
        figures = self._with_estimate(progress.figures)
        self._submit(inputs.OutgoingProgress(replace(progress, figures=figures)))

    def opened(self) -> None:
        """Make the estimate, by what is to be copied from here on."""
        self.estimating = asyncio.create_task(self._make_estimate())
        self.tasks.add(self.estimating)

    async def arm(self, migration_id: str) -> None:
        """Ask for the hand-off to be armed; the core ends the attempt if it will not be."""
        self._submit(inputs.SwitchDue(migration_id))
        await self.armed

    async def pause(self) -> float:
        """Pause the vCPU; the monotonic time at which its last quantum ended."""
        if self.ended:
            raise FerryError(refused("attempt ended", "the host has ended this attempt"))
        return await self.image.pause()

    def throttle(self, percent: int) -> None:
        """Slow the guest, or let it run at full speed."""
        self.image.vcpu.throttle(percent)

    def device_state(self) -> bytes:
        """The paused guest's registers."""
        return self.image.vcpu.device_state()

    def point_of_no_return(self) -> None:
        """Ask the core whether the final copy may be sent. Raises FerryError if not."""
        self._submit(inputs.FinalCopyDue(self.order.migration_id))
        if not self.final_permitted:
            raise FerryError(refused("point of no return", "the host may not hand the VM over any more"))

    def give_up(self, reason: Refusal) -> None:
        """Report the failure; the attempt ends by itself from here on."""
        self.has_given_up = True
        self._submit(inputs.OutgoingFailed(self.order.migration_id, reason))

    async def reach(self, name: str) -> None:
        """Pass a failpoint."""
        await self._failpoints.reach(name)

    def is_set(self, failpoint: str) -> bool:
        """Whether reaching it will do more than pass it."""
        return self._failpoints.is_set(failpoint)

    # --- figures ----------------------------------------------------------------------------------

    def figures(self, first_quantum_at_s: float, hand_off: HandOffTimes | None) -> MigrationFigures:
        """What was measured of an attempt that the target has completed, and what was expected before."""
        if self.awaiting is None:
            return MigrationFigures(estimate=self._estimate)
        return self._with_estimate(self.awaiting.figures(first_quantum_at_s, hand_off))

    def _with_estimate(self, figures: MigrationFigures) -> MigrationFigures:
        return replace(figures, estimate=self._estimate)

    async def _make_estimate(self) -> None:
        if self.order.wire is not None:
            self._estimate = await asyncio.to_thread(
                estimate_move, self.image, self.order.options, self.order.wire
            )

    # --- the task ---------------------------------------------------------------------------------

    def start(self, rules: EraRules, wire_of: WireOf, channels: IdleChannels) -> None:
        """Begin."""
        self.tasks.add(asyncio.create_task(self._run(rules, wire_of, channels)))

    async def _run(self, rules: EraRules, wire_of: WireOf, channels: IdleChannels) -> None:
        """Carry the attempt out, and report its failure, before or after the final copy."""
        migration_id = self.order.migration_id
        try:
            move = OutgoingMove(
                self.order,
                self.image.memory,
                self,
                least_recently_used_first=rules.least_recently_used_first,
                channels=channels,
                wire_of=wire_of,
                scale=self.image.scale,
            )
            self.awaiting = await move.run()
            self.sent.set()
            reason = await self.awaiting.lost()
        except MoveFailed:
            return  # ``give_up`` has said why
        except FerryError as error:  # the NIC of a route is not there
            reason = error.refusal
        except Exception as error:  # noqa: BLE001 - a bug of the engine must not strand the guest
            _log.exception("move failed unexpectedly", migration=migration_id)
            reason = failed(f"the migration engine failed: {error}", "the agent's log has the details")
        self.sent.set()
        self._submit(inputs.OutgoingFailed(migration_id, reason))


class OutgoingMoves:
    """All attempts of this host."""

    def __init__(self, rack: Rack, failpoints: Failpoints, submit: Callable[[inputs.Event], None]) -> None:
        self.rules = RULES[Era.WS2012R2]
        self.wire_of: WireOf = unshaped
        """Of this host's NICs."""
        self._rack = rack
        self._failpoints = failpoints
        self._submit = submit
        self._channels = IdleChannels(IDLE_CHANNELS_MAX)
        self._attempts: dict[str, _Attempt] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def start(self, order: BeginOutgoing) -> None:
        """Begin to copy a VM that runs here."""
        image = self._rack.get(order.vm)
        if image is None:
            raise AssertionError(f"{order.vm} is to move and is not on the rack")
        attempt = _Attempt(order, image, self._failpoints, self._submit)
        self._attempts[order.migration_id] = attempt
        attempt.start(self.rules, self.wire_of, self._channels)

    def switch_over(self, migration_id: str) -> None:
        """The hand-off is armed: the attempt may pause its guest."""
        attempt = self._attempts[migration_id]
        if not attempt.armed.done():
            attempt.armed.set_result(None)

    def permit_final(self, migration_id: str) -> None:
        """The point of no return is passed."""
        self._attempts[migration_id].final_permitted = True

    def stop(self, migration_id: str) -> None:
        """End an attempt; whether its guest runs on is the core's business."""
        attempt = self._attempts.pop(migration_id, None)
        if attempt is not None:
            attempt.ended = True
            self._end(self._cancel(attempt))

    def release(self, command: commands.ReleaseSource) -> None:
        """The target runs: delete the image, and tell the core the figures."""
        self._rack.take(command.vm)
        if command.echo_address:
            self._rack.redirect(command.vm, Redirect(command.echo_address, command.epoch))
        self._end(self._release(self._attempts.pop(command.migration_id), command))

    def follow_nics(self, is_up: Callable[[str], bool]) -> None:
        """NICs went down or came up: an attempt that has no NIC left to send by is over.

        ``is_up``: whether this host's NIC of that name is. What an attempt has still got, it may go on with.
        """
        for migration_id, attempt in list(self._attempts.items()):
            nics = dict.fromkeys(route.source_nic for route in attempt.order.routes)
            if nics and not any(map(is_up, nics)):
                what = f"NIC {', '.join(nics)}, by which it sends, went down"
                reason = failed(what, "move it again: another network is chosen")
                self._submit(inputs.OutgoingFailed(migration_id, reason))

    async def close(self) -> None:
        """End everything."""
        for migration_id in list(self._attempts):
            self.stop(migration_id)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._channels.close()

    def _end(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _cancel(self, attempt: _Attempt) -> None:
        if not attempt.has_given_up:
            for task in attempt.tasks:
                task.cancel()
        await asyncio.wait(attempt.tasks)
        if attempt.awaiting is not None:
            await attempt.awaiting.close()

    async def _release(self, attempt: _Attempt, command: commands.ReleaseSource) -> None:
        await attempt.sent.wait()
        if attempt.estimating is not None:
            await asyncio.wait({attempt.estimating})
        figures = attempt.figures(command.first_quantum_at_s, command.hand_off)
        # Everything was sent, so nobody reads the memory any more, and nobody needs to wait for the streams.
        await attempt.image.destroy()
        self._submit(inputs.SourceGone(command.migration_id, figures))
        await self._cancel(attempt)
