"""An echo client follows the redirects of hosts that a guest has left, and only those that lead on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ferry.v1.host_pb2 import EchoReply, EchoRequest
from ferry_cli import echo
from ferry_cli.echo import REDIRECTS_PER_REQUEST_MAX, REPLY_TIMEOUT_S, EchoBooks, EchoClient

VM = "a"


class Host(asyncio.DatagramProtocol):
    """A host's echo port; ``answer`` says what comes back, None is silence."""

    def __init__(self) -> None:
        self.answer: Callable[[EchoRequest], EchoReply | None] = lambda _request: None
        self.heard: list[int] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        request = EchoRequest.FromString(data)
        self.heard.append(request.sequence)
        reply = self.answer(request)
        if reply is not None:
            self.transport.sendto(reply.SerializeToString(), addr)

    @property
    def address(self) -> str:
        return "127.0.0.1:" + str(self.transport.get_extra_info("sockname")[1])

    def runs(self, epoch: int) -> None:
        """The guest is here."""
        self.answer = lambda request: EchoReply(
            vm=VM, sequence=request.sequence, epoch=epoch, boot_epoch=1, step=request.sequence
        )

    def redirects(self, address: str, epoch: int) -> None:
        """The guest has left."""
        self.answer = lambda request: EchoReply(
            vm=VM, sequence=request.sequence, epoch=epoch, moved_to=address
        )


@pytest.fixture
async def hosts() -> AsyncIterator[list[Host]]:
    loop = asyncio.get_running_loop()
    opened = [await loop.create_datagram_endpoint(Host, local_addr=("127.0.0.1", 0)) for _ in range(3)]
    yield [host for _, host in opened]
    for transport, _ in opened:
        transport.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers, and so nobody waits for long."""
    monkeypatch.setattr(echo, "REPLY_TIMEOUT_S", 0.2)


@asynccontextmanager
async def aimed_at(host: Host, epoch: int = 0) -> AsyncIterator[EchoClient]:
    async with EchoClient(VM) as client:
        await client.aim(host.address, epoch)
        yield client


async def test_a_redirected_request_is_asked_again_at_once_and_counts_once(hosts: list[Host]) -> None:
    before, after, _ = hosts
    before.redirects(after.address, 2)
    after.runs(2)
    async with aimed_at(before, 1) as client:
        await client.ping(1, 0)
        await client.ping(4, 0)
        report = client.books.report()
    assert (report.sent, report.received, report.lost) == (5, 5, 0)
    assert before.heard == [1]
    assert after.heard == [1, 2, 3, 4, 5]


async def test_all_requests_that_were_under_way_follow(hosts: list[Host]) -> None:
    before, after, _ = hosts
    after.runs(2)
    async with aimed_at(before, 1) as client:
        pinging = asyncio.create_task(client.ping(4, 0))
        async with asyncio.timeout(5):
            while len(before.heard) < 4:  # noqa: ASYNC110 - with a deadline
                await asyncio.sleep(0.001)
        for sequence in before.heard:
            away = EchoReply(vm=VM, sequence=sequence, epoch=2, moved_to=after.address)
            client.datagram_received(away.SerializeToString(), before.transport.get_extra_info("sockname"))
        await pinging
        assert client.books.report().received == 4
    assert sorted(after.heard) == [1, 2, 3, 4]


async def test_a_chain_of_moves_is_followed_to_its_end(hosts: list[Host]) -> None:
    first, second, third = hosts
    first.redirects(second.address, 2)
    second.redirects(third.address, 3)
    third.runs(3)
    async with aimed_at(first, 1) as client:
        await client.ping(1, 0)
        await client.ping(1, 0)
        assert client.books.report().received == 2
    assert (first.heard, second.heard, third.heard) == ([1], [1], [1, 2])


@pytest.mark.usefixtures("impatient")
async def test_a_redirect_to_where_it_came_from_is_not_followed(hosts: list[Host]) -> None:
    there = hosts[0]
    there.redirects(there.address, 9)
    async with aimed_at(there, 1) as client:
        await client.ping(1, 0)
        assert client.books.report().received == 0
    assert len(there.heard) == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("epoch", [3, 4])
async def test_a_redirect_that_is_not_of_a_later_epoch_leads_nowhere(hosts: list[Host], epoch: int) -> None:
    now, then, _ = hosts
    now.redirects(then.address, epoch)
    then.runs(epoch)
    async with aimed_at(now, 4) as client:
        await client.ping(1, 0)
        assert client.books.report().lost == 1
    assert then.heard == []


@pytest.mark.usefixtures("impatient")
async def test_what_a_guest_has_answered_under_counts_where_nobody_has_told_the_epoch(
    hosts: list[Host],
) -> None:
    here, long_ago, _ = hosts
    here.runs(5)
    async with aimed_at(here) as client:
        await client.ping(1, 0)
        here.redirects(long_ago.address, 3)
        await client.ping(1, 0)
        report = client.books.report()
    assert (report.received, report.lost) == (1, 1)
    assert long_ago.heard == []


@pytest.mark.usefixtures("impatient")
async def test_two_hosts_that_redirect_to_each_other_are_left_alone(hosts: list[Host]) -> None:
    one, other, _ = hosts
    one.redirects(other.address, 2)
    other.redirects(one.address, 2)
    async with aimed_at(one, 1) as client:
        await client.ping(1, 0)
        assert client.books.report().lost == 1
    assert (one.heard, other.heard) == ([1], [1])


@pytest.mark.usefixtures("impatient")
async def test_even_ever_later_epochs_send_a_request_round_only_so_often(hosts: list[Host]) -> None:
    one, other, _ = hosts
    epochs = iter(range(2, 1000))

    def away_to(host: Host) -> Callable[[EchoRequest], EchoReply]:
        return lambda request: EchoReply(
            vm=VM, sequence=request.sequence, epoch=next(epochs), moved_to=host.address
        )

    one.answer, other.answer = away_to(other), away_to(one)
    async with aimed_at(one, 1) as client:
        await client.ping(1, 0)
    assert len(one.heard) + len(other.heard) == 1 + REDIRECTS_PER_REQUEST_MAX


async def test_a_redirect_that_leads_nowhere_costs_only_its_request(hosts: list[Host]) -> None:
    there = hosts[0]
    there.redirects("no address", 2)
    async with aimed_at(there, 1) as client:
        await client.ping(1, 0)
        there.runs(1)
        await client.ping(1, 0)
        report = client.books.report()
    assert (report.received, report.lost) == (1, 1)


async def test_late_news_of_the_coordinator_does_not_lead_back(hosts: list[Host]) -> None:
    before, after, _ = hosts
    before.redirects(after.address, 2)
    after.runs(2)
    async with aimed_at(before, 1) as client:
        await client.ping(1, 0)
        await client.aim(before.address, 1)
        await client.ping(1, 0)
        assert client.books.report().received == 2
    assert before.heard == [1]


async def test_the_coordinator_is_believed_before_a_redirect_that_no_guest_has_confirmed(
    hosts: list[Host],
) -> None:
    liar, nobody, there = hosts
    liar.redirects(nobody.address, 2**63)
    there.runs(3)
    async with aimed_at(liar, 1) as client:
        await client.ping(1, 0)
        await client.aim(there.address, 3)
        await client.ping(1, 0)
        report = client.books.report()
    assert (report.received, report.lost) == (1, 1)


def test_a_request_goes_out_again_only_while_it_is_open() -> None:
    books = EchoBooks()
    assert not books.send_again(1)
    sequence = books.request(0.0)
    assert all(books.send_again(sequence) for _ in range(REDIRECTS_PER_REQUEST_MAX))
    assert not books.send_again(sequence)
    other = books.request(0.0)
    books.give_up(REPLY_TIMEOUT_S + 0.1)
    assert not books.send_again(other)
    report = books.report()
    assert (report.sent, report.lost) == (2, 2)


def test_the_detour_counts_into_the_gap() -> None:
    books = EchoBooks()
    sequence = books.request(1.0)
    books.send_again(sequence)
    books.answer(EchoReply(vm=VM, sequence=sequence, epoch=2, boot_epoch=1, step=1), 1.3)
    assert books.report().longest_gap_s == pytest.approx(0.3)
