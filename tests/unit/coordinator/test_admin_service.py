"""The admin API: what arrives is checked, the core is asked, and what it shows is answered."""

from collections.abc import Callable
from typing import Any, cast

import grpc.aio
import pytest

from ferry.v1 import admin_pb2, common_pb2
from ferry_cluster.inputs import (
    AdminRequest,
    CreateVm,
    DrainNode,
    EvictNode,
    PauseNode,
    ResumeNode,
    SetPolicy,
    SetVm,
)
from ferry_cluster.plans import DrainPlan, DrainView, HostRating, PlannedMove, StuckVm
from ferry_cluster.records import PolicyRecord
from ferry_cluster.state import ClusterSettings, ClusterState
from ferry_cluster.views import NodeView, VmView
from ferry_coordinator.admin_service import AdminService
from ferry_types.drains import Stuck
from ferry_types.eras import Era
from ferry_types.errors import ErrorCode, FerryError, not_found, refused
from ferry_types.limits import QUARANTINE_THRESHOLD_MAX, SPAN_S_MAX
from ferry_types.profiles import PROFILES
from ferry_types.roles import NO_RULES, Failback, Priority, RoleChanges, RoleRules
from ferry_types.vms import Capacity, NodeState, VmSpec, VmState
from ferry_types.workloads import Fill, FillSpec, resolve
from ferry_wire.conversion import to_proto

MIB = 2**20
SPEC = VmSpec("a", 16 * MIB, resolve("idle", 16 * MIB), FillSpec(Fill.ZERO))
RULES = RoleRules(possible_owners=("n1",), failback=Failback.NOW)
DRAIN = DrainView("n1", "active", "", "", ("a", "b"), ("b",))
CONTEXT = cast("grpc.aio.ServicerContext[Any, Any]", None)


def node_view(name: str, state: NodeState = NodeState.UP, drain: DrainView | None = None) -> NodeView:
    capacity = Capacity(8 * 2**30, 4, 2)
    return NodeView(
        name, state, "1", "u", ("b",), f"{name}:1", f"{name}:2", capacity, 0, "1", "", True, drain
    )


class FakeCluster:
    """What the core shows."""

    def __init__(self) -> None:
        self.settings = ClusterSettings("lab", Era.WS2016, PROFILES["fast"])
        self.state = ClusterState(policy=PolicyRecord(enforced_anti_affinity=True))

    def node_views(self) -> list[NodeView]:
        return [self.node_view("n1"), node_view("n2"), node_view("n3")]

    def node_view(self, name: str) -> NodeView:
        if name != "n1":
            raise FerryError(not_found(f"there is no node {name}"))
        return node_view(name, NodeState.DRAINING, DRAIN)

    def vm_views(self) -> list[VmView]:
        return [self.vm_view("a")]

    def vm_view(self, name: str) -> VmView:
        return VmView(SPEC, VmState.RUNNING, "n1", 1, "", "", "", "", RULES)

    def drain_plan(self, node: str, to: str) -> DrainPlan:
        against = refused("memory", f"{to or 'no host'} has no room")
        return DrainPlan(node, (PlannedMove("a", MIB, "n2", None),), (StuckVm("b", against),), 2.0)

    def host_ratings(self, vm: str) -> tuple[HostRating, ...]:
        return (HostRating("n2", 5, f"most room for {vm}", ""), HostRating("n3", 0, "is full", "memory"))


class FakeDriver:
    """Notes what the core is asked."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.asked: list[AdminRequest] = []

    async def ask(self, request: Callable[[int], AdminRequest]) -> str:
        self.asked.append(request(7))
        return "done"

    async def read(self, look: Callable[[Any], Any]) -> Any:
        return look(self.cluster)


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def service(driver: FakeDriver) -> AdminService:
    nobody: Any = None
    return AdminService(cast("Any", driver), nobody, nobody)


async def test_nodes_are_paused_drained_and_resumed(service: AdminService, driver: FakeDriver) -> None:
    answers = [
        await service.PauseNode(admin_pb2.NodeRequest(name="n1"), CONTEXT),
        await service.DrainNode(
            admin_pb2.DrainNodeRequest(name="n1", to="n2", within_s=600, stuck="stop"), CONTEXT
        ),
        await service.DrainNode(admin_pb2.DrainNodeRequest(name="n1", stuck="stay"), CONTEXT),
        await service.ResumeNode(admin_pb2.ResumeNodeRequest(name="n1", failback=True), CONTEXT),
        await service.EvictNode(admin_pb2.EvictNodeRequest(name="n1"), CONTEXT),
        await service.EvictNode(admin_pb2.EvictNodeRequest(name="n1", force=True), CONTEXT),
    ]
    assert driver.asked == [
        PauseNode(7, "n1"),
        DrainNode(7, "n1", "n2", 600.0, Stuck.STOP),
        DrainNode(7, "n1", "", None, Stuck.STAY),
        ResumeNode(7, "n1", failback=True),
        EvictNode(7, "n1"),
        EvictNode(7, "n1", force=True),
    ]
    for node in answers:
        assert (node.state, node.paused, node.drain.state) == ("draining", True, "active")
        assert (list(node.drain.taken), list(node.drain.remaining)) == (["a", "b"], ["b"])


async def test_a_node_without_a_drain_has_none(service: AdminService) -> None:
    answer = await service.ListNodes(admin_pb2.ListNodesRequest(), CONTEXT)
    assert [node.HasField("drain") for node in answer.nodes] == [True, False, False]


async def test_a_plan_and_ratings_change_nothing(service: AdminService, driver: FakeDriver) -> None:
    plan = await service.PlanDrain(admin_pb2.PlanDrainRequest(name="n1", to="n2"), CONTEXT)
    assert (plan.node, plan.estimated_s, plan.moves[0].HasField("estimated_s")) == ("n1", 2.0, False)
    assert (plan.stuck[0].refusal.rule, plan.stuck[0].refusal.message) == ("memory", "n2 has no room")
    rated = await service.RateHosts(admin_pb2.VmRequest(name="a"), CONTEXT)
    assert [(each.node, each.stars, each.rule) for each in rated.ratings] == [
        ("n2", 5, ""),
        ("n3", 0, "memory"),
    ]
    assert driver.asked == []


async def test_rules_are_set_and_created_with(service: AdminService, driver: FakeDriver) -> None:
    changes = RoleChanges(("priority", "possible_owners"), Priority.HIGH, RoleRules(possible_owners=("n1",)))
    request = admin_pb2.SetVmRequest(vm="a", changes=to_proto(changes, common_pb2.RoleChanges))
    vm = await service.SetVm(request, CONTEXT)
    assert (list(vm.rules.possible_owners), vm.rules.failback) == (["n1"], "now")
    spec = to_proto(SPEC, common_pb2.VmSpec)
    await service.CreateVm(
        admin_pb2.CreateVmRequest(spec=spec, rules=to_proto(RULES, common_pb2.RoleRules)), CONTEXT
    )
    await service.CreateVm(admin_pb2.CreateVmRequest(spec=spec, no_start=True), CONTEXT)
    assert driver.asked == [
        SetVm(7, "a", changes),
        CreateVm(7, SPEC, "", start=True, rules=RULES),
        CreateVm(7, SPEC, "", start=False, rules=NO_RULES),
    ]


async def test_the_cluster_is_shown_and_set(service: AdminService, driver: FakeDriver) -> None:
    shown = await service.ShowCluster(admin_pb2.ClusterQuery(), CONTEXT)
    assert (shown.name, shown.era, shown.profile, shown.beat_s, shown.lease_s) == (
        *("lab", "2016", "fast"),
        *(0.25, 2.0),
    )
    assert [(each.state, each.count) for each in shown.nodes] == [("draining", 1), ("up", 2)]
    assert [(each.state, each.count) for each in shown.vms] == [("running", 1)]
    assert (shown.policy.enforced_anti_affinity, shown.policy.quarantine_s) == (True, 7200.0)
    named = admin_pb2.PolicyChange(
        enforced_anti_affinity=False, quarantine_threshold=0, quarantine_period_s=60, quarantine_s=90
    )
    for change in (named, admin_pb2.PolicyChange()):
        assert await service.SetCluster(change, CONTEXT) == shown
    assert driver.asked == [
        SetPolicy(
            7, enforced_anti_affinity=False, quarantine_threshold=0, quarantine_period_s=60, quarantine_s=90
        ),
        SetPolicy(7),
    ]


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("PauseNode", admin_pb2.NodeRequest()),
        ("DrainNode", admin_pb2.DrainNodeRequest(name="a b", stuck="stay")),
        ("DrainNode", admin_pb2.DrainNodeRequest(name="n1", to="a b", stuck="stay")),
        ("DrainNode", admin_pb2.DrainNodeRequest(name="n1", stuck="vanish")),
        ("DrainNode", admin_pb2.DrainNodeRequest(name="n1", stuck="stay", within_s=0)),
        ("DrainNode", admin_pb2.DrainNodeRequest(name="n1", stuck="stay", within_s=float("nan"))),
        ("DrainNode", admin_pb2.DrainNodeRequest(name="n1", stuck="stay", within_s=SPAN_S_MAX + 1)),
        ("PlanDrain", admin_pb2.PlanDrainRequest(name="n1", to=" ")),
        ("ResumeNode", admin_pb2.ResumeNodeRequest()),
        ("EvictNode", admin_pb2.EvictNodeRequest(force=True)),
        ("RateHosts", admin_pb2.VmRequest(name="/")),
        ("SetVm", admin_pb2.SetVmRequest(vm="a")),
        ("SetCluster", admin_pb2.PolicyChange(quarantine_threshold=QUARANTINE_THRESHOLD_MAX + 1)),
        ("SetCluster", admin_pb2.PolicyChange(quarantine_period_s=-1)),
        ("SetCluster", admin_pb2.PolicyChange(quarantine_s=float("inf"))),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(str(value).split()),
)
async def test_what_is_malformed_never_reaches_the_core(
    service: AdminService, driver: FakeDriver, method: str, request_: Any
) -> None:
    with pytest.raises(FerryError) as raised:
        await getattr(service, method)(request_, CONTEXT)
    assert raised.value.refusal.code is ErrorCode.MALFORMED
    assert driver.asked == []
