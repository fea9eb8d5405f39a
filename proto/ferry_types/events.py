"""The event log's rows, with the Windows log, source, level and ID where one exists."""

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
_WORKER = "Microsoft-Windows-Hyper-V-Worker"
_WORKER_LOG = "Microsoft-Windows-Hyper-V-Worker-Admin"

NODE_UP = EventKind("Hyperferry", "Membership", Level.INFORMATION, 0)
NODE_EVICTED = EventKind("Hyperferry", "Membership", Level.INFORMATION, 0)
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
VM_FAILOVER = EventKind("Hyperferry", "Failover", Level.WARNING, 0)
MIGRATION_CHANGED = EventKind("Hyperferry", "Migration", Level.INFORMATION, 0)
MIGRATION_FAILED = EventKind("Hyperferry", "Migration", Level.ERROR, 0)
MIGRATION_SUCCEEDED = EventKind(_WORKER_LOG, _WORKER, Level.INFORMATION, 22507)
MIGRATION_BROWNOUT = EventKind(_WORKER_LOG, _WORKER, Level.INFORMATION, 22508)
MIGRATION_BLACKOUT = EventKind(_WORKER_LOG, _WORKER, Level.INFORMATION, 22509)
