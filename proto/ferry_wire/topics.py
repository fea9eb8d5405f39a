"""Topics of the bus: where watchers find what. Payloads are JSON.

All names in them have passed ``ferry_types.names.validate_name``, which admits none of the characters that
topics give a meaning (``/``, ``+``, ``#``, a leading ``$``). All but events and ARP announcements are
retained: the status of what exists, the telemetry of what runs, and the progress of the moves that
``migration list`` shows.
"""

ROOT = "ferry/v1"


def events(cluster: str, node: str = "") -> str:
    """The event log's entries as they happen: a node's, or those of the cluster as a whole."""
    return f"{ROOT}/{cluster}/events/{node or 'cluster'}"


def node_status(cluster: str, node: str) -> str:
    """A node, as the coordinator sees it: what ``node show`` prints."""
    return f"{ROOT}/{cluster}/nodes/{node}/status"


def node_telemetry(cluster: str, node: str) -> str:
    """A host's own figures."""
    return f"{ROOT}/{cluster}/nodes/{node}/telemetry"


def vm_state(cluster: str, vm: str) -> str:
    """A VM, as the coordinator sees it, and where it answers: what ``vm show`` prints."""
    return f"{ROOT}/{cluster}/vms/{vm}/state"


def vm_telemetry(cluster: str, vm: str) -> str:
    """A running guest's figures, from the host that runs it."""
    return f"{ROOT}/{cluster}/vms/{vm}/telemetry"


def vm_arp(cluster: str, vm: str) -> str:
    """ARP announcement: the guest has begun to run on a host, booted or arrived; published by that host.

    Not retained, as no network keeps one: several hosts speak of a VM in turn, and a broker would go on
    showing the one that reached it last, not the one that holds. Who comes later finds ``node``, ``epoch``,
    ``echo_address`` and ``mac`` in the VM's retained ``state``, which the coordinator alone publishes.

    Watchers compare epochs: an announcement may be late (its host could not reach the broker) or come twice,
    and one of an older epoch than is known already tells of a place that the VM has left.
    """
    return f"{ROOT}/{cluster}/vms/{vm}/arp"


def migration_progress(cluster: str, migration_id: str) -> str:
    """A move and how far it is: what ``migration watch`` prints."""
    return f"{ROOT}/{cluster}/migrations/{migration_id}/progress"


def process_status(cluster: str, process: str) -> str:
    """Whether a process is connected to the bus: online, or offline by its own word or its last will."""
    return f"{ROOT}/{cluster}/processes/{process}/status"
