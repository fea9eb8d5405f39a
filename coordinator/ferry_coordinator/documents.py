"""Cluster, nodes, votes, VMs, moves and events as JSON, the same for the ``ferry`` command and on the bus.

Names are part of the contract with the programs that read them. Plain numbers with the unit in the name;
times are RFC 3339 in UTC with microseconds; unknown is null.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from ferry.v1 import admin_pb2, common_pb2, events_pb2
from ferry_types.limits import PAGE_SIZE
from ferry_types.mac import mac_address
from ferry_types.roles import Failback

View = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(time_us: int) -> str:
    """Unix microseconds as ``2026-01-31T12:00:00.000001Z``."""
    return (
        (_EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def cluster_view(cluster: admin_pb2.Cluster) -> View:
    """The cluster as a whole, as ``cluster show`` prints it."""
    policy = cluster.policy
    return {
        "name": cluster.name,
        "era": cluster.era,
        "profile": cluster.profile,
        "beat_s": cluster.beat_s,
        "lease_s": cluster.lease_s,
        "scale": cluster.scale if cluster.HasField("scale") else None,
        "nodes": {counted.state: counted.count for counted in cluster.nodes},
        "vms": {counted.state: counted.count for counted in cluster.vms},
        "policy": {
            "enforced_anti_affinity": policy.enforced_anti_affinity,
            "quarantine_threshold": policy.quarantine_threshold,
            "quarantine_period_s": policy.quarantine_period_s,
            "quarantine_duration_s": policy.quarantine_s,
        },
    }


def node_view(node: admin_pb2.Node) -> View:
    """A node, as ``node list`` and ``node show`` print it."""
    capacity = node.capacity
    return {
        "name": node.name,
        "state": node.state,
        "incarnation": node.incarnation or None,
        "vms": list(node.vms),
        "address": node.address or None,
        "echo_address": node.echo_address or None,
        "memory_bytes": capacity.memory_bytes,
        "memory_used_bytes": node.memory_used_bytes,
        "scale": capacity.scale,
        "processors": capacity.processors,
        "processor": processor_word(capacity.processor) if capacity.HasField("processor") else None,
        "switches": list(capacity.switches),
        "domain": capacity.domain or None,
        "level": capacity.level or None,
        "migration_limit": capacity.migration_limit,
        "migration_option": capacity.migration_option or None,
        "qos": [qos_view(policy) for policy in capacity.qos],
        "paused": node.paused,
        "drain": drain_view(node.drain) if node.HasField("drain") else None,
        "uuid": node.uuid or None,
        "version": node.version or None,
        "reason": node.reason or None,
    }


def qos_view(policy: common_pb2.QosPolicy) -> View:
    """What a class of traffic gets of each NIC of a node."""
    return {
        "class": policy.traffic_class,
        "limit_bytes_per_s": policy.limit_bytes_per_s or None,
        "weight": policy.weight or None,
    }


def processor_word(processor: common_pb2.Processor) -> str:
    """A processor model, as agents are told theirs: ``intel:4``."""
    return f"{processor.vendor}:{processor.generation}"


def drain_view(drain: admin_pb2.Drain) -> View:
    """How far a node has been emptied."""
    return {
        "state": drain.state,
        "to": drain.to or None,
        "reason": drain.reason or None,
        "taken": list(drain.taken),
        "remaining": list(drain.remaining),
    }


def drain_plan_view(plan: admin_pb2.DrainPlan) -> View:
    """What a drain would do, as ``node drain --dry-run`` prints it."""
    return {
        "node": plan.node,
        "moves": [
            {
                "vm": move.vm,
                "memory_bytes": move.memory_bytes,
                "target": move.target,
                "estimated_s": move.estimated_s if move.HasField("estimated_s") else None,
            }
            for move in plan.moves
        ],
        "stuck": [
            {"vm": stuck.vm, "rule": stuck.refusal.rule or None, "message": stuck.refusal.message}
            for stuck in plan.stuck
        ],
        "estimated_s": plan.estimated_s if plan.HasField("estimated_s") else None,
    }


def rating_view(rating: admin_pb2.HostRating) -> View:
    """How well a host would suit a VM, as ``vm migrate --dry-run`` prints it."""
    return {
        "node": rating.node,
        "stars": rating.stars,
        "reason": rating.reason or None,
        "rule": rating.rule or None,
    }


def rules_view(rules: common_pb2.RoleRules) -> View:
    """What the cluster heeds for a VM."""
    has_window = rules.failback == Failback.WINDOW
    return {
        "possible_owners": list(rules.possible_owners),
        "preferred_owners": list(rules.preferred_owners),
        "anti_affinity": list(rules.anti_affinity),
        "failback": rules.failback,
        "failback_from_hour": rules.failback_from_hour if has_window else None,
        "failback_until_hour": rules.failback_until_hour if has_window else None,
        "failover_threshold": rules.failover_threshold,
        "failover_period_s": rules.failover_period_s,
        "start_delay_s": rules.start_delay_s,
        "switch": rules.switch,
        "processor_compatibility": rules.processor_compatibility,
    }


def network_view(network: admin_pb2.NetworkStatus) -> View:
    """A network, as ``network list`` and ``network show`` print it."""
    return {
        "name": network.name,
        "role": network.role,
        "metric": network.metric,
        "auto_metric": network.auto_metric,
        "subnet": network.subnet or None,
        "state": network.state,
        "mtu": network.mtu or None,
        "carries": list(network.carries),
        "nics": [nic_view(status.node, status.nic, status.state, status.reason) for status in network.nics],
        "reason": network.reason or None,
    }


def nic_view(node: str, nic: common_pb2.Nic, state: str, reason: str) -> View:
    """A NIC of a node, as ``network show``, ``nic down`` and ``nic up`` print it."""
    return {
        "node": node,
        "name": nic.name,
        "network": nic.network,
        "address": nic.address,
        "rate_bytes_per_s": nic.rate_bytes_per_s or None,
        "latency_s": nic.latency_s,
        "mtu": nic.mtu,
        "rdma": nic.rdma,
        "team": nic.team or None,
        "state": state,
        "reason": reason or None,
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
        "rules": rules_view(vm.rules) if vm.HasField("rules") else None,
        "mac": mac_address(vm.spec.name),
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
        "raw_bytes": figures.pages_sent * PAGE_SIZE,
        "compressed_share": figures.compressed_pages / figures.pages_sent if figures.pages_sent else None,
        "compressed_bytes": figures.compressed_bytes,
        "duration_s": figures.duration_s,
        "dirty_pages_after": figures.dirty_pages_after,
        "throttle_percent": figures.throttle_percent,
    }


def estimate_view(estimate: common_pb2.MoveEstimate) -> View:
    """What a move was expected to take; a black-out of null: it would be given up."""
    return {
        "passes": estimate.passes,
        "brownout_s": estimate.brownout_s,
        "blackout_s": estimate.blackout_s if estimate.HasField("blackout_s") else None,
        "bytes_sent": estimate.bytes_sent,
        "rate_bytes_per_s": estimate.rate_bytes_per_s,
        "write_bytes_per_s": estimate.write_bytes_per_s,
        "explanation": estimate.explanation,
    }


def blackout_view(parts: common_pb2.BlackoutParts) -> View:
    """Where a black-out's time went; together the parts are ``blackout_s``."""
    return {
        "last_pages_s": parts.last_pages_s,
        "ready_s": parts.ready_s,
        "commit_s": parts.commit_s,
        "resume_s": parts.resume_s,
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
        "option_reason": record.option_reason or None,
        "state": record.state,
        "passes": [pass_view(figure) for figure in figures.passes],
        "final": pass_view(figures.final) if paused else None,
        "brownout_s": figures.brownout_s if paused else None,
        "blackout_s": figures.blackout_s if figures.HasField("blackout_s") else None,
        "blackout": blackout_view(figures.blackout) if figures.HasField("blackout") else None,
        "total_s": record.total_s or None,
        "memory_bytes": record.memory_bytes,
        "bytes_sent": figures.bytes_sent if measured else None,
        "compression": figures.compression or None,
        "verified": figures.verified if figures.HasField("verified") else None,
        "reason": record.reason or None,
        "pass_limit": options.pass_limit,
        "blackout_allowed_s": options.blackout_allowed_s,
        "throttle": options.throttle,
        "switch_at_minimum": options.switch_at_minimum,
        "abort_over_blackout": options.abort_over_blackout,
        "estimate": estimate_view(record.estimate) if record.HasField("estimate") else None,
        "estimate_reason": record.estimate_reason or None,
        "requested_at": rfc3339(record.requested_at_us) if record.requested_at_us else None,
        "cause": record.cause or None,
        "network": record.network or None,
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
