"""What people get: rows and lines, pure functions of what the coordinator answers."""

from collections.abc import Iterable, Sequence

from ferry.v1 import admin_pb2, common_pb2, events_pb2
from ferry_cli.views import rfc3339
from ferry_cluster.plans import STARS_MAX
from ferry_coordinator.documents import processor_word
from ferry_types.drains import Stuck
from ferry_types.limits import PAGE_SIZE
from ferry_types.mac import mac_address
from ferry_types.migrations import BlackoutParts
from ferry_types.roles import NO_RULES, Failback, RoleRules
from ferry_types.units import format_bit_rate, format_duration, format_rate, format_size, format_span
from ferry_wire.conversion import from_proto

UNKNOWN = "-"

Row = tuple[str, ...]

NODE_COLUMNS = ("NAME", "STATE", "VMS", "MEMORY USED", "MOVES", "ADDRESS", "INCARNATION")
NETWORK_COLUMNS = ("NAME", "ROLE", "METRIC", "STATE", "MTU", "SUBNET", "FIRST CHOICE OF", "NICS", "REASON")
NIC_COLUMNS = ("NODE", "NAME", "ADDRESS", "RATE", "LATENCY", "MTU", "RDMA", "TEAM", "STATE", "REASON")
VM_COLUMNS = ("NAME", "STATE", "NODE", "EPOCH", "MEMORY", "WORKLOAD", "PRIORITY", "REASON")
RATING_COLUMNS = ("NODE", "STARS", "REASON")
PLANNED_MOVE_COLUMNS = ("VM", "MEMORY", "TARGET", "ESTIMATE")
VOTE_COLUMNS = ("NAME", "KIND", "STATE", "VOTE")
MIGRATION_COLUMNS = ("ID", "VM", "FROM", "TO", "STATE", "PASSES", "BROWN-OUT", "BLACK-OUT", "TOTAL", "REASON")


def node_rows(nodes: Iterable[admin_pb2.Node]) -> list[Row]:
    """``node list``."""
    return [
        (
            node.name,
            node.state,
            ", ".join(node.vms) or UNKNOWN,
            _share(node),
            str(node.capacity.migration_limit),
            node.address or UNKNOWN,
            node.incarnation or UNKNOWN,
        )
        for node in nodes
    ]


def node_pairs(node: admin_pb2.Node) -> list[tuple[str, str]]:
    """``node show``."""
    pairs = [
        ("name", node.name),
        ("state", node.state),
        ("VMs", ", ".join(node.vms) or UNKNOWN),
        ("memory used", _share(node)),
        ("scale", str(node.capacity.scale)),
        ("processors", str(node.capacity.processors)),
        ("processor", _processor(node)),
        ("switches", ", ".join(node.capacity.switches) or UNKNOWN),
        ("domain", node.capacity.domain or UNKNOWN),
        ("level", node.capacity.level or UNKNOWN),
        ("simultaneous moves", str(node.capacity.migration_limit)),
        ("moves by", node.capacity.migration_option or UNKNOWN),
        ("address", node.address or UNKNOWN),
        ("echo address", node.echo_address or UNKNOWN),
        ("UUID", node.uuid or UNKNOWN),
        ("incarnation", node.incarnation or UNKNOWN),
        ("version", node.version or UNKNOWN),
        *((f"traffic of {policy.traffic_class}", _qos(policy)) for policy in node.capacity.qos),
    ]
    if node.paused:
        pairs.append(("paused", "it gets no VM"))
    if node.HasField("drain"):
        pairs.append(("drain", f"{node.drain.state}: {drain_words(node.drain)}"))
    return [*pairs, ("reason", node.reason)] if node.reason else pairs


def _qos(policy: common_pb2.QosPolicy) -> str:
    limit, weight = policy.limit_bytes_per_s, policy.weight
    words = [f"at most {limit * 8 / 1e9:g} Gbit/s of each NIC"] if limit else []
    return ", ".join([*words, f"weight {weight}"] if weight else words)


def network_rows(networks: Iterable[admin_pb2.NetworkStatus]) -> list[Row]:
    """``network list``."""
    return [
        (
            network.name,
            network.role,
            _metric(network),
            network.state,
            str(network.mtu or UNKNOWN),
            network.subnet or UNKNOWN,
            ", ".join(network.carries) or UNKNOWN,
            str(len(network.nics)),
            network.reason or UNKNOWN,
        )
        for network in networks
    ]


def network_pairs(network: admin_pb2.NetworkStatus) -> list[tuple[str, str]]:
    """``network show``, above the NICs."""
    pairs = [
        ("name", network.name),
        ("role", network.role),
        ("metric", _metric(network)),
        ("state", network.state),
        ("MTU", str(network.mtu or UNKNOWN)),
        ("subnet", network.subnet or UNKNOWN),
        ("first choice of", ", ".join(network.carries) or UNKNOWN),
    ]
    return [*pairs, ("reason", network.reason)] if network.reason else pairs


def nic_rows(nics: Iterable[admin_pb2.NicStatus]) -> list[Row]:
    """``network show``: the NICs."""
    return [
        (
            status.node,
            status.nic.name,
            status.nic.address,
            format_bit_rate(status.nic.rate_bytes_per_s) if status.nic.rate_bytes_per_s else UNKNOWN,
            f"{status.nic.latency_s * 1e6:g} us" if status.nic.latency_s else UNKNOWN,
            str(status.nic.mtu),
            "yes" if status.nic.rdma else "no",
            status.nic.team or UNKNOWN,
            status.state,
            status.reason or UNKNOWN,
        )
        for status in nics
    ]


def _metric(network: admin_pb2.NetworkStatus) -> str:
    return f"{network.metric} (automatic)" if network.auto_metric else str(network.metric)


def drain_words(drain: admin_pb2.Drain) -> str:
    """How far a drain is."""
    known = {*drain.taken, *drain.remaining}
    words = f"{len(known) - len(drain.remaining)} of {len(known)} VMs have left" if known else "it had no VM"
    if drain.remaining:
        words += f", on it: {', '.join(drain.remaining)}"
    return f"{words}; {drain.reason}" if drain.reason else words


def planned_move_rows(moves: Iterable[admin_pb2.PlannedMove]) -> list[Row]:
    """``node drain --dry-run``: the moves."""
    return [
        (
            move.vm,
            format_size(move.memory_bytes),
            move.target,
            format_duration(move.estimated_s) if move.HasField("estimated_s") else UNKNOWN,
        )
        for move in moves
    ]


def drain_plan_lines(plan: admin_pb2.DrainPlan, stuck: Stuck) -> list[str]:
    """``node drain --dry-run``, below the moves: who has nowhere to go, and how long it takes."""
    fate = "would stay" if stuck is Stuck.STAY else "would be turned off"
    lines = [
        f"{each.vm} {fate}: {each.refusal.message}" + (f" ({each.refusal.rule})" if each.refusal.rule else "")
        for each in plan.stuck
    ]
    if plan.HasField("estimated_s"):
        lines.append(f"about {format_duration(plan.estimated_s)} in all")
    return lines or ([] if plan.moves else [f"{plan.node} has no VM"])


def rating_rows(ratings: Iterable[admin_pb2.HostRating]) -> list[Row]:
    """``vm migrate --dry-run``: how well each host would suit."""
    return [
        (
            rating.node,
            "★" * rating.stars + "☆" * (STARS_MAX - rating.stars),
            (rating.reason or UNKNOWN) + (f" ({rating.rule})" if rating.rule else ""),
        )
        for rating in ratings
    ]


def cluster_pairs(cluster: admin_pb2.Cluster) -> list[tuple[str, str]]:
    """``cluster show``."""
    return [
        ("name", cluster.name),
        ("era", cluster.era),
        ("profile", cluster.profile),
        ("beat", format_duration(cluster.beat_s)),
        ("lease", format_duration(cluster.lease_s)),
        ("scale", str(cluster.scale) if cluster.HasField("scale") else UNKNOWN),
        ("nodes", _counts(cluster.nodes)),
        ("VMs", _counts(cluster.vms)),
        *policy_pairs(cluster.policy),
    ]


def policy_pairs(policy: admin_pb2.Policy) -> list[tuple[str, str]]:
    """What an admin has chosen for the whole cluster."""
    losses = policy.quarantine_threshold
    quarantine = (
        f"for {format_span(policy.quarantine_s)} after {losses} {'loss' if losses == 1 else 'losses'} "
        f"within {format_span(policy.quarantine_period_s)}"
    )
    return [
        ("anti-affinity", "enforced" if policy.enforced_anti_affinity else "preferred"),
        ("quarantine", quarantine if losses else "never"),
    ]


def quorum_pairs(quorum: admin_pb2.Quorum) -> list[tuple[str, str]]:
    """``quorum show``, above the votes."""
    count = sum(vote.has_vote for vote in quorum.votes)
    pairs = [
        ("mode", quorum.mode),
        ("votes", "dynamic" if quorum.dynamic else "static"),
        ("witness", quorum.witness or UNKNOWN),
        ("majority", f"{quorum.majority} of {count}"),
        ("vote set", str(quorum.number)),
    ]
    if quorum.forced:
        pairs.append(("forced", "an admin has overridden quorum"))
    if quorum.under_judgement:
        pairs.append(("under judgement", ", ".join(quorum.under_judgement)))
    return [*pairs, ("reason", quorum.reason)] if quorum.reason else pairs


def vote_rows(votes: Iterable[admin_pb2.Vote]) -> list[Row]:
    """``quorum show``: who has a vote."""
    return [(vote.name, vote.kind, vote.state or UNKNOWN, "yes" if vote.has_vote else "no") for vote in votes]


def quorum_line(quorum: admin_pb2.Quorum) -> str:
    """``quorum set``: what is set now."""
    where = f" at {quorum.witness}" if quorum.witness else ""
    return f"quorum: {quorum.mode}{where}, {'dynamic' if quorum.dynamic else 'static'} votes"


def vm_rows(vms: Iterable[admin_pb2.Vm]) -> list[Row]:
    """``vm list``."""
    return [
        (
            vm.spec.name,
            vm.state,
            vm.node or UNKNOWN,
            str(vm.epoch),
            format_size(vm.spec.memory_bytes),
            vm.spec.workload.profile,
            vm.spec.priority,
            vm.reason or UNKNOWN,
        )
        for vm in vms
    ]


def vm_pairs(vm: admin_pb2.Vm) -> list[tuple[str, str]]:
    """``vm show``."""
    workload, fill = vm.spec.workload, vm.spec.fill
    pairs = [
        ("name", vm.spec.name),
        ("state", vm.state),
        ("node", vm.node or UNKNOWN),
        ("epoch", str(vm.epoch)),
        ("memory", format_size(vm.spec.memory_bytes)),
        ("filled from", fill.path if fill.kind == "file" else fill.kind),
        ("workload", workload.profile),
        ("  writes", format_rate(workload.write_rate_bytes_per_s)),
        ("  reads", format_rate(workload.read_rate_bytes_per_s)),
        ("  working set", format_size(workload.working_set_bytes)),
        ("  access", workload.access),
        ("  compressibility", f"{workload.compressibility:.2f}"),
        ("priority", vm.spec.priority),
        *rules_pairs(vm),
        ("MAC address", mac_address(vm.spec.name)),
        ("echo address", vm.echo_address or UNKNOWN),
        ("migration", vm.migration_id or UNKNOWN),
    ]
    return [*pairs, ("reason", vm.reason)] if vm.reason else pairs


def rules_pairs(vm: admin_pb2.Vm) -> list[tuple[str, str]]:
    """What the cluster heeds for a VM, as far as somebody has said so."""
    if not vm.HasField("rules"):
        return []
    rules = from_proto(vm.rules, RoleRules)
    pairs = [
        ("possible owners", ", ".join(rules.possible_owners), rules.possible_owners),
        ("preferred owners", ", ".join(rules.preferred_owners), rules.preferred_owners),
        ("anti-affinity", ", ".join(rules.anti_affinity), rules.anti_affinity),
        ("failback", _failback(rules), rules.failback is not Failback.OFF),
        ("failover threshold", str(rules.failover_threshold), rules.failover_threshold),
        (
            "failover period",
            format_span(rules.failover_period_s),
            rules.failover_period_s != NO_RULES.failover_period_s,
        ),
        ("start delay", format_span(rules.start_delay_s), rules.start_delay_s),
        ("switch", rules.switch, rules.switch != NO_RULES.switch),
        ("processor compatibility", "yes", rules.processor_compatibility),
    ]
    return [(name, value) for name, value, is_said in pairs if is_said]


def _failback(rules: RoleRules) -> str:
    if rules.failback is Failback.WINDOW:
        return f"from {rules.failback_from_hour}:00 to {rules.failback_until_hour}:00 UTC"
    return rules.failback


def vm_line(vm: admin_pb2.Vm) -> str:
    """``vm set``: what is set now."""
    pairs = [("priority", vm.spec.priority), *rules_pairs(vm)]
    return f"{vm.spec.name}: {'; '.join(f'{name} {value}' for name, value in pairs)}"


def migration_rows(records: Iterable[admin_pb2.MigrationRecord]) -> list[Row]:
    """``migration list``."""
    return [
        (
            record.id or UNKNOWN,
            record.vm,
            record.source,
            record.target,
            record.state,
            str(len(record.figures.passes)),
            brownout(record),
            blackout(record),
            format_duration(record.total_s) if record.total_s else UNKNOWN,
            record.reason or UNKNOWN,
        )
        for record in records
    ]


def migration_lines(record: admin_pb2.MigrationRecord) -> list[str]:
    """``migration show``: what the move did, pass by pass, and why."""
    figures = record.figures
    lines = [f"{record.id or 'plan'}: {record.vm} from {record.source} to {record.target}, {record.state}"]
    if record.network:
        lines.append(f"its pages go over network {record.network}")
    lines += [pass_line(figure) for figure in figures.passes]
    if figures.HasField("final"):
        lines.append(pass_line(figures.final))
        lines.append(f"brown-out {brownout(record)}, black-out {blackout(record)}")
    if figures.HasField("blackout"):
        lines.append(blackout_line(from_proto(figures.blackout, BlackoutParts)))
    lines += estimate_lines(record)
    if record.total_s:
        rate = format_rate(record.memory_bytes / record.total_s)
        memory, sent = format_size(record.memory_bytes), format_size(figures.bytes_sent)
        lines.append(f"{memory} of memory in {format_duration(record.total_s)} ({rate}), {sent} sent")
    if figures.compression:
        lines.append(figures.compression)
    if figures.HasField("verified"):
        lines.append(
            f"memory on both sides {'was equal' if figures.verified else 'DIFFERED'} at the hand-off"
        )
    lines.append(record.option_reason or f"by {record.options.option}")
    if record.reason:
        lines.append(record.reason)
    return lines


def pass_line(figures: common_pb2.PassFigures) -> str:
    """One pass in words."""
    sent = format_size(figures.pages_sent * PAGE_SIZE)
    if figures.compressed_pages:
        share = figures.compressed_pages / figures.pages_sent
        sent += f", {share:.0%} compressed to {format_size(figures.compressed_bytes)}"
    if figures.index == 0:
        return (
            f"  pause: the last {figures.pages_sent} pages ({sent}) in {format_duration(figures.duration_s)}"
        )
    slowed = f", the guest slowed by {figures.throttle_percent} %" if figures.throttle_percent else ""
    zero = f" and {figures.zero_pages} zero pages not sent" if figures.zero_pages else ""
    return (
        f"  pass {figures.index}: {figures.pages_sent} pages ({sent}){zero} in "
        f"{format_duration(figures.duration_s)}; {figures.dirty_pages_after} dirty afterwards{slowed}"
    )


def estimate_lines(record: admin_pb2.MigrationRecord) -> list[str]:
    """What a move was expected to take, beside what it has taken."""
    if not record.HasField("estimate"):
        return [f"no estimate: {record.estimate_reason}"] if record.estimate_reason else []
    expected = record.estimate
    passes = "1 pass" if expected.passes == 1 else f"{expected.passes} passes"
    has_blackout = expected.HasField("blackout_s")
    pause = f"black-out {format_duration(expected.blackout_s)}" if has_blackout else "given up"
    return [
        f"estimate: {passes}, brown-out {format_duration(expected.brownout_s)}, {pause}, "
        f"{format_size(expected.bytes_sent)} sent",
        f"  at {format_rate(expected.rate_bytes_per_s)} on the wire and "
        f"{format_rate(expected.write_bytes_per_s)} written by the guest: {expected.explanation}",
    ]


def blackout_line(parts: BlackoutParts) -> str:
    """Where the black-out's time went."""
    durations = {
        "last pages": parts.last_pages_s,
        "ready": parts.ready_s,
        "commit": parts.commit_s,
        "resume": parts.resume_s,
    }
    return "  of it " + ", ".join(f"{name} {format_duration(spent_s)}" for name, spent_s in durations.items())


def brownout(record: admin_pb2.MigrationRecord) -> str:
    """First page sent to pause."""
    return format_duration(record.figures.brownout_s) if record.figures.HasField("final") else UNKNOWN


def blackout(record: admin_pb2.MigrationRecord) -> str:
    """Last quantum on the source to first on the target."""
    figures = record.figures
    return format_duration(figures.blackout_s) if figures.HasField("blackout_s") else UNKNOWN


def event_line(event: events_pb2.Event) -> str:
    """One line of the event log."""
    number = str(event.event_id or UNKNOWN)
    return f"{rfc3339(event.time_us)}  {event.level:<11}  {number:>5}  {event.message}"


def columns_of(rows: Sequence[Row], columns: Row) -> tuple[Row, list[Row]]:
    """The columns in which some row has something to say."""
    kept = [i for i, _ in enumerate(columns) if not rows or any(row[i] != UNKNOWN for row in rows)]
    return tuple(columns[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def _counts(counts: Iterable[admin_pb2.StateCount]) -> str:
    return ", ".join(f"{counted.count} {counted.state}" for counted in counts) or "none"


def _processor(node: admin_pb2.Node) -> str:
    capacity = node.capacity
    return processor_word(capacity.processor) if capacity.HasField("processor") else UNKNOWN


def _share(node: admin_pb2.Node) -> str:
    return f"{format_size(node.memory_used_bytes)} of {format_size(node.capacity.memory_bytes)}"
