"""Nodes, votes, VMs, moves and events as JSON, the same for the ``ferry`` command and on the bus.

Names are part of the contract with the programs that read them. Plain numbers with the unit in the name;
times are RFC 3339 in UTC with microseconds; unknown is null.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from ferry.v1 import admin_pb2, common_pb2, events_pb2

View = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(time_us: int) -> str:
    """Unix microseconds as ``2026-01-31T12:00:00.000001Z``."""
    return (
        (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def node_view(node: admin_pb2.Node) -> View:
    """A node, as ``node list`` and ``node show`` print it."""
    return {
        "name": node.name,
        "state": node.state,
        "incarnation": node.incarnation or None,
        "vms": list(node.vms),
        "address": node.address or None,
        "echo_address": node.echo_address or None,
        "memory_bytes": node.capacity.memory_bytes,
        "memory_used_bytes": node.memory_used_bytes,
        "processors": node.capacity.processors,
        "migration_limit": node.capacity.migration_limit,
        "uuid": node.uuid or None,
        "version": node.version or None,
        "reason": node.reason or None,
    }


def quorum_view(quorum: admin_pb2.Quorum) -> View:
    """Who has a vote, as ``quorum show`` prints it."""
    return {
        "mode": quorum.mode,
        "dynamic": quorum.dynamic,
        "witness": quorum.witness or None,
        "forced": quorum.forced,
        "number": quorum.number,
        "majority": quorum.majority,
        "votes": [
            {"name": vote.name, "kind": vote.kind, "state": vote.state or None, "has_vote": vote.has_vote}
            for vote in quorum.votes
        ],
        "under_judgement": list(quorum.under_judgement),
        "reason": quorum.reason or None,
    }


def vm_view(vm: admin_pb2.Vm) -> View:
    """A VM, as ``vm list`` and ``vm show`` print it."""
    workload, fill = vm.spec.workload, vm.spec.fill
    return {
        "name": vm.spec.name,
        "state": vm.state,
        "node": vm.node or None,
        "epoch": vm.epoch,
        "memory_bytes": vm.spec.memory_bytes,
        "workload": workload.profile,
        "write_rate_bytes_per_s": workload.write_rate_bytes_per_s,
        "read_rate_bytes_per_s": workload.read_rate_bytes_per_s,
        "working_set_bytes": workload.working_set_bytes,
        "access": workload.access,
        "compressibility": workload.compressibility,
        "fill": fill.path if fill.kind == "file" else fill.kind,
        "priority": vm.spec.priority,
        "echo_address": vm.echo_address or None,
        "host_address": vm.host_address or None,
        "migration": vm.migration_id or None,
        "reason": vm.reason or None,
    }


def pass_view(figures: common_pb2.PassFigures) -> View:
    """One pass over memory, or the last copy in the pause (index 0)."""
    return {
        "index": figures.index,
        "pages_sent": figures.pages_sent,
        "zero_pages": figures.zero_pages,
        "bytes_sent": figures.bytes_sent,
        "duration_s": figures.duration_s,
        "dirty_pages_after": figures.dirty_pages_after,
    }


def migration_view(record: admin_pb2.MigrationRecord) -> View:
    """A move, as ``migration list`` and ``migration show`` print it."""
    options, figures = record.options, record.figures
    measured = record.HasField("figures")
    paused = measured and figures.HasField("final")
    return {
        "id": record.id or None,
        "vm": record.vm,
        "source": record.source,
        "target": record.target,
        "type": options.type,
        "option": options.option,
        "state": record.state,
        "passes": [pass_view(figure) for figure in figures.passes],
        "final": pass_view(figures.final) if paused else None,
        "brownout_s": figures.brownout_s if paused else None,
        "blackout_s": figures.blackout_s if figures.HasField("blackout_s") else None,
        "total_s": record.total_s or None,
        "memory_bytes": record.memory_bytes,
        "bytes_sent": figures.bytes_sent if measured else None,
        "verified": figures.verified if figures.HasField("verified") else None,
        "reason": record.reason or None,
        "pass_limit": options.pass_limit,
        "blackout_allowed_s": options.blackout_allowed_s,
        "requested_at": rfc3339(record.requested_at_us) if record.requested_at_us else None,
    }


def progress_view(status: admin_pb2.MigrationStatus) -> View:
    """A move and how far it is, as ``migration watch`` prints it."""
    return {
        **migration_view(status.record),
        "pass_index": status.pass_index,
        "pages_done": status.pages_done,
        "pages_total": status.pages_total,
        "dirty_pages": status.dirty_pages,
        "rate_bytes_per_s": status.rate_bytes_per_s,
    }


def event_view(event: events_pb2.Event) -> View:
    """An event; ``id`` is Windows' event ID (null where it has none), ``sequence`` its place in our log."""
    return {
        "time": rfc3339(event.time_us),
        "id": event.event_id or None,
        "log": event.log,
        "level": event.level,
        "node": event.node or None,
        "vm": event.vm or None,
        "message": event.message,
        "source": event.source,
        "sequence": event.id,
    }
