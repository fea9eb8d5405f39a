"""Addresses are read strictly and written as they are read."""

import pytest

from ferry_types.errors import ErrorCode, FerryError
from ferry_wire.addresses import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7000", Address("127.0.0.1", 7000)),
        ("[::1]:1", Address("::1", 1)),
        ("host-1.example:65535", Address("host-1.example", 65535)),
        ("node_1:7000", Address("node_1", 7000)),
    ],
)
def test_well_formed_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7000",
        ":7000",
        "host",
        "host:",
        "host:http",
        "host:65536",
        "host:-1",
        "host:+1",
        "host:٣",
        "host: 1",
        "host:1_0",
        "::1:7000",
        "[127.0.0.1]:7000",
        "[host]:7000",
        "[::1:7000",
        "256.1.1.1:7000",
        "1.2.3:7000",
        "a b:7000",
        "a/b:7000",
        "unix:/tmp/x:7000",
        "-a:7000",
        "a..b:7000",
        f"{'a' * 64}:7000",
        f"{'a.' * 130}b:7000",
        "x" * 10_000,
    ],
)
def test_malformed_addresses(text: str) -> None:
    with pytest.raises(FerryError) as raised:
        parse_address(text, "listen address")
    assert raised.value.refusal.code is ErrorCode.MALFORMED
    assert raised.value.refusal.message.startswith("listen address ")
    assert raised.value.refusal.hint
    assert len(raised.value.refusal.message) < 400


def test_port_0_is_for_servers_only() -> None:
    assert parse_address("127.0.0.1:0", any_port=True).port == 0
    with pytest.raises(FerryError, match="port 0"):
        parse_address("127.0.0.1:0")


def test_wildcards_are_no_address_for_a_peer() -> None:
    assert parse_address("0.0.0.0:7000").is_wildcard
    assert parse_address("[::]:7000").is_wildcard
    assert not parse_address("127.0.0.1:7000").is_wildcard
    assert not parse_address("host:7000").is_wildcard
