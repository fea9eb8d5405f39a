"""The JSON that programs get: pure functions of what the coordinator and the hosts answer.

Names are part of the contract with those programs. Plain numbers with the unit in the name; unknown is null.
"""

from ferry.v1 import host_pb2
from ferry_coordinator.documents import (
    View,
    cluster_view,
    drain_plan_view,
    event_view,
    migration_view,
    network_view,
    nic_view,
    node_view,
    pass_view,
    progress_view,
    quorum_view,
    rating_view,
    rfc3339,
    vm_view,
)
from ferry_types.errors import Refusal

__all__ = [
    "View",
    "audit_view",
    "cluster_view",
    "drain_plan_view",
    "error_view",
    "event_view",
    "migration_view",
    "network_view",
    "nic_view",
    "node_view",
    "pass_view",
    "progress_view",
    "quorum_view",
    "rating_view",
    "rfc3339",
    "vm_view",
]


def error_view(refusal: Refusal) -> View:
    """What is printed in place of a result."""
    return {
        "code": refusal.code.value,
        "rule": refusal.rule or None,
        "message": refusal.message,
        "hint": refusal.hint or None,
    }


def audit_view(report: host_pb2.AuditReport) -> View:
    """What the guest found in its own books."""
    return {"ok": report.ok, "pages_checked": report.pages_checked, "errors": list(report.errors)}
