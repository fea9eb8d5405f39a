"""The event log's rows, with the Windows log, source, level and ID where one exists.

Logs and levels of 1011, 1069, 1127, 1130, 1135, 1137, 1177, 1205, 1251, 1254, 1672, 1673, 1675, 1677, 1680
and 1681 are those of "Failover Clustering system log events" (Microsoft Learn). Of the others the IDs are
documented; the levels of 1153, 1154, 1641, 20413, 20417, 20418, 21024 and 21502, and the log of 1153 and
1154, are not, and are what fits.
"""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """Event levels, as the Windows event viewer names them."""

    INFORMATION = "information"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class EventKind:
    """Where an event stands in Windows' logs; ``event_id`` 0 means that Windows has no such event."""

    log: str
    source: str
    level: Level
    event_id: int


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened, in words of our own; ``node`` and ``vm`` may be empty."""

    kind: EventKind
    message: str
    node: str = ""
    vm: str = ""


_CLUSTERING = "Microsoft-Windows-FailoverClustering"
_CLUSTERING_LOG = "Microsoft-Windows-FailoverClustering/Operational"
_MANAGEMENT = "Microsoft-Windows-Hyper-V-VMMS"
_MANAGEMENT_LOG = "Microsoft-Windows-Hyper-V-VMMS-Admin"
_AVAILABILITY = "Microsoft-Windows-Hyper-V-High-Availability"
_AVAILABILITY_LOG = "Microsoft-Windows-Hyper-V-High-Availability-Admin"
_WORKER = "Microsoft-Windows-Hyper-V-Worker"
_WORKER_LOG = "Microsoft-Windows-Hyper-V-Worker-Admin"

NODE_UP = EventKind("Hyperferry", "Membership", Level.INFORMATION, 0)
NODE_EVICTED = EventKind("System", _CLUSTERING, Level.WARNING, 1011)
NODE_LOST = EventKind("System", _CLUSTERING, Level.CRITICAL, 1135)
QUORUM_LOST = EventKind("System", _CLUSTERING, Level.CRITICAL, 1177)
QUORUM_CHANGED = EventKind("Hyperferry", "Quorum", Level.INFORMATION, 0)
QUORUM_FORCED = EventKind("Hyperferry", "Quorum", Level.CRITICAL, 0)
NO_MAJORITY = EventKind("Hyperferry", "Quorum", Level.ERROR, 0)
ROLE_FAILED = EventKind("System", _CLUSTERING, Level.ERROR, 1205)
COORDINATOR_UP = EventKind("Hyperferry", "Coordinator", Level.INFORMATION, 0)
VM_CHANGED = EventKind("Hyperferry", "VirtualMachine", Level.INFORMATION, 0)
VM_OUSTED = EventKind("System", _CLUSTERING, Level.WARNING, 1251)
FAILOVER_THRESHOLD = EventKind("System", _CLUSTERING, Level.ERROR, 1254)
NIC_FAILED = EventKind("System", _CLUSTERING, Level.ERROR, 1127)
NIC_UP = EventKind("Hyperferry", "Network", Level.INFORMATION, 0)
NETWORK_DOWN = EventKind("System", _CLUSTERING, Level.ERROR, 1130)
NETWORK_UP = EventKind("Hyperferry", "Network", Level.INFORMATION, 0)
PATH_DOWNGRADED = EventKind("Hyperferry", "Network", Level.WARNING, 0)
POLICY_CHANGED = EventKind("Hyperferry", "Coordinator", Level.INFORMATION, 0)
NODE_PAUSED = EventKind("Hyperferry", "Membership", Level.INFORMATION, 0)
NODE_ISOLATED = EventKind("System", _CLUSTERING, Level.WARNING, 1673)
NODE_QUARANTINED = EventKind("System", _CLUSTERING, Level.CRITICAL, 1672)
DRAIN_CHANGED = EventKind("Hyperferry", "Drain", Level.INFORMATION, 0)
NODE_BACK = EventKind("System", _CLUSTERING, Level.INFORMATION, 1680)
VMS_UNMONITORED = EventKind("System", _CLUSTERING, Level.WARNING, 1681)
QUARANTINE_HOLDS = EventKind("System", _CLUSTERING, Level.WARNING, 1675)
DRAIN_FAILED = EventKind("System", _CLUSTERING, Level.ERROR, 1677)
DRAIN_MOVE_FAILED = EventKind("System", _CLUSTERING, Level.ERROR, 1137)
VM_FAILED = EventKind("System", _CLUSTERING, Level.ERROR, 1069)
VM_STAYS_OFF = EventKind("Hyperferry", "Failover", Level.WARNING, 0)
VM_FAILOVER = EventKind(_CLUSTERING_LOG, _CLUSTERING, Level.INFORMATION, 1153)
VM_FAILBACK = EventKind(_CLUSTERING_LOG, _CLUSTERING, Level.INFORMATION, 1154)
VM_MOVING = EventKind(_CLUSTERING_LOG, _CLUSTERING, Level.INFORMATION, 1641)
MIGRATION_CHANGED = EventKind("Hyperferry", "Migration", Level.INFORMATION, 0)
OPTION_DOWNGRADED = EventKind("Hyperferry", "Migration", Level.WARNING, 0)
MIGRATION_BEGUN = EventKind(_MANAGEMENT_LOG, _MANAGEMENT, Level.INFORMATION, 20413)
MIGRATION_FAILED_AT_SOURCE = EventKind(_MANAGEMENT_LOG, _MANAGEMENT, Level.ERROR, 21024)
MIGRATION_FAILED = EventKind(_AVAILABILITY_LOG, _AVAILABILITY, Level.ERROR, 21502)
MIGRATION_PAUSE = EventKind(_MANAGEMENT_LOG, _MANAGEMENT, Level.INFORMATION, 20415)
MIGRATION_LONG_PAUSE = EventKind(_MANAGEMENT_LOG, _MANAGEMENT, Level.WARNING, 20417)
MIGRATION_ARRIVED = EventKind(_MANAGEMENT_LOG, _MANAGEMENT, Level.INFORMATION, 20418)
MIGRATION_SUCCEEDED = EventKind(_WORKER_LOG, _WORKER, Level.INFORMATION, 22507)
MIGRATION_BROWNOUT = EventKind(_WORKER_LOG, _WORKER, Level.INFORMATION, 22508)
MIGRATION_BLACKOUT = EventKind(_WORKER_LOG, _WORKER, Level.INFORMATION, 22509)
