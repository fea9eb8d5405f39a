"""Addresses are read strictly and written as they are read."""

import errno
import socket

import pytest

from ferry_types.errors import ErrorCode, FerryError
from ferry_wire.addresses import Address, cannot_listen, parse_address


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


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EADDRINUSE, "..."), "port 7000 on host is in use (UDP)"),
        (OSError(errno.EACCES, "..."), "port 7000 on host may not be taken (UDP): permission denied"),
        (
            OSError(errno.EADDRNOTAVAIL, "..."),
            "cannot listen on host:7000: host is not an address of this machine",
        ),
        (OSError(errno.EMFILE, "..."), "cannot listen on host:7000 (UDP): Too many open files"),
        (
            socket.gaierror(socket.EAI_NONAME, "unknown name"),
            "cannot listen on host:7000 (UDP): unknown name",
        ),
    ],
)
def test_why_an_address_is_not_to_be_had(error: OSError, reason: str) -> None:
    refusal = cannot_listen(Address("host", 7000), "UDP", error).refusal
    assert refusal.code is ErrorCode.FAILED
    assert refusal.message == reason
    assert refusal.hint
