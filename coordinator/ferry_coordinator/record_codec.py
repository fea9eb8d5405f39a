"""Records of the cluster core as the store keeps them: JSON, one form for one value.

Guards compare bytes, so the same record must always give the same bytes, and what is read must be exactly
what this release would write, but for fields that an earlier one did not have: they get their defaults, and
no guarded record has any. ``decode_record`` checks that, and so finds a damaged value at the start instead of
at the first commit that is guarded by it.
"""

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from ferry_cluster.records import RECORD_TYPES, Record
from ferry_coordinator.ports import StoreError, StoreErrorCode

_ADAPTERS: dict[str, TypeAdapter[Any]] = {kind: TypeAdapter(type_) for kind, type_ in RECORD_TYPES.items()}


def encode_record(record: Record) -> bytes:
    """The record's one form: fields in their order, no spaces; NaN and infinities as such."""
    return to_json(record)


def decode_record(key: str, value: bytes) -> Record:
    """The record kept under ``key``. Raises StoreError (corrupt) that names the key."""
    adapter = _ADAPTERS.get(key.partition("/")[0])
    if adapter is None:
        raise _corrupt(key, "this release keeps nothing of that kind")
    try:
        record: Record = adapter.validate_json(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _corrupt(key, f"{place}: {first['msg']}" if place else first["msg"]) from error
    if record.key != key:
        raise _corrupt(key, f"it holds the record of {record.key}")
    if not _has_form(value, encode_record(record)):
        raise _corrupt(key, "it is not in the form in which this release writes it")
    return record


def _has_form(value: bytes, written: bytes) -> bool:
    """Whether a value is what this release writes, or would be without fields that were added since."""
    if value == written:
        return True
    kept = _without_later_fields(json.loads(written), json.loads(value))
    return json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode() == value


def _without_later_fields(written: Any, value: Any) -> Any:
    """What is written, as far as there was a field for it in ``value``, however deep."""
    if isinstance(written, dict) and isinstance(value, dict):
        return {name: _without_later_fields(written[name], value[name]) for name in value if name in written}
    if isinstance(written, list) and isinstance(value, list) and len(written) == len(value):
        return [_without_later_fields(one, other) for one, other in zip(written, value, strict=True)]
    return written


def _corrupt(key: str, what: str) -> StoreError:
    return StoreError(
        StoreErrorCode.CORRUPT,
        f"the store is corrupt: the value of {key} cannot be read: {what}",
        "bring the store back from a backup, or move it away to begin with a new cluster",
    )
