"""Values of ``ferry_types`` <-> messages of ``ferry/v1``, field by field of the same name.

The rules, worked out once for each pair of classes:

- A nested value is a nested message, a tuple a repeated field, a word of a StrEnum a string.
- A field that may be None is absent if the message can tell (messages and ``optional`` fields); else None
  travels as the empty string (``FillSpec.path``).
- The body of an envelope is the member of its ``oneof`` that bears the class's name in snake_case.

What arrives is not trusted: an unknown word, an absent body or nested message, a malformed name, a number
that is not finite, and a specification out of range raise FerryError (malformed), naming the field.
"""

import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any, Final, NoReturn, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ferry_types.errors import FerryError, malformed
from ferry_types.migrations import MigrationOptions, WireFigures
from ferry_types.names import validate_name
from ferry_types.networks import Network, Nic, Team
from ferry_types.qos import QosPolicy
from ferry_types.roles import RoleChanges, RoleRules
from ferry_types.vms import Capacity, VmSpec

D = TypeVar("D")
M = TypeVar("M", bound=Message)

# The descriptors of the runtime and those of its type stubs are not the same classes.
_FieldDescriptor = Any
_Encode = Callable[[Any], Any]
_Read = Callable[[Any], Any]

_BODY: Final = "body"

_NAMES: Final[Mapping[str, str]] = {
    "name": "name",
    "node": "node name",
    "vm": "VM name",
    "nic": "NIC name",
    "source": "node name",
    "target": "node name",
    "cluster": "cluster name",
    "incarnation": "incarnation",
    "uuid": "UUID",
}
"""Fields that hold a name, in whatever message, and what to call it."""

_VALIDATED: Final = (
    VmSpec,
    MigrationOptions,
    WireFigures,
    RoleRules,
    RoleChanges,
    Nic,
    Team,
    Network,
    Capacity,
    QosPolicy,
)
"""Values that know their own ranges."""


def to_proto(value: Any, message_type: type[M]) -> M:
    """The message of a value whose class has the same fields.

    Raises TypeError if the two classes do not correspond, ValueError if a number does not fit its field.
    """
    message: M = _plan(type(value), message_type).encode(value)
    return message


def from_proto(message: Message, data_type: type[D]) -> D:
    """The value of a message whose class has the same fields.

    Raises FerryError (malformed) if the message is not well formed, TypeError if the classes do not
    correspond.
    """
    value: D = _plan(data_type, type(message)).decode(message)
    return value


# --- plans --------------------------------------------------------------------------------------


def to_json(value: Any) -> str:
    """A value as a process keeps it in a file that people can read; the fields' names are the message's."""
    return json.dumps(asdict(value), indent=2) + "\n"


def from_json(text: str, message_type: type[Message], data_type: type[D]) -> D:
    """Read what ``to_json`` wrote. Raises ValueError: it is no JSON, or not of that type."""
    if not text.lstrip().startswith("{"):  # the library takes an empty array for an empty object
        raise ValueError("it is no JSON object")
    try:
        return from_proto(json_format.Parse(text, message_type()), data_type)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error
    except FerryError as error:
        raise ValueError(error.refusal.message) from error


@dataclass(frozen=True, slots=True)
class _Field:
    """How one field travels: ``encode`` makes what the message's constructor takes (None: as it is)."""

    name: str
    encode: _Encode | None
    read: _Read


class _Plan:
    """How one dataclass and its message turn into each other."""

    __slots__ = ("_check", "_data_type", "_message_type", "_readers", "_writers")

    def __init__(self, data_type: type[Any], message_type: type[Message], plans: tuple[_Field, ...]) -> None:
        self._data_type = data_type
        self._message_type = message_type
        self._writers = tuple((plan.name, plan.encode) for plan in plans)
        self._readers = tuple(plan.read for plan in plans)
        self._check = data_type in _VALIDATED

    def encode(self, value: Any) -> Any:
        return self._message_type(**self.encode_fields(value))

    def encode_fields(self, value: Any) -> dict[str, Any]:
        return {
            name: getattr(value, name) if encode is None else encode(getattr(value, name))
            for name, encode in self._writers
        }

    def decode(self, message: Any) -> Any:
        value = self._data_type(*[read(message) for read in self._readers])
        if self._check:
            try:
                value.validate()
            except ValueError as error:
                _refuse(str(error))
        return value


class _EnvelopePlan(_Plan):
    """A plan whose last field is one of several messages."""

    __slots__ = ("_bodies", "_body_encoders")

    def __init__(self, data_type: type[Any], message_type: type[Message], plans: tuple[_Field, ...]) -> None:
        super().__init__(data_type, message_type, plans)
        descriptor = message_type.DESCRIPTOR
        members: dict[str, _FieldDescriptor] = {
            field.name: field for field in descriptor.oneofs_by_name[_BODY].fields
        }
        classes = {_snake_case(body.__name__): body for body in typing.get_args(_hints(data_type)[_BODY])}
        _require_same(f"{data_type.__name__}.{_BODY}", classes.keys(), members.keys())
        self._bodies = {
            name: _plan(body, GetMessageClass(members[name].message_type)) for name, body in classes.items()
        }
        self._body_encoders = {body: (name, self._bodies[name].encode) for name, body in classes.items()}

    def encode(self, value: Any) -> Any:
        arguments = self.encode_fields(value)
        name, encode = self._body_encoders[type(value.body)]
        arguments[name] = encode(value.body)
        return self._message_type(**arguments)

    def decode(self, message: Any) -> Any:
        name = message.WhichOneof(_BODY)
        if name is None:
            _refuse(f"{self._message_type.DESCRIPTOR.name} has no body that this version knows")
        body = self._bodies[name].decode(getattr(message, name))
        return self._data_type(*[read(message) for read in self._readers], body)


_PLANS: Final[dict[tuple[type[Any], type[Message]], _Plan]] = {}


def _plan(data_type: type[Any], message_type: type[Message]) -> _Plan:
    """The plan of a pair of classes, made on first use. Raises TypeError if their fields differ."""
    plan = _PLANS.get((data_type, message_type))
    if plan is None:
        plan = _PLANS[data_type, message_type] = _make_plan(data_type, message_type)
    return plan


def _make_plan(data_type: type[Any], message_type: type[Message]) -> _Plan:
    if not is_dataclass(data_type):
        raise TypeError(f"{data_type.__name__} is not a dataclass")
    descriptor = message_type.DESCRIPTOR
    is_envelope = _BODY in descriptor.oneofs_by_name
    names = [field.name for field in fields(data_type) if not (is_envelope and field.name == _BODY)]
    in_message = {
        field.name: field
        for field in descriptor.fields
        if field.containing_oneof is None or field.containing_oneof.name != _BODY
    }
    _require_same(data_type.__name__, names, in_message.keys())
    hints = _hints(data_type)
    plans = tuple(_field(in_message[name], hints[name]) for name in names)
    return (_EnvelopePlan if is_envelope else _Plan)(data_type, message_type, plans)


def _field(field: _FieldDescriptor, hint: Any) -> _Field:
    name = field.name
    where = f"{field.containing_type.name}.{name}"
    if typing.get_origin(hint) is tuple:
        encode, decode = _element(field, typing.get_args(hint)[0], where)
        return _Field(name, encode and _each(encode), _repeated(name, decode))
    if typing.get_origin(hint) is types.UnionType:
        encode, decode = _element(field, typing.get_args(hint)[0], where)
        read = _present(name, decode) if field.has_presence else _unless_empty(name, decode)
        return _Field(name, encode and _unless_none(encode), read)
    encode, decode = _element(field, hint, where)
    if decode is not None and field.message_type is not None:
        return _Field(name, encode, _nested(name, where, decode))
    return _Field(name, encode, _plain(name, decode))


def _element(field: _FieldDescriptor, hint: Any, where: str) -> tuple[_Encode | None, _Read | None]:
    """How one value of a field is encoded and decoded; None: it travels as it is."""
    if field.message_type is not None:
        plan = _plan(hint, GetMessageClass(field.message_type))
        return plan.encode, plan.decode
    if issubclass(hint, StrEnum):
        return None, _word(hint, where)
    if hint is float:
        return None, _finite(where)
    if hint is str and field.name in _NAMES:
        return None, _name(_NAMES[field.name])
    return None, None


# --- readers and writers ------------------------------------------------------------------------


def _each(encode: _Encode) -> _Encode:
    return lambda values: [encode(value) for value in values]


def _unless_none(encode: _Encode) -> _Encode:
    return lambda value: None if value is None else encode(value)


def _plain(name: str, decode: _Read | None) -> _Read:
    if decode is None:
        return lambda message: getattr(message, name)
    return lambda message: decode(getattr(message, name))


def _nested(name: str, where: str, decode: _Read) -> _Read:
    def read(message: Any) -> Any:
        if not message.HasField(name):
            _refuse(f"{where} is missing")
        return decode(getattr(message, name))

    return read


def _present(name: str, decode: _Read | None) -> _Read:
    read = _plain(name, decode)
    return lambda message: read(message) if message.HasField(name) else None


def _unless_empty(name: str, decode: _Read | None) -> _Read:
    read = _plain(name, decode)
    return lambda message: read(message) or None


def _repeated(name: str, decode: _Read | None) -> _Read:
    if decode is None:
        return lambda message: tuple(getattr(message, name))
    return lambda message: tuple([decode(element) for element in getattr(message, name)])


def _word(words: type[StrEnum], where: str) -> _Read:
    known = {word.value: word for word in words}

    def decode(text: str) -> StrEnum:
        word = known.get(text)
        if word is None:
            _refuse(f"{where} {_shown(text)} is not one of {', '.join(known)}")
        return word

    return decode


def _finite(where: str) -> _Read:
    def decode(number: float) -> float:
        if not math.isfinite(number):
            _refuse(f"{where} is {number}, not a finite number")
        return number

    return decode


def _name(what: str) -> _Read:
    def decode(text: str) -> str:
        try:
            return validate_name(text, what)
        except ValueError as error:
            _refuse(str(error))

    return decode


def _refuse(what: str) -> NoReturn:
    raise FerryError(malformed(what))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


# --- the shape of classes -----------------------------------------------------------------------


def _hints(data_type: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(data_type)


def _require_same(what: str, ours: typing.Iterable[str], theirs: typing.Iterable[str]) -> None:
    differing = set(ours) ^ set(theirs)
    if differing:
        raise TypeError(f"{what} and its message differ in {', '.join(sorted(differing))}")


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
