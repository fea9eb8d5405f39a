"""What a step asks of a coordinator that is a process, as the commands of ``ferry`` do: one line a step."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from ferry.v1 import admin_pb2, common_pb2
from ferry.v1.admin_pb2_grpc import AdminStub
from ferry_cli.admin import BOOT_S, LOOK_S, find_vm
from ferry_sim.scenarios import steps
from ferry_sim.scenarios.requests import list_changes
from ferry_types.errors import FerryError, not_found
from ferry_types.roles import RoleChanges, RoleRules
from ferry_wire.conversion import from_proto, to_proto


async def put(admin: AdminStub, action: steps.Request, witness: str) -> None:
    """Put a step's requests, one after the other. ``witness``: where it listens.

    Raises FerryError, or AioRpcError, if one is refused.
    """
    if isinstance(action, steps.SetQuorum):
        address = None if action.witness is None else witness if action.witness else ""
        change = admin_pb2.QuorumChange(witness=address, dynamic=action.dynamic)
        await admin.SetQuorum(change, timeout=LOOK_S)
        return
    await _REQUESTS[type(action)](admin, action)


async def _create(admin: AdminStub, action: steps.CreateVm) -> None:
    request = admin_pb2.CreateVmRequest(
        spec=to_proto(action.spec, common_pb2.VmSpec),
        node=action.node,
        no_start=not action.start,
        rules=to_proto(action.rules, common_pb2.RoleRules),
    )
    await admin.CreateVm(request, timeout=BOOT_S)


async def _migrate(admin: AdminStub, action: steps.MigrateVm) -> None:
    options = to_proto(action.options, common_pb2.MigrationOptions)
    request = admin_pb2.MigrateVmRequest(vm=action.vm, to=action.to, options=options)
    await admin.MigrateVm(request, timeout=LOOK_S)


async def _cancel(admin: AdminStub, action: steps.CancelMove) -> None:
    vm = await find_vm(admin, action.vm)
    if not vm.migration_id:
        raise FerryError(not_found(f"{action.vm} does not move"))
    await admin.CancelMigration(admin_pb2.MigrationRequest(id=vm.migration_id), timeout=LOOK_S)


async def _set(admin: AdminStub, vm: str, changes: RoleChanges) -> None:
    request = admin_pb2.SetVmRequest(vm=vm, changes=to_proto(changes, common_pb2.RoleChanges))
    await admin.SetVm(request, timeout=LOOK_S)


async def _rules(admin: AdminStub, vm: str) -> RoleRules:
    return from_proto((await find_vm(admin, vm)).rules, RoleRules)


async def _change_list(admin: AdminStub, action: steps.ChangeList) -> None:
    await _set(admin, action.vm, list_changes(action, await _rules(admin, action.vm)))


async def _relocate(admin: AdminStub, action: steps.Relocate) -> None:
    """Off, and on there."""
    await admin.StopVm(_vm(action.vm), timeout=BOOT_S)
    await admin.StartVm(admin_pb2.StartVmRequest(name=action.vm, node=action.to), timeout=BOOT_S)


async def _drain(admin: AdminStub, action: steps.DrainNode) -> None:
    request = admin_pb2.DrainNodeRequest(
        name=action.node, to=action.to, within_s=action.within_s, stuck=action.stuck
    )
    await admin.DrainNode(request, timeout=LOOK_S)


async def _policy(admin: AdminStub, action: steps.SetPolicy) -> None:
    change = admin_pb2.PolicyChange(
        enforced_anti_affinity=action.enforced_anti_affinity,
        quarantine_threshold=action.quarantine_threshold,
        quarantine_period_s=action.quarantine_period_s,
        quarantine_s=action.quarantine_s,
    )
    await admin.SetCluster(change, timeout=LOOK_S)


def _vm(name: str) -> admin_pb2.VmRequest:
    return admin_pb2.VmRequest(name=name)


_REQUESTS: Final[Mapping[type, Callable[[AdminStub, Any], Awaitable[object]]]] = {
    steps.CreateVm: _create,
    steps.StartVm: lambda admin, step: admin.StartVm(admin_pb2.StartVmRequest(name=step.vm), timeout=BOOT_S),
    steps.StopVm: lambda admin, step: admin.StopVm(_vm(step.vm), timeout=BOOT_S),
    steps.RemoveVm: lambda admin, step: admin.RemoveVm(_vm(step.vm), timeout=LOOK_S),
    steps.MigrateVm: _migrate,
    steps.CancelMove: _cancel,
    steps.Relocate: _relocate,
    steps.SetVm: lambda admin, step: _set(admin, step.vm, step.changes),
    steps.ChangeList: _change_list,
    steps.PauseNode: lambda admin, step: admin.PauseNode(
        admin_pb2.NodeRequest(name=step.node), timeout=LOOK_S
    ),
    steps.DrainNode: _drain,
    steps.ResumeNode: lambda admin, step: admin.ResumeNode(
        admin_pb2.ResumeNodeRequest(name=step.node, failback=step.failback), timeout=LOOK_S
    ),
    steps.EvictNode: lambda admin, step: admin.EvictNode(
        admin_pb2.EvictNodeRequest(name=step.node, force=step.force), timeout=LOOK_S
    ),
    steps.SetPolicy: _policy,
}
