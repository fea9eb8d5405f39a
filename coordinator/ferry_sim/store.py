"""The coordinators' store in memory, which looks at every commit: what may it change, and on what evidence?

Evidence is what hosts have really said or done, noted by the world as it happens, not what a coordinator
believes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeGuard

from ferry_cluster.commands import Commit
from ferry_cluster.records import MigrationRecord, NodeRecord, Origin, Ownership, RaisedEpoch, Record
from ferry_types.messages import FromHost, Join, OrderRefused, TargetReady, VmStopped
from ferry_types.migrations import ENDED
from ferry_types.vms import ImagePhase


@dataclass
class CheckedStore:
    """Records by key, and the present term. ``may_run(node, incarnation)``: whether that life has a lease."""

    may_run: Callable[[str, str | None], bool]
    term: int = 0
    records: dict[str, Record] = field(default_factory=dict)
    let_go: set[tuple[str, int]] = field(default_factory=set)
    """(VM, epoch) that its host has refused or stopped."""
    ready: set[str] = field(default_factory=set)
    """Moves whose target has said READY."""

    def note(self, report: FromHost) -> None:
        """A host says something; whether it arrives is another matter."""
        match report:
            case OrderRefused() | VmStopped():
                self.let_go.add((report.vm, report.epoch))
            case TargetReady():
                self.ready.add(report.migration_id)
            case Join():
                self.ready |= {i.migration_id for i in report.images if i.phase is ImagePhase.READY}

    def owner(self, vm: str) -> Ownership | None:
        """Who owns a VM."""
        record = self.records.get(f"owner/{vm}")
        assert record is None or isinstance(record, Ownership)
        return record

    def raised(self, vm: str) -> int:
        """The VM's raised epoch, 0 if there is none."""
        record = self.records.get(f"raised/{vm}")
        return record.epoch if isinstance(record, RaisedEpoch) else 0

    def commit(self, commit: Commit) -> bool:
        """Apply a commit; False if its term has passed."""
        if commit.term != self.term:
            return False
        for guard in commit.guards:
            assert self.records.get(guard.key) == guard.expected, guard
        lost = {record.name for record in commit.writes if self._is_loss(record)}
        lost |= {key.removeprefix("node/") for key in commit.deletes if self._is_loss_of_evicted(key)}
        for record in commit.writes:
            self._look_at(record, self.records.get(record.key), lost)
        for record in commit.writes:
            self.records[record.key] = record
        for key in commit.deletes:
            self.records.pop(key, None)
        return True

    def _is_loss(self, record: Record) -> TypeGuard[NodeRecord]:
        """Whether a life of a node ends: it is down, or another one takes its place."""
        before = self.records.get(record.key)
        return (
            isinstance(record, NodeRecord)
            and isinstance(before, NodeRecord)
            and (not record.up or record.incarnation != before.incarnation)
        )

    def _is_loss_of_evicted(self, key: str) -> bool:
        """Whether a node is lost and evicted at once: it must not have its lease any more."""
        node = self.records.get(key)
        return isinstance(node, NodeRecord) and not self.may_run(node.name, node.incarnation)

    def _look_at(self, record: Record, before: Record | None, lost: set[str]) -> None:
        match record, before:
            case NodeRecord(), NodeRecord() if record.name in lost:
                assert not self.may_run(record.name, before.incarnation), f"{record.name} still has its lease"
            case Ownership(), Ownership():
                self._look_at_owner(record, before, lost)
            case RaisedEpoch(), RaisedEpoch():
                assert record.epoch > before.epoch, f"raised epoch falls: {before} -> {record}"
            case MigrationRecord(), MigrationRecord():
                ended_twice = before.state in ENDED and record.state is not before.state
                assert not ended_twice, f"two outcomes of one move: {before} -> {record}"

    def _look_at_owner(self, after: Ownership, before: Ownership, lost: set[str]) -> None:
        assert after.epoch >= before.epoch, f"epoch falls: {before} -> {after}"
        if after.node is not None:
            assert after.epoch > before.epoch, f"an owner without a new epoch: {before} -> {after}"
        if before.node is None or (after.node == before.node and after.origin is not Origin.BOOT):
            return
        if after.origin is Origin.MOVE:
            assert after.migration_id in self.ready, f"committed to a target that is not ready: {after}"
            return
        evidence = before.node in lost or (after.vm, before.epoch) in self.let_go
        assert evidence, f"no loss, refusal or stop: {before} -> {after}"
