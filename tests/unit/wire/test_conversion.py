"""Values and messages say the same thing, and nothing malformed gets in."""

import math
import timeit
import typing
from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferry.v1 import common_pb2, membership_pb2, quorum_pb2
from ferry_types import messages, quorum
from ferry_types.errors import ErrorCode, FerryError, Refusal, refused
from ferry_types.limits import PAGE_SIZE, PASS_LIMIT_MAX
from ferry_types.links import MTU_MAX, MTU_MIN, TrafficClass
from ferry_types.messages import FromHost, HostEnvelope, HostOrder, ImageReport, Renewal, StartVm, ToHost
from ferry_types.migrations import (
    BlackoutParts,
    HandOffTimes,
    MigrationFigures,
    MigrationOptions,
    MoveEstimate,
    PassFigures,
    WireFigures,
)
from ferry_types.networks import (
    METRIC_MAX,
    RATE_BYTES_PER_S_MAX,
    RATE_BYTES_PER_S_MIN,
    Network,
    NetworkRole,
    Nic,
    NicFault,
    Team,
)
from ferry_types.qos import QosPolicy
from ferry_types.roles import Failback, Priority, RoleChanges, RoleRules
from ferry_types.scale import SCALE_MAX
from ferry_types.vms import Capacity, Processor, VmSpec
from ferry_types.workloads import Fill, FillSpec, WorkloadSpec, resolve
from ferry_wire.conversion import from_proto, to_proto
from ferry_wire.envelopes import (
    host_envelope_from_proto,
    host_envelope_to_proto,
    host_order_from_proto,
    host_order_to_proto,
)

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
NAME_FIELDS = {"name", "vm", "nic", "source", "target", "cluster", "incarnation", "node", "uuid"}
# Every integer field is at least 32 bits wide; the 64-bit ones have an example of their own below.
INTEGERS = st.integers(0, 2**32 - 1)


@st.composite
def vm_specs(draw: st.DrawFn) -> VmSpec:
    memory_bytes = draw(st.integers(1024, 2**28)) * PAGE_SIZE
    workload = resolve(
        draw(st.sampled_from(["idle", "web", "file", "sql", "thrash"])),
        memory_bytes,
        write_rate_bytes_per_s=draw(st.integers(0, 2**34)),
        compressibility=draw(st.floats(0, 1)),
    )
    kind = draw(st.sampled_from(Fill))
    path = draw(st.text(min_size=1)) if kind is Fill.FILE else None
    spec = VmSpec(draw(NAMES), memory_bytes, workload, FillSpec(kind, path))
    return replace(spec, priority=draw(values(hint_of(VmSpec, "priority"))))


def role_rules() -> st.SearchStrategy[RoleRules]:
    names = st.lists(NAMES, max_size=3, unique=True).map(tuple)
    hours, seconds = st.integers(0, 23), st.floats(1, 3600)
    return st.builds(
        RoleRules,
        *(names, names, names),
        st.sampled_from(Failback),
        *(hours, hours),
        st.integers(0, 2**31),
        *(seconds, seconds),
        NAMES,
        st.booleans(),
    )


def nics() -> st.SearchStrategy[Nic]:
    return st.builds(
        Nic,
        *(NAMES, NAMES),
        st.ip_addresses(v=4, network="10.0.0.0/8").map(str),
        st.just(0) | st.integers(RATE_BYTES_PER_S_MIN, RATE_BYTES_PER_S_MAX),
        st.floats(0, 1),
        st.integers(MTU_MIN, MTU_MAX),
        st.booleans(),
        st.just("") | NAMES,
    )


def networks() -> st.SearchStrategy[Network]:
    subnets = st.sampled_from(["", "10.0.1.0/24", "fd00::/64"])
    return st.builds(Network, NAMES, st.sampled_from(NetworkRole), st.integers(0, METRIC_MAX), subnets)


def qos_policies() -> st.SearchStrategy[QosPolicy]:
    limits = st.just(0) | st.integers(RATE_BYTES_PER_S_MIN, RATE_BYTES_PER_S_MAX)
    return st.builds(QosPolicy, st.sampled_from(TrafficClass), limits, st.integers(1, 100))


def hint_of(data_type: type[Any], field: str) -> Any:
    return typing.get_type_hints(data_type)[field]


def values(hint: Any, field: str = "") -> st.SearchStrategy[Any]:
    """Any value that a field of this type and name may hold."""
    if hint is VmSpec:
        return vm_specs()
    if hint is MigrationOptions:
        return st.sampled_from(({}, {"switch_at_minimum": True}, {"abort_over_blackout": True})).flatmap(
            lambda help_: st.builds(
                MigrationOptions,
                verify=st.booleans(),
                pass_limit=st.integers(3 if help_ else 1, PASS_LIMIT_MAX),
                blackout_allowed_s=st.floats(0.001 if help_ else 0, 60),
                throttle=st.just(bool(help_)),
                **{name: st.just(chosen) for name, chosen in help_.items()},
            )
        )
    if hint is WireFigures:
        return st.builds(WireFigures, st.floats(1, 1e12), st.floats(0, 60))
    if hint is RoleRules:
        return role_rules()
    described = {Nic: nics, Network: networks, QosPolicy: qos_policies}
    if hint in described:
        return described[hint]()
    if hint is RoleChanges:
        named = st.lists(st.sampled_from([field.name for field in fields(RoleRules)]), min_size=1)
        return st.builds(RoleChanges, named.map(tuple), st.sampled_from(Priority), role_rules())
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if arguments:
        return st.none() | values(arguments[0])
    if is_dataclass(hint):
        return instances(typing.cast("type[Any]", hint))
    if issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    plain: dict[type, st.SearchStrategy[Any]] = {
        str: NAMES if field in NAME_FIELDS else st.text(),
        bool: st.booleans(),
        int: st.integers(1, SCALE_MAX) if field == "scale" else INTEGERS,
        float: st.floats(allow_nan=False, allow_infinity=False),
    }
    return plain[hint]


def instances(data_type: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(data_type)
    return st.builds(
        data_type, **{field.name: values(hints[field.name], field.name) for field in fields(data_type)}
    )


@pytest.mark.parametrize("body", typing.get_args(FromHost), ids=lambda body: body.__name__)
@given(data=st.data())
def test_what_hosts_say_survives_the_wire(body: type[Any], data: st.DataObject) -> None:
    envelope = HostEnvelope(data.draw(NAMES), data.draw(INTEGERS), data.draw(instances(body)))
    wire = host_envelope_to_proto(envelope).SerializeToString()
    assert host_envelope_from_proto(membership_pb2.FromHost.FromString(wire)) == envelope


@pytest.mark.parametrize("body", typing.get_args(ToHost), ids=lambda body: body.__name__)
@given(data=st.data())
def test_what_the_coordinator_says_survives_the_wire(body: type[Any], data: st.DataObject) -> None:
    order = HostOrder(data.draw(INTEGERS), data.draw(NAMES), data.draw(INTEGERS), data.draw(instances(body)))
    wire = host_order_to_proto(order).SerializeToString()
    assert host_order_from_proto(membership_pb2.ToHost.FromString(wire)) == order


@pytest.mark.parametrize(
    ("message_type", "data_type"),
    [
        (common_pb2.VmSpec, VmSpec),
        (common_pb2.MigrationOptions, MigrationOptions),
        (common_pb2.MigrationFigures, MigrationFigures),
        (common_pb2.Capacity, Capacity),
        (common_pb2.RoleRules, RoleRules),
        (common_pb2.RoleChanges, RoleChanges),
        (common_pb2.Refusal, Refusal),
        (common_pb2.Nic, Nic),
        (common_pb2.Team, Team),
        (common_pb2.NicFault, NicFault),
        (common_pb2.Network, Network),
        (common_pb2.QosPolicy, QosPolicy),
    ],
    ids=lambda one: one.__name__,
)
@given(data=st.data())
def test_shared_values_survive_the_wire(message_type: Any, data_type: type[Any], data: st.DataObject) -> None:
    value = data.draw(values(data_type))
    wire = to_proto(value, message_type).SerializeToString()
    assert from_proto(message_type.FromString(wire), data_type) == value


def test_integers_of_64_bits_survive_the_wire() -> None:
    envelope = HostEnvelope("a", 2**64 - 1, Renewal(2**64 - 1))
    assert host_envelope_from_proto(host_envelope_to_proto(envelope)) == envelope


# --- every field has its counterpart ------------------------------------------------------------


PAIRS = (
    [
        (getattr(messages, name), message)
        for name, message in membership_pb2.DESCRIPTOR.message_types_by_name.items()
        if name not in {"FromHost", "ToHost", "DeathNoted"}
    ]
    + [
        (getattr(quorum, name), message)
        for name, message in quorum_pb2.DESCRIPTOR.message_types_by_name.items()
        if name not in {"PromiseAnswer", "WitnessQuery", "WitnessReplacement", "WitnessOutcome"}
    ]
    + [
        (one, common_pb2.DESCRIPTOR.message_types_by_name[one.__name__])
        for one in (
            WorkloadSpec,
            FillSpec,
            VmSpec,
            Capacity,
            Processor,
            RoleRules,
            RoleChanges,
            MigrationOptions,
            PassFigures,
            WireFigures,
            MoveEstimate,
            BlackoutParts,
            HandOffTimes,
            MigrationFigures,
            Refusal,
            Nic,
            Team,
            NicFault,
            Network,
            QosPolicy,
        )
    ]
)


@pytest.mark.parametrize(
    ("data_type", "descriptor"), PAIRS, ids=lambda one: one.name if hasattr(one, "name") else ""
)
def test_a_message_and_its_value_have_the_same_fields(data_type: type[Any], descriptor: Any) -> None:
    assert {field.name for field in fields(data_type)} == {field.name for field in descriptor.fields}


def test_every_message_of_common_proto_was_looked_at() -> None:
    looked_at = {descriptor.name for _, descriptor in PAIRS}
    assert looked_at >= set(common_pb2.DESCRIPTOR.message_types_by_name)


@pytest.mark.parametrize(
    ("union", "envelope"), [(FromHost, membership_pb2.FromHost), (ToHost, membership_pb2.ToHost)]
)
def test_every_body_is_a_member_of_the_oneof(union: Any, envelope: Any) -> None:
    members = {field.message_type.name for field in envelope.DESCRIPTOR.oneofs_by_name["body"].fields}
    assert {body.__name__ for body in typing.get_args(union)} == members


def test_classes_that_do_not_correspond_are_a_defect() -> None:
    with pytest.raises(TypeError, match="memory_bytes"):
        to_proto(Capacity(1, 1, 1), common_pb2.Refusal)


# --- presence -----------------------------------------------------------------------------------


def test_unknown_figures_are_absent_and_known_zeros_are_not() -> None:
    unknown = to_proto(MigrationFigures(), common_pb2.MigrationFigures)
    assert not any(unknown.HasField(name) for name in ("final", "blackout_s", "verified"))
    known = MigrationFigures(final=PassFigures(0, 0, 0, 0, 0.0, 0), blackout_s=0.0, verified=False)
    assert from_proto(to_proto(known, common_pb2.MigrationFigures), MigrationFigures) == known


def test_no_path_travels_as_the_empty_string() -> None:
    assert to_proto(FillSpec(Fill.ZERO), common_pb2.FillSpec).path == ""
    assert from_proto(common_pb2.FillSpec(kind="zero"), FillSpec).path is None


# --- what is malformed --------------------------------------------------------------------------


def spec_message() -> common_pb2.VmSpec:
    memory_bytes = 64 * 2**20
    return to_proto(
        VmSpec("vm1", memory_bytes, resolve("idle", memory_bytes), FillSpec(Fill.ZERO)), common_pb2.VmSpec
    )


def start_order(spec: common_pb2.VmSpec | None) -> membership_pb2.ToHost:
    return membership_pb2.ToHost(
        term=1, incarnation="a", session=1, start_vm=membership_pb2.StartVm(spec=spec, epoch=1)
    )


def refusal_of_order(message: membership_pb2.ToHost) -> Refusal:
    with pytest.raises(FerryError) as raised:
        host_order_from_proto(message)
    assert raised.value.refusal.code is ErrorCode.MALFORMED
    return raised.value.refusal


def test_the_order_that_the_malformed_ones_are_made_from_is_well_formed() -> None:
    assert isinstance(host_order_from_proto(start_order(spec_message())).body, StartVm)


def test_an_unknown_word_is_refused_with_those_that_are_known() -> None:
    spec = spec_message()
    spec.priority = "urgent"
    message = refusal_of_order(start_order(spec)).message
    assert "VmSpec.priority 'urgent'" in message
    assert "high, medium, low, none" in message


def test_a_missing_word_is_refused() -> None:
    spec = spec_message()
    spec.ClearField("priority")
    assert "VmSpec.priority ''" in refusal_of_order(start_order(spec)).message


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "ä", "a/b", "a\n"])
def test_a_malformed_name_is_refused(name: str) -> None:
    spec = spec_message()
    spec.name = name
    assert "is not valid" in refusal_of_order(start_order(spec)).message


@pytest.mark.parametrize("memory_bytes", [0, 4096, 64 * 2**20 + 1, 2**50])
def test_a_specification_out_of_range_is_refused(memory_bytes: int) -> None:
    spec = spec_message()
    spec.memory_bytes = memory_bytes
    assert str(memory_bytes) in refusal_of_order(start_order(spec)).message


def test_a_missing_nested_message_is_refused() -> None:
    assert "StartVm.spec is missing" in refusal_of_order(start_order(None)).message


def test_a_missing_body_is_refused() -> None:
    assert "ToHost has no body" in refusal_of_order(membership_pb2.ToHost(term=1, incarnation="a")).message


def test_a_body_of_a_later_version_is_refused() -> None:
    later = membership_pb2.ToHost(term=1, incarnation="a").SerializeToString() + b"\xfa\x07\x00"  # field 127
    assert "has no body" in refusal_of_order(membership_pb2.ToHost.FromString(later)).message


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    message = membership_pb2.FromHost(
        incarnation="a", vm_running=membership_pb2.VmRunning(vm="v", first_quantum_at_s=number)
    )
    with pytest.raises(FerryError, match="not a finite number"):
        host_envelope_from_proto(message)


def test_an_unknown_phase_inside_a_list_is_refused() -> None:
    image = membership_pb2.ImageReport(vm="v", epoch=1, phase="dreaming")
    with pytest.raises(FerryError, match="dreaming"):
        from_proto(image, ImageReport)


def test_a_refusal_keeps_its_rule_in_an_order_refused() -> None:
    refusal = refused("memory", "no room for vm1", "free some")
    envelope = HostEnvelope("a", 1, messages.OrderRefused("vm1", 3, refusal))
    assert host_envelope_from_proto(host_envelope_to_proto(envelope)) == envelope


def test_a_renewal_costs_little() -> None:
    """Goal: 50 us there and back (64 nodes renew four times a second); the best of several runs counts."""
    envelope = HostEnvelope("a" * 32, 3, Renewal(7))

    def there_and_back() -> HostEnvelope:
        wire = host_envelope_to_proto(envelope).SerializeToString()
        return host_envelope_from_proto(membership_pb2.FromHost.FromString(wire))

    assert there_and_back() == envelope
    assert min(timeit.repeat(there_and_back, number=200, repeat=20)) / 200 < 50e-6
