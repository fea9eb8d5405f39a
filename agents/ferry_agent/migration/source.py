"""One attempt to move a VM away, from the first connection to the end of the final copy.

::

    Negotiating -> PreCopy(n) -> Arming -> Paused -> FinalCopy -> AwaitingOutcome -> closed
         \\____________\\___________\\_________\\___ any failure: the guest runs on at the source

``OutgoingMove.run`` goes from the left to the final copy. Past the point of no return an ``AwaitingOutcome``
keeps the streams open, and who owns the VM is no longer for the source to say.
"""

import asyncio
import time
from typing import Any

from ferry_agent.guest.memory import GuestMemory
from ferry_agent.migration.breakage import Breakage
from ferry_agent.migration.clocks import machine_boot_id
from ferry_agent.migration.copier import PageCopier
from ferry_agent.migration.digest import memory_digest
from ferry_agent.migration.figures import MoveRecord
from ferry_agent.migration.link import SourceLink
from ferry_agent.migration.ports import MoveFailed, SourceHost, WireOf, unshaped
from ferry_agent.migration.protocol import ARM_AHEAD_S, PROGRESS_INTERVAL_S
from ferry_agent.migration.transports.choice import effective_option, make_transport
from ferry_agent.migration.transports.transport import PassKind, SentPages, Transport
from ferry_agent.migration.zero_search import ZeroSearch
from ferry_host import convergence
from ferry_host.scale import UNSCALED, Scale
from ferry_types.errors import FerryError, Refusal, failed, refused
from ferry_types.limits import DEVICE_STATE_BYTES_MAX
from ferry_types.messages import BeginOutgoing, MigrationProgress
from ferry_types.migrations import HandOffTimes, MigrationFigures
from ferry_wire.channels import IdleChannels


class AwaitingOutcome:
    """A move whose final copy was sent; the guest is paused at the source until the outcome is known."""

    def __init__(
        self, link: SourceLink, transport: Transport, copier: PageCopier, record: MoveRecord, *, verify: bool
    ) -> None:
        self._link = link
        self._transport = transport
        self._copier = copier
        self._record = record
        self._verify = verify

    async def lost(self) -> Refusal:
        """Return, with the reason, once a stream broke. That proves nothing about the outcome."""
        return await asyncio.shield(self._link.breakage.reason)

    def figures(
        self, first_quantum_at_s: float | None, hand_off: HandOffTimes | None = None
    ) -> MigrationFigures:
        """What was measured; the target's first quantum, by the target's monotonic clock, ends the black-out.

        ``hand_off`` is by that clock, too. A target that runs has verified memory, if that was asked for.
        """
        if first_quantum_at_s is None:
            return self._record.figures(time.monotonic())
        offset_s = self._link.clock_offset_s
        if hand_off is not None:
            hand_off = HandOffTimes(hand_off.ready_at_s - offset_s, hand_off.run_at_s - offset_s)
        return self._record.figures(
            time.monotonic(),
            first_quantum_at_s=first_quantum_at_s - offset_s,
            hand_off=hand_off,
            verified=True if self._verify else None,
        )

    async def close(self) -> None:
        """End the streams and give the marks back: if the move was aborted, the guest runs on here."""
        await asyncio.gather(self._link.close(), self._transport.close())
        self._copier.give_back()


class OutgoingMove:
    """One attempt. ``run`` is called once, on the event loop that this was made on."""

    def __init__(
        self,
        order: BeginOutgoing,
        memory: GuestMemory,
        host: SourceHost,
        *,
        least_recently_used_first: bool,
        boot_id: str | None = None,
        channels: IdleChannels,
        wire_of: WireOf = unshaped,
        scale: Scale = UNSCALED,
    ) -> None:
        """``channels``: to peers, of all attempts. ``scale``: in whose units figures and reasons are."""
        self._order = order
        self._memory = memory
        self._host = host
        self._least_recently_used_first = least_recently_used_first
        self._boot_id = machine_boot_id() if boot_id is None else boot_id
        self._policy = convergence.Policy.of(order.options)
        self._breakage = Breakage(order)
        self._link = SourceLink(order, self._breakage, channels)
        sent_pages = SentPages(memory.n_pages)
        self._transport = make_transport(
            order, memory, sent_pages, self._breakage, wire_of, self._link.close_lane, channels
        )
        self._copier = PageCopier(memory, self._transport, sent_pages)
        self._scale = scale
        self._record = MoveRecord(scale)
        self._digest: asyncio.Future[bytes] | None = None
        self._first_search: asyncio.Task[ZeroSearch] | None = None
        """Of the first pass, which begins while the streams are opened."""
        self._final_permitted = False
        self._reported_at_s = 0.0
        self._throttle_percent = 0
        self._arming: asyncio.Task[None] | None = None

    async def run(self) -> AwaitingOutcome:
        """Copy, pause and send the final copy; returns once that is on its way.

        Raises MoveFailed if the attempt ended before ``SourceHost.point_of_no_return``: the dirty log then
        has back every mark that was taken, and the streams are closed, so that the target drops the attempt.
        So too if this task is cancelled, at whatever point. However it ends, the guest is not throttled then.
        """
        try:
            await self._host.reach("source.connecting")
            await self._open()
            try:
                await self._hand_over_unless_broken()
            finally:
                self._throttle(0)
                await self._stop_arming()
        except FerryError as error:
            self._host.give_up(error.refusal)
            await self._abandon()
            raise MoveFailed(error.refusal) from error
        except BaseException:
            await self._abandon()
            raise
        verify = self._order.options.verify
        return AwaitingOutcome(self._link, self._transport, self._copier, self._record, verify=verify)

    async def _open(self) -> None:
        self._transport.connect()
        self._first_search = asyncio.create_task(self._look_at_touched())
        option, lanes = effective_option(self._order), self._transport.lanes
        accept = await self._link.open(self._memory.n_pages, self._boot_id, option, lanes)
        await self._transport.open(accept)
        self._host.opened()

    async def _abandon(self) -> None:
        await asyncio.gather(self._link.close(), self._transport.close())
        if self._digest is not None:
            await asyncio.wait({self._digest})  # its thread reads guest memory
        if self._first_search is not None:
            await asyncio.wait({self._first_search})  # its thread takes marks
        self._copier.give_back()

    async def _hand_over_unless_broken(self) -> None:
        """Notice broken streams also while waiting for the coordinator, the guest or a failpoint."""
        work = asyncio.create_task(self._hand_over())
        try:
            either: tuple[asyncio.Future[Any], ...] = (work, self._breakage.reason)
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not self._final_permitted:
                raise FerryError(self._breakage.reason.result())
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _hand_over(self) -> None:
        await self._copy_while_running()
        self._begin_to_arm()
        assert self._arming is not None
        await self._arming
        await self._copy_while_armed()
        await self._link.rouse()
        self._record.paused_at_s = await self._host.pause()
        if self._order.options.verify:
            loop = asyncio.get_running_loop()
            self._digest = loop.run_in_executor(None, memory_digest, self._memory.pages)
        await self._host.reach("source.paused")
        await self._copy_last(self._record.paused_at_s)
        device_state = self._host.device_state()
        if len(device_state) > DEVICE_STATE_BYTES_MAX:
            raise FerryError(failed(f"{self._order.vm} has {len(device_state)} bytes of device state"))
        self._host.point_of_no_return()
        self._final_permitted = True
        try:
            await self._send_end(device_state)
        except FerryError as error:
            self._breakage.break_off(error.refusal)

    def _arm_if_near(self, pass_index: int, page_count: int, rate_bytes_per_s: float) -> None:
        """Arm while the last pages of a pass over so many travel, if this will have been the last pass."""
        if self._arming is not None or self._host.is_set("source.copying"):
            return
        pages, rate = self._scale.emulated(page_count), self._record.rate_bytes_per_s or rate_bytes_per_s
        if convergence.is_switch_near(pass_index, pages, self._dirty_pages(), rate, self._policy):
            self._begin_to_arm()

    def _begin_to_arm(self) -> None:
        if self._arming is None:
            self._arming = asyncio.create_task(self._arm())

    async def _arm(self) -> None:
        await self._host.reach("source.arming")
        await self._host.arm(self._order.migration_id)

    async def _stop_arming(self) -> None:
        if self._arming is not None:
            self._arming.cancel()
            await asyncio.gather(self._arming, return_exceptions=True)

    async def _send_end(self, device_state: bytes) -> None:
        self._record.final_sent_at_s = time.monotonic()  # before: the target may have it sooner than we go on
        await self._link.send_final(self._transport.tally, device_state)
        if self._digest is not None:
            await self._link.send_digest(await self._digest)
        await self._host.reach("source.final_sent")

    # --- copying --------------------------------------------------------------------------------------

    async def _copy_while_running(self) -> None:
        self._record.began_at_s = self._reported_at_s = time.monotonic()
        assert self._first_search is not None
        # Not cancelled with this task: its thread takes marks, and ``_abandon`` waits to give them back.
        await self._copy_pass(PassKind.FIRST, await asyncio.shield(self._first_search))
        await self._host.reach("source.copying")
        while (decision := self._decide()).action is convergence.Action.CONTINUE:
            await self._copy_next(decision)
            await self._host.reach("source.copying")
        self._stop_copying(decision)

    async def _look_at_touched(self) -> ZeroSearch:
        pages = await asyncio.to_thread(
            self._copier.take_touched, least_recently_used_first=self._least_recently_used_first
        )
        return self._copier.look_at(pages)

    async def _copy_while_armed(self) -> None:
        """Copy once more if arming took so long that too much is dirty again, or more often if told to."""
        while (decision := self._decide()).action is convergence.Action.CONTINUE:
            await self._copy_next(decision)
            if not self._policy.is_choosy:
                return
        self._stop_copying(decision)

    async def _copy_next(self, decision: convergence.Decision) -> None:
        self._throttle(decision.throttle_percent)
        await self._copy_pass(PassKind.CHASE, self._copier.look_at(self._copier.take_dirty()))

    def _stop_copying(self, decision: convergence.Decision) -> None:
        self._record.explanation = decision.explanation
        if decision.action is convergence.Action.GIVE_UP:
            hint = "allow a longer black-out, let the guest be throttled, or move it when it is less busy"
            raise FerryError(refused("abort over black-out", decision.explanation, hint))

    def _throttle(self, percent: int) -> None:
        if percent != self._throttle_percent:
            self._throttle_percent = percent
            self._host.throttle(percent)

    def _decide(self) -> convergence.Decision:
        return convergence.decide(
            self._record.passes, self._dirty_pages(), self._record.rate_bytes_per_s, self._policy
        )

    def _dirty_pages(self) -> int:
        return self._scale.emulated(self._memory.dirty.count())

    async def _copy_pass(self, kind: PassKind, search: ZeroSearch) -> None:
        began_at_s = time.monotonic()
        tally = self._transport.tally
        bytes_before = tally.bytes_copied
        pass_index = len(self._record.passes) + 1

        def rate(passed_s: float) -> float:
            return self._scale.emulated(tally.bytes_copied - bytes_before) / passed_s if passed_s else 0.0

        def on_progress(pages_done: int) -> None:
            now_s = time.monotonic()
            passed_s = now_s - began_at_s
            # An empty window takes its fill at once, which says nothing about the pace.
            arrived = max(0, pages_done - self._transport.pages_in_flight)
            is_all_sent = pages_done == search.page_count
            if is_all_sent or (search.page_count - arrived) * passed_s <= ARM_AHEAD_S * arrived:
                self._arm_if_near(pass_index, search.page_count, rate(passed_s))
            if now_s - self._reported_at_s >= PROGRESS_INTERVAL_S:
                self._report(pass_index, pages_done, search.page_count, rate(passed_s))

        copied = await self._copier.copy(kind, search, on_progress)
        self._record.compression = self._transport.explanation()
        self._record.add_pass(
            copied, time.monotonic() - began_at_s, self._memory.dirty.count(), self._throttle_percent
        )
        self._report(pass_index, search.page_count, search.page_count, self._record.rate_bytes_per_s)

    async def _copy_last(self, paused_at_s: float) -> None:
        search = self._copier.look_at(self._copier.take_dirty())
        copied = await self._copier.copy_last(search)
        self._record.compression = self._transport.explanation()
        dirty_pages = self._memory.dirty.count()
        assert dirty_pages == 0, f"{dirty_pages} pages were dirtied after the pause"
        self._record.set_final(copied, time.monotonic() - paused_at_s)

    def _report(self, pass_index: int, pages_done: int, pages_total: int, rate_bytes_per_s: float) -> None:
        """Pages are real ones, the rate is emulated."""
        self._reported_at_s = time.monotonic()
        self._host.report(
            MigrationProgress(
                migration_id=self._order.migration_id,
                pass_index=pass_index,
                pages_done=self._scale.emulated(pages_done),
                pages_total=self._scale.emulated(pages_total),
                dirty_pages=self._dirty_pages(),
                rate_bytes_per_s=rate_bytes_per_s,
                figures=self._record.figures(self._reported_at_s),
            )
        )
