"""Resiliency of era 2016: a silent node is isolated before it is lost, and who comes and goes is kept out.

::

    up --silent for five beats--> isolated --renewal--> up
                                      \\--silent for the resiliency period L--> down
    left three times within an hour --> quarantined for two hours, or until it is resumed

An isolated node's VMs run on, unmonitored: its lease is as long as the resiliency period. A quarantined node
that is up gives its VMs away; one that is down waits until it may join.
"""

from dataclasses import replace
from datetime import UTC, datetime

from ferry_cluster import drain
from ferry_cluster.records import DrainRecord, NodeRecord
from ferry_cluster.state import Attendance
from ferry_cluster.turn import Turn
from ferry_types.drains import DrainState, Stuck
from ferry_types.events import (
    NODE_BACK,
    NODE_ISOLATED,
    NODE_PAUSED,
    NODE_QUARANTINED,
    VMS_UNMONITORED,
)
from ferry_types.units import format_span

ISOLATED_AFTER_BEATS = 5
"""Heartbeats missed: the ``SameSubnetThreshold`` of the profile ``windows``."""

QUARANTINED_SHARE = 5
"""Of so many nodes one is quarantined at a time, at least one: Windows Server 2016 allows 20 %."""

_VMS_NAMED = 10


def isolate_silent(turn: Turn) -> None:
    """Isolate whoever is silent, but not lost yet."""
    settings = turn.settings
    if not settings.rules.resiliency:
        return
    patience_s = ISOLATED_AFTER_BEATS * settings.timing.beat_s
    for name, present in list(turn.state.attendance.items()):
        if present.lease_until is None or present.isolated:
            continue
        silent_since = max(present.lease_until, turn.state.judge_after) - settings.timing.coordinator_span_s
        if turn.now - silent_since > patience_s:
            turn.attend(name, replace(present, isolated=True))
            _touch_vms(turn, name)
            turn.log(
                NODE_ISOLATED, f"node {name} is isolated: silent for {turn.now - silent_since:.1f} s", name
            )
            vms = [vm.spec.name for vm in turn.state.owned_by(name)]
            if vms:
                more = f" and {len(vms) - _VMS_NAMED} more" if len(vms) > _VMS_NAMED else ""
                turn.log(
                    VMS_UNMONITORED, f"not monitored on {name}: {', '.join(vms[:_VMS_NAMED])}{more}", name
                )
            count_loss(turn, name)


def end_isolation(turn: Turn, name: str, present: Attendance) -> Attendance:
    """The node has been heard again."""
    node = turn.state.nodes.get(name)
    if node is not None and node.up and node.away:
        turn.write(replace(node, away=False))
    if not present.isolated:
        return present
    _touch_vms(turn, name)
    turn.log(NODE_BACK, f"node {name} is not isolated any more", name)
    return replace(present, isolated=False)


def _touch_vms(turn: Turn, node: str) -> None:
    for vm in turn.state.owned_by(node):
        turn.touch_vm(vm.spec.name)


def count_loss(turn: Turn, name: str) -> None:
    """The node has left without being asked to; too often is too often. One departure counts once."""
    state, node = turn.state, turn.state.nodes[name]
    policy, wall_us = state.policy, state.wall_us
    if not turn.settings.rules.resiliency or not policy.quarantine_threshold or node.away:
        return
    since_us = wall_us - round(policy.quarantine_period_s * 1e6)
    losses_us = (*(at_us for at_us in node.losses_us if since_us < at_us <= wall_us), wall_us)
    others = sum(state.is_quarantined(other) for other in state.nodes.values())
    is_allowed = others < max(1, len(state.nodes) // QUARANTINED_SHARE)
    if len(losses_us) < policy.quarantine_threshold or not is_allowed:
        turn.write(replace(node, losses_us=losses_us, away=True))
        return
    until_us = wall_us + round(policy.quarantine_s * 1e6)
    turn.write(replace(node, losses_us=(), quarantined_until_us=until_us, away=True))
    times = "once" if len(losses_us) == 1 else f"{len(losses_us)} times"
    until = datetime.fromtimestamp(until_us / 1e6, UTC).isoformat(timespec="seconds")
    span = format_span(policy.quarantine_period_s)
    turn.log(
        NODE_QUARANTINED, f"node {name} is quarantined until {until}: it left {times} within {span}", name
    )
    drain.end_queued_to(turn, name, f"node {name} is quarantined")


def end_quarantines(turn: Turn) -> None:
    """Note the end of each, so that a clock that is set back does not bring it back."""
    for node in list(turn.state.nodes.values()):
        if 0 < node.quarantined_until_us <= turn.state.wall_us:
            turn.write(replace(node, quarantined_until_us=0))
            turn.log(NODE_PAUSED, f"the quarantine of node {node.name} is over", node.name)


def empty_quarantined(turn: Turn) -> None:
    """A quarantined node that has come back gives its VMs away; its drain ends with its quarantine."""
    state = turn.state
    for known in list(state.drains.values()):
        node = state.nodes[known.node]
        if known.state is not DrainState.ACTIVE and not node.paused and not state.is_quarantined(node):
            turn.delete(known)
    for node in list(state.nodes.values()):
        if not state.is_quarantined(node) or not state.is_live(node.name, turn.now):
            continue
        done = state.drains.get(node.name)
        if done is not None and done.state is not DrainState.COMPLETED:
            continue
        vms = tuple(vm.spec.name for vm in state.owned_by(node.name))
        if vms and drain.drain_problem(state, turn.now, node.name, "") is None:
            drain.begin(turn, DrainRecord(node.name, "", 0, Stuck.STAY, taken=vms))


def waits_for_quarantine(turn: Turn, node: NodeRecord | None) -> bool:
    """Whether a node that would join is kept out."""
    return node is not None and not node.up and turn.state.is_quarantined(node)
