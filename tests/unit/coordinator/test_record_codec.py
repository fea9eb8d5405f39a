"""Records come back from the store as they were, and nothing else does."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferry_cluster.records import (
    RECORD_TYPES,
    EpochFloor,
    MigrationRecord,
    NodeRecord,
    Origin,
    Ownership,
    RaisedEpoch,
    Record,
    VmRecord,
)
from ferry_coordinator.ports import StoreError, StoreErrorCode
from ferry_coordinator.record_codec import decode_record, encode_record
from ferry_types.migrations import (
    MigrationFigures,
    MigrationOptions,
    MigrationState,
    PassFigures,
    TransportOption,
)
from ferry_types.vms import Capacity

numbers = st.integers(0, 2**64 - 1)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(int, numbers)

records: st.SearchStrategy[Record] = st.one_of(
    st.builds(NodeRecord, name=names),
    st.builds(VmRecord),
    st.builds(Ownership, vm=names),
    st.builds(RaisedEpoch, vm=names),
    st.builds(EpochFloor),
    st.builds(MigrationRecord, id=names),
)


@given(records)
def test_what_was_written_is_what_is_read(record: Record) -> None:
    value = encode_record(record)
    assert decode_record(record.key, value) == record
    assert encode_record(decode_record(record.key, value)) == value, "guards compare bytes"


def test_every_kind_of_record_has_a_key_of_its_own() -> None:
    assert set(RECORD_TYPES.values()) == set(get_args(Record))


OWNER = Ownership("web1", 7, "node1", "a1", Origin.BOOT)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (OWNER.key, b"", "Invalid JSON"),
        (OWNER.key, encode_record(OWNER)[:-1], "Invalid JSON"),
        (OWNER.key, encode_record(OWNER).replace(b'"epoch":7', b'"epoch":"7"'), "epoch"),
        (OWNER.key, encode_record(OWNER).replace(b'"boot"', b'"birth"'), "origin"),
        (OWNER.key, encode_record(OWNER).replace(b'"epoch":7', b'"epoch":7,"colour":"red"'), "form"),
        (OWNER.key, json.dumps(json.loads(encode_record(OWNER))).encode(), "form"),
        ("owner/web2", encode_record(OWNER), "owner/web1"),
        ("colour/web1", encode_record(OWNER), "of that kind"),
    ],
    ids=["empty", "cut", "type", "word", "unknown-field", "spaces", "other-key", "unknown-kind"],
)
def test_what_this_release_would_not_write_is_refused_with_its_key(
    key: str, value: bytes, words: str
) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        decode_record(key, value)
    assert caught.value.code is StoreErrorCode.CORRUPT
    assert key in caught.value.refusal.message
    assert caught.value.refusal.hint


def test_a_record_of_an_earlier_release_is_read_with_what_it_lacks_at_its_default() -> None:
    value = (
        b'{"name":"n1","uuid":"u1","incarnation":"life1","address":"a:1","echo_address":"a:2",'
        b'"capacity":{"memory_bytes":8,"processors":2,"migration_limit":2},"version":"0.1.0","up":true}'
    )
    record = decode_record("node/n1", value)
    assert record == NodeRecord("n1", "u1", "life1", "a:1", "a:2", Capacity(8, 2, 2), "0.1.0", up=True)
    with pytest.raises(StoreError, match="form"):
        decode_record("node/n1", value.replace(b'"memory_bytes":8,', b'"memory_bytes": 8,'))


def test_a_move_of_an_earlier_release_has_figures_without_compression() -> None:
    figures = MigrationFigures(passes=(PassFigures(1, 10, 2, 40_960, 0.5, 3),))
    ended = MigrationState.COMPLETED
    record = MigrationRecord(
        "m1", "vm1", "n1", "n2", 1, "t", MigrationOptions(), ended, 4096, 0, figures=figures
    )
    earlier = encode_record(record)
    for later in (b',"compressed_pages":0,"compressed_bytes":0', b',"compression":""'):
        assert later in earlier
        earlier = earlier.replace(later, b"")
    assert decode_record(record.key, earlier) == record


def test_a_move_of_an_earlier_release_asked_for_no_help_and_had_no_estimate() -> None:
    value = (
        b'{"id":"m1","vm":"a","source":"n1","target":"n2","epoch":1,"token":"t",'
        b'"options":{"type":"live","option":"tcpip","verify":false,"pass_limit":10,"blackout_allowed_s":0.05},'
        b'"state":"completed","memory_bytes":8,"requested_at_us":1,"reason":"","cause":"",'
        b'"figures":{"passes":[{"index":1,"pages_sent":1,"zero_pages":0,"bytes_sent":4096,"duration_s":0.5,'
        b'"dirty_pages_after":0}],"final":null,"brownout_s":0.5,"blackout_s":null,"bytes_sent":4096,'
        b'"verified":null,"explanation":""},"total_s":1.0}'
    )
    record = decode_record("migration/m1", value)
    assert isinstance(record, MigrationRecord)
    assert record.options == MigrationOptions(option=TransportOption.TCPIP)
    assert record.figures is not None
    assert record.figures.estimate is None
    assert record.figures.passes[0].throttle_percent == 0


def test_a_move_of_an_earlier_release_has_no_parts_of_its_blackout() -> None:
    figures = MigrationFigures(blackout_s=0.002, explanation="nothing was left")
    move = MigrationRecord(
        *("m1", "web1", "n1", "n2", 1, "token", MigrationOptions(), MigrationState.COMPLETED, 4096, 0),
        figures=figures,
    )
    value = encode_record(move)
    earlier = value.replace(b',"blackout":null', b"")
    assert earlier != value
    assert decode_record(move.key, earlier) == move
