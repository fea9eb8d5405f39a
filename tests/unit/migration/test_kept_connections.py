"""Connections to a target outlive the attempt that opened them, unless it failed."""

import asyncio

import grpc.aio
import pytest
from tests.unit.migration.ends import TOKEN, Ends, random_memory, two_ends

from ferry_agent.migration.ports import MoveFailed
from ferry_types.migrations import TransportOption, lane_count
from ferry_wire import channels


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses to which channels were made."""
    addresses: list[str] = []
    open_channel = channels.open_channel

    def open_and_note(address: str, options: channels.Options) -> grpc.aio.Channel:
        addresses.append(address)
        return open_channel(address, options)

    monkeypatch.setattr(channels, "open_channel", open_and_note)
    return addresses


async def move_and_close(ends: Ends, token: str = TOKEN) -> None:
    """An attempt from its opening to the end of its streams, whatever became of attempts before it."""
    ends.target.outcome, ends.source.paused = asyncio.get_running_loop().create_future(), False
    awaiting = await ends.move(token=token)
    await ends.target.device_state()
    await awaiting.close()
    await ends.streams_ended()


@pytest.mark.parametrize("option", TransportOption)
async def test_the_next_attempt_opens_none_but_the_one_after_a_failure_does(
    option: TransportOption, opened: list[str]
) -> None:
    connections = 1 if option is TransportOption.DIRECT else 1 + lane_count(option, 1)
    async with two_ends(random_memory(2000), option=option) as ends:
        for _ in range(2):
            await move_and_close(ends)
            assert len(opened) == connections
        with pytest.raises(MoveFailed, match="wrong token"):
            await move_and_close(ends, token="guessed")
        assert len(opened) == connections
        await move_and_close(ends)
        assert len(opened) == 2 * connections
