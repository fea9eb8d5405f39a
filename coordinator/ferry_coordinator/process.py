"""The coordinator process: its parts put together, and the one owner of its signals."""

import asyncio
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from ferry.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    inspection_pb2,
    inspection_pb2_grpc,
    membership_pb2,
    membership_pb2_grpc,
)
from ferry_cluster.cluster import Cluster, ClusterSettings
from ferry_cluster.roles import start_problem
from ferry_cluster.state import ClusterState
from ferry_coordinator.adapters.sqlite_store import SqliteStore
from ferry_coordinator.admin_service import AdminService
from ferry_coordinator.driver import STOPPING, Driver
from ferry_coordinator.journal import Journal
from ferry_coordinator.membership_service import MembershipService, NodeStreams
from ferry_coordinator.metrics import Metrics
from ferry_coordinator.ports import StateStore
from ferry_coordinator.projections import Projections, everything
from ferry_coordinator.settings import CoordinatorSettings
from ferry_coordinator.watchers import Watchers
from ferry_types.inspection import ClusterReport
from ferry_wire import topics
from ferry_wire.addresses import announce_address
from ferry_wire.bus import Bus, open_bus
from ferry_wire.collector import spare_what_stands
from ferry_wire.files import exclusive_directory
from ferry_wire.inspection import InspectionServicer
from ferry_wire.scrape import served_metrics
from ferry_wire.servers import BoundServer, create_server
from ferry_wire.witness import WitnessClient

STORE_NAME = "cluster.sqlite3"

SEED_BYTES = 32

PART_DEADLINE_S = 0.5
"""How long each part may take to end when the process stops; together they stay below 2 s."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter: commits run in one of their own, inside guests' black-outs."""

CHECK_VARIABLE = "FERRY_COORDINATOR_CHECK"
"""Environment: if set, the core's invariants are looked at after every event."""

_LOG = logging.getLogger(__name__)


async def serve(settings: CoordinatorSettings) -> None:
    """Be the coordinator until SIGTERM or SIGINT.

    Raises FerryError: the store cannot be used or fails for good, an address is not to be had, another
    coordinator uses the directory or has begun a later term, or the store's cluster cannot be led with these
    settings.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    spare_what_stands()
    async with AsyncExitStack() as stack:
        # Two coordinators on one directory would depose each other until an operator notices.
        stack.enter_context(exclusive_directory(settings.dir, "coordinator"))
        store = await SqliteStore.open(settings.dir / STORE_NAME)
        stack.push_async_callback(_close_store, store)
        # Bound before the term begins: a port in use changes nothing in the store.
        services = (admin_pb2.DESCRIPTOR, membership_pb2.DESCRIPTOR, inspection_pb2.DESCRIPTOR)
        server = create_server(settings.listen, services)
        metrics = Metrics()
        if settings.metrics_listen:
            stack.enter_context(served_metrics(metrics.registry, settings.metrics_listen))
        bus = await stack.enter_async_context(_running_bus(settings))
        await _reign(settings, store, server, bus, metrics, stopped)


async def _reign(
    settings: CoordinatorSettings,
    store: StateStore,
    server: BoundServer,
    bus: Bus,
    metrics: Metrics,
    stopped: asyncio.Event,
) -> None:
    cluster_settings = ClusterSettings(
        settings.cluster,
        settings.era,
        settings.timing,
        settings.force_quorum,
        seed=secrets.token_hex(SEED_BYTES),
        networks=settings.network,
    )
    journal, records = await Journal.begin(
        store, lambda former: start_problem(cluster_settings, ClusterState.from_records(former))
    )
    cluster = Cluster(cluster_settings, journal.term, records, time.monotonic())
    streams, watchers, projections = NodeStreams(), Watchers(), Projections(bus, settings.cluster)
    for audience in (metrics, projections):
        audience.changed(cluster, everything(cluster))
    witness = WitnessClient()
    driver = Driver(
        cluster,
        journal,
        streams,
        watchers,
        (projections, metrics),
        metrics,
        witness,
        check=bool(os.environ.get(CHECK_VARIABLE)),
    )
    admin_pb2_grpc.add_AdminServicer_to_server(AdminService(driver, watchers, store), server.grpc)
    membership_pb2_grpc.add_MembershipServicer_to_server(MembershipService(driver, streams), server.grpc)
    report = ClusterReport(settings.cluster, settings.era, settings.timing.beat_s)
    inspection = InspectionServicer(settings.dir, (server.address,), cluster=report)
    inspection_pb2_grpc.add_InspectionServicer_to_server(inspection, server.grpc)
    reigning = asyncio.create_task(driver.run())
    stopping = asyncio.create_task(stopped.wait())
    try:
        await server.start()
        announce_address(settings.address_file, server.address)
        _LOG.info(
            "coordinator of %s listens on %s in term %d", settings.cluster, server.address, journal.term
        )
        await asyncio.wait({reigning, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        driver.stop()
        watchers.close(STOPPING)
        streams.close(STOPPING)
        await asyncio.gather(server.stop(PART_DEADLINE_S), asyncio.wait({reigning}, timeout=PART_DEADLINE_S))
        reigning.cancel()  # if it still runs, it waits for a store that does not answer
        await witness.close()
    with suppress(asyncio.CancelledError):
        await reigning


@asynccontextmanager
async def _running_bus(settings: CoordinatorSettings) -> AsyncIterator[Bus]:
    status_topic = topics.process_status(settings.cluster, "coordinator")
    bus = open_bus(settings.broker, f"{settings.cluster}-coordinator", status_topic)
    running = asyncio.create_task(bus.run())
    running.add_done_callback(_tell_bus_defect)
    try:
        yield bus
    finally:
        await bus.close(PART_DEADLINE_S)


def _tell_bus_defect(running: "asyncio.Task[None]") -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        _LOG.error("the bus has failed; watchers see nothing any more", exc_info=error)


async def _close_store(store: SqliteStore) -> None:
    try:
        async with asyncio.timeout(PART_DEADLINE_S):
            await store.close()
    except TimeoutError:
        _LOG.warning("the store did not close within %s s; what was committed is safe", PART_DEADLINE_S)
