"""Channels that are kept between two uses."""

import grpc

from ferry_wire.channels import BULK_OPTIONS, IdleChannels

ADDRESS, OTHER = "127.0.0.1:7000", "127.0.0.1:7001"


async def test_who_comes_next_gets_what_was_put_back() -> None:
    channels = IdleChannels(4)
    first, second = channels.take(ADDRESS), channels.take(ADDRESS)
    assert first is not second
    await channels.put_back(first, ADDRESS)
    await channels.put_back(second, ADDRESS)
    assert channels.take(ADDRESS) is second  # whose connection is the more likely to be there still
    assert channels.take(ADDRESS) is first
    for channel in (first, second):
        await channel.close()


async def test_neither_another_address_nor_other_options_will_do() -> None:
    channels = IdleChannels(4)
    plain = channels.take(ADDRESS)
    await channels.put_back(plain, ADDRESS)
    for taken in (channels.take(OTHER), channels.take(ADDRESS, BULK_OPTIONS)):
        assert taken is not plain
        await taken.close()
    assert channels.take(ADDRESS) is plain
    await plain.close()


async def test_beyond_the_limit_the_longest_unused_is_closed() -> None:
    channels = IdleChannels(1)
    old, new = channels.take(ADDRESS), channels.take(OTHER)
    await channels.put_back(old, ADDRESS)
    await channels.put_back(new, OTHER)
    assert old.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    assert new.get_state() is not grpc.ChannelConnectivity.SHUTDOWN
    await channels.close()
    assert new.get_state() is grpc.ChannelConnectivity.SHUTDOWN
