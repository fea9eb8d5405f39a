"""A VM's hardware address follows from its name."""

import re

from ferry_types.mac import mac_address


def test_the_address_is_the_same_in_every_process_and_release() -> None:
    assert mac_address("web1") == "66-9A-7F-B2-AF-47"


def test_addresses_are_individual_locally_administered_and_differ() -> None:
    addresses = {mac_address(f"vm{number}") for number in range(8000)}
    assert len(addresses) == 8000
    for address in addresses:
        assert re.fullmatch(r"([0-9A-F]{2}-){5}[0-9A-F]{2}", address)
        assert int(address[:2], 16) & 0b11 == 0b10
