"""What admins choose for VMs as roles, and for the cluster: checked as a whole, and kept.

A rule that names what does not exist, or that contradicts another, is refused, and nothing changes.
"""

from dataclasses import fields, replace

from ferry_cluster import moves, networks
from ferry_cluster.inputs import SetPolicy, SetVm
from ferry_cluster.records import PolicyRecord, VmRecord
from ferry_cluster.refusals import no_vm
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_cluster.turn import Turn
from ferry_types.eras import Era
from ferry_types.errors import Refusal, refused
from ferry_types.events import POLICY_CHANGED, VM_CHANGED
from ferry_types.migrations import MigrationState
from ferry_types.roles import NO_RULES, PRIORITY, Failback, RoleRules


def rules_problem(state: ClusterState, vm: VmRecord, former: RoleRules = NO_RULES) -> Refusal | None:
    """What is against these rules of a VM in this cluster, or None. ``former``: those that it has had."""
    rules, name = vm.rules, vm.spec.name
    for rule, owners in (
        ("possible owners", rules.possible_owners),
        ("preferred owners", rules.preferred_owners),
    ):
        unknown = [owner for owner in owners if owner not in state.nodes]
        if unknown:
            what = f"there is no node {unknown[0]} that could own {name}"
            return refused(rule, what, "ferry node list shows those that exist")
    if rules.possible_owners:
        for owner in rules.preferred_owners:
            if owner not in rules.possible_owners:
                what = f"{name} is to prefer {owner}, which is not one of its possible owners"
                return refused("preferred owners", what, "name it among the possible owners, too")
    if rules.failback is not Failback.OFF and not rules.preferred_owners:
        what = f"{name} has no preferred owner to go back to"
        return refused("failback", what, f"ferry vm set {name} --preferred-owners")
    if state.nodes and rules.switch != former.switch and not _has_switch(state, rules):
        what = f"no node that may own {name} has a virtual switch {rules.switch}"
        return refused("virtual switch", what, "ferry node show NODE tells which it has")
    if state.policy.enforced_anti_affinity and rules.anti_affinity != former.anti_affinity:
        others = [other for other in state.vms.values() if other.spec.name != name]
        return _class_problem(state, [*others, vm], rules.anti_affinity)
    return None


def _has_switch(state: ClusterState, rules: RoleRules) -> bool:
    owners = rules.possible_owners or tuple(state.nodes)
    return any(rules.switch in state.nodes[owner].capacity.switches for owner in owners)


def _class_problem(state: ClusterState, vms: list[VmRecord], classes: tuple[str, ...]) -> Refusal | None:
    for one in classes:
        count = sum(one in vm.rules.anti_affinity for vm in vms)
        if count > len(state.nodes):
            what = f"{count} VMs of anti-affinity class {one} cannot be on {len(state.nodes)} nodes"
            hint = "add a node, or do not enforce it: ferry cluster set --no-enforced-anti-affinity"
            return refused("anti-affinity", what, hint)
    return None


def vm_limit_problem(turn: Turn) -> Refusal | None:
    """Whether the cluster has as many VMs as its era allows."""
    rules = turn.settings.rules
    limit = rules.vms_per_pair_max if len(turn.state.nodes) <= 2 else rules.vms_per_cluster_max
    if len(turn.state.vms) < limit:
        return None
    what = f"the cluster has {limit} VMs, as many as {len(turn.state.nodes)} nodes of era "
    return refused("vms per cluster", f"{what}{turn.settings.era} take", "remove one, or use another cluster")


def start_problem(settings: ClusterSettings, state: ClusterState) -> Refusal | None:
    """Why this store's cluster cannot be led with these settings, or None.

    Hosts and voters may hold leases and promises of the last reign, as long as a node is up.
    """
    former = state.policy
    if former.era and settings.era.is_before(Era(former.era)):
        what = f"the cluster is of era {former.era}, and a functional level never goes back"
        return refused("functional level", what, f"start it with --era {former.era}")
    up = [node.name for node in state.nodes.values() if node.up]
    if up and settings.timing.lease_s < former.lease_s:
        spans = f"{former.lease_s:g} s, longer than {settings.timing.lease_s:g} s"
        what = f"{', '.join(up)} may hold leases of {spans}"
        hint = (
            "start it as before, stop the agents and wait until ferry node list shows all of them down; or "
        )
        hint += "begin with a new data directory (--dir)"
        return refused("lease", what, hint)
    return _era_problem(settings, state)


def _era_problem(settings: ClusterSettings, state: ClusterState) -> Refusal | None:
    for node in state.nodes.values():
        if (problem := level_problem(settings, node.name, node.capacity.level)) is not None:
            return problem
    for what, count, limit in (
        ("nodes", len(state.nodes), settings.rules.nodes_max),
        ("VMs", len(state.vms), settings.rules.vms_per_cluster_max),
    ):
        if count > limit:
            words = f"the cluster has {count} {what}, and era {settings.era} allows {limit}"
            return refused("era", words, "choose a later era: --era")
    return networks.start_problem(settings, state)


def level_problem(settings: ClusterSettings, node: str, level: str) -> Refusal | None:
    """Why a node that plays this release cannot join, or None. An empty level is the cluster's."""
    if level and level not in tuple(Era):
        return refused("functional level", f"node {node} plays {level}, which this release does not know")
    if level and Era(level).is_before(settings.era):
        what = f"node {node} plays Windows Server {level}, and the cluster is of era {settings.era}"
        return refused("functional level", what, "a node must be of the cluster's era or a later one")
    return None


def on_set_vm(turn: Turn, event: SetVm) -> None:
    """Change a VM's rules; answered with its name. It stays where it is."""
    vm = turn.state.vms.get(event.vm)
    if vm is None:
        turn.reply(event.request, no_vm(event.vm))
        return
    changed = replace(vm, rules=event.changes.of_rules(vm.rules))
    if PRIORITY in event.changes.fields:
        changed = replace(changed, spec=replace(vm.spec, priority=event.changes.priority))
    problem = rules_problem(turn.state, changed, vm.rules)
    compatibility = changed.rules.processor_compatibility
    if compatibility != vm.rules.processor_compatibility and turn.state.owners[event.vm].node is not None:
        what = f"{event.vm} is on: its guest has seen the processor already"
        problem = refused("vm off", what, f"stop it first: ferry vm stop {event.vm}")
    if problem is not None:
        turn.reply(event.request, problem)
        return
    if changed.rules.failover_threshold != vm.rules.failover_threshold:
        changed = replace(changed, given_up=False)
    if changed != vm:
        turn.write(changed)
        _end_queued_move(turn, changed)
        turn.log(VM_CHANGED, f"{event.vm}: changed were {', '.join(event.changes.fields)}", vm=event.vm)
    turn.reply(event.request, event.vm)


def _end_queued_move(turn: Turn, vm: VmRecord) -> None:
    """A move that still waits does not go where the VM may not be any more."""
    move, owners = turn.state.migration_of(vm.spec.name), vm.rules.possible_owners
    if move is not None and move.state is MigrationState.QUEUED and owners and move.target not in owners:
        reason = f"{move.target} is not a possible owner of {move.vm} any more"
        moves.end(turn, move, MigrationState.FAILED, reason)


def on_set_policy(turn: Turn, event: SetPolicy) -> None:
    """Change what holds for the whole cluster; answered with its name."""
    present = turn.state.policy
    chosen = [field.name for field in fields(event) if field.name != "request"]
    given = {name: getattr(event, name) for name in chosen if getattr(event, name) is not None}
    policy = replace(present, **given)
    problem = _policy_problem(turn, policy)
    if problem is not None:
        turn.reply(event.request, problem)
        return
    if policy != present:
        turn.write(policy)
        turn.log(POLICY_CHANGED, f"cluster settings were changed: {', '.join(given)}")
    turn.reply(event.request, turn.settings.cluster)


def _policy_problem(turn: Turn, policy: PolicyRecord) -> Refusal | None:
    if policy.quarantine_threshold < 0 or min(policy.quarantine_period_s, policy.quarantine_s) <= 0:
        return refused("quarantine", "a threshold is not negative, and periods are positive")
    present = turn.state.policy
    quarantine = (present.quarantine_threshold, present.quarantine_period_s, present.quarantine_s)
    changes = quarantine != (policy.quarantine_threshold, policy.quarantine_period_s, policy.quarantine_s)
    if changes and not turn.settings.rules.resiliency:
        what = f"a cluster of era {turn.settings.era} quarantines no node"
        return refused("era", what, "quarantine is there from era 2016 on")
    if policy.enforced_anti_affinity:
        vms = list(turn.state.vms.values())
        classes = tuple(sorted({one for vm in vms for one in vm.rules.anti_affinity}))
        return _class_problem(turn.state, vms, classes)
    return None


def only_owner_problem(state: ClusterState, node: str) -> Refusal | None:
    """Whether a VM may run on this node alone, or None."""
    for vm in state.vms.values():
        if vm.rules.possible_owners == (node,):
            what = f"{node} is the only possible owner of {vm.spec.name}"
            hint = f"name another one first: ferry vm set {vm.spec.name} --possible-owners"
            return refused("possible owners", what, hint)
    return None


def forget_owner(turn: Turn, node: str) -> None:
    """Take a node that leaves the cluster out of every VM's rules."""
    for vm in list(turn.state.vms.values()):
        rules = vm.rules
        if node in rules.possible_owners or node in rules.preferred_owners:
            possible = tuple(owner for owner in rules.possible_owners if owner != node)
            preferred = tuple(owner for owner in rules.preferred_owners if owner != node)
            failback = rules.failback if preferred else Failback.OFF
            kept = replace(rules, possible_owners=possible, preferred_owners=preferred, failback=failback)
            turn.write(replace(vm, rules=kept))
