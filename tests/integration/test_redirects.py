"""A guest that has moved is found without the coordinator, and the move tells where its black-out went."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.processes import DEADLINE_S, Cluster, running_cluster

from ferry.v1 import admin_pb2
from ferry_cli.echo import EchoClient

VM = "web"
INTERVAL_S = 0.01


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - with a deadline
            await asyncio.sleep(INTERVAL_S)


async def moved(cluster: Cluster, client: EchoClient) -> admin_pb2.MigrationRecord:
    """Move the VM while a client that knows no coordinator pings it; then the coordinator freezes."""
    pinging = asyncio.create_task(client.ping(0, INTERVAL_S))
    await until(lambda: client.books.received > 10)
    id_ = await asyncio.to_thread(cluster.migrate, VM, "n2", verify=True)
    record = await asyncio.to_thread(cluster.ended, id_)
    cluster.signal("coordinator", signal.SIGSTOP)
    client.books.count_anew()
    await until(lambda: client.books.received >= 50)
    pinging.cancel()
    await asyncio.wait({pinging})
    return record


def test_a_ping_goes_on_by_the_old_hosts_redirect_while_the_coordinator_is_away(tmp_path: Path) -> None:
    async def ping() -> admin_pb2.MigrationRecord:
        async with EchoClient(VM) as client:
            await client.aim(before.echo_address)
            record = await moved(cluster, client)
            assert client.books.steps_fell == 0
        async with EchoClient(VM) as newcomer:
            await newcomer.aim(before.echo_address)
            await newcomer.ping(20, 0)
            report = newcomer.books.report()
            assert (report.received, report.lost) == (20, 0)
        return record

    with running_cluster(tmp_path, 2) as cluster:
        before = cluster.create(VM, "n1", workload="web")
        record = asyncio.run(ping())
        cluster.signal("coordinator", signal.SIGCONT)
    assert record.state == "completed"
    parts = record.figures.blackout
    spent_s = (parts.last_pages_s, parts.ready_s, parts.commit_s, parts.resume_s)
    assert min(spent_s) > 0
    assert sum(spent_s) == pytest.approx(record.figures.blackout_s, abs=1e-6)
