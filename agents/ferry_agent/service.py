"""The agent process: its parts put together, and the one owner of its signals."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from importlib.metadata import version
from pathlib import Path

import structlog

from ferry.v1 import (
    host_pb2,
    host_pb2_grpc,
    inspection_pb2,
    inspection_pb2_grpc,
    migration_pb2,
    quorum_pb2,
    quorum_pb2_grpc,
)
from ferry_agent.ballots import VotingServicer, read_votes
from ferry_agent.echo_port import EchoPort
from ferry_agent.failpoints import Failpoints
from ferry_agent.feeding import PATIENCE_LEASES, given_feeder
from ferry_agent.gate import LeaseGate
from ferry_agent.guest.trace import RunTrace
from ferry_agent.host_service import HostServicer
from ferry_agent.identity import ClaimedIdentity, claim_identity
from ferry_agent.metrics import make_registry
from ferry_agent.migration.target import MigrationServicer
from ferry_agent.network.adapters import Adapters
from ferry_agent.network.listeners import NicListeners, nic_address
from ferry_agent.network.nics import Nics
from ferry_agent.runtime import HostRuntime
from ferry_agent.settings import AgentSettings
from ferry_agent.telemetry import announcing, publish_telemetry
from ferry_agent.uplink import EVICTED, Uplink
from ferry_host import inputs
from ferry_host.state import HostIdentity
from ferry_types.errors import FerryError, failed
from ferry_types.inspection import HostReport
from ferry_types.networks import Network, Nic
from ferry_types.quorum import NO_VOTES, VotingRecord
from ferry_wire import topics
from ferry_wire.addresses import announce_address, parse_address
from ferry_wire.buffers import keep_freed_buffers
from ferry_wire.bus import open_bus
from ferry_wire.collector import spare_what_stands
from ferry_wire.inspection import InspectionServicer
from ferry_wire.scrape import served_metrics
from ferry_wire.servers import BoundServer, create_server

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter: guests share it with lease renewals and the black-out."""

_log = structlog.get_logger("agent")


async def serve(settings: AgentSettings) -> None:
    """Be the host until SIGTERM or SIGINT.

    Raises FerryError: the data directory is taken, an address is not to be had, or the coordinator turns
    this host away for good.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_freed_buffers()
    spare_what_stands()
    async with AsyncExitStack() as stack:
        claimed = stack.enter_context(claim_identity(settings.dir))
        trace = stack.enter_context(_opened_trace(settings.trace))
        voting = quorum_pb2.DESCRIPTOR.services_by_name["Voting"]
        services = (host_pb2.DESCRIPTOR, migration_pb2.DESCRIPTOR, voting, inspection_pb2.DESCRIPTOR)
        server = create_server(settings.listen, services)
        address = settings.advertised(server.address)
        gate, failpoints = LeaseGate(), Failpoints(enabled=settings.failpoints)
        echo_port = await stack.enter_async_context(EchoPort.open(settings.echo_listen))
        by_nics = tuple(nic_address(nic, server.address) for nic in settings.nic)
        inspection = _inspection(settings, (server.address, *by_nics, echo_port.address))
        identity = HostIdentity(
            name=settings.name,
            uuid=claimed.uuid,
            incarnation=claimed.incarnation,
            address=address,
            echo_address=settings.advertised(echo_port.address),
            capacity=settings.capacity,
            version=version("hyperferry"),
        )
        votes = _former_votes(settings.dir, claimed)
        runtime = HostRuntime(identity, gate, trace, failpoints, settings.dir, votes)
        nics = Nics(settings.nic, settings.team)
        adapters = Adapters(nics, settings.qos, runtime.rack.scale)
        runtime.outgoing.wire_of = adapters.sending
        own_host = parse_address(server.address).host

        def listen_host(nic: str) -> str:
            return nics.get(nic).address if nic else own_host

        migrations = MigrationServicer(runtime.incoming, wire_of=adapters.receiving, listen_host=listen_host)
        runtime.incoming.on_drop = migrations.drop

        def offer(to: BoundServer) -> None:
            migrations.add_to(to.grpc)
            inspection_pb2_grpc.add_InspectionServicer_to_server(inspection, to.grpc)

        offer(server)
        offered = (migration_pb2.DESCRIPTOR, inspection_pb2.DESCRIPTOR)
        listeners = NicListeners(nics, server.address, offered, offer)
        await stack.enter_async_context(_fed_watchdog(settings, runtime, identity))
        echo_port.serve(runtime.rack.echo, runtime.rack.moved_to, adapters.guest_way)
        if settings.metrics_listen:
            stack.enter_context(served_metrics(make_registry(runtime, adapters), settings.metrics_listen))
        await _work(settings, runtime, server, nics, adapters, listeners, stopped)


async def _work(
    settings: AgentSettings,
    runtime: HostRuntime,
    server: BoundServer,
    nics: Nics,
    adapters: Adapters,
    listeners: NicListeners,
    stopped: asyncio.Event,
) -> None:
    """Serve peers and keep the uplink until told to stop."""
    host = HostServicer(runtime.rack, runtime.failpoints, nics, listeners)
    host_pb2_grpc.add_HostServicer_to_server(host, server.grpc)
    quorum_pb2_grpc.add_VotingServicer_to_server(VotingServicer(runtime.ballots), server.grpc)
    uplink = Uplink(
        settings.coordinator,
        on_open=lambda: runtime.submit(inputs.Connected()),
        on_close=lambda: runtime.submit(inputs.Disconnected()),
        on_order=runtime.on_order,
    )
    runtime.send = uplink.send
    _follow_nics(nics, adapters, runtime, uplink)
    tasks = [
        asyncio.create_task(uplink.run()),
        asyncio.create_task(_watch_over_bus(settings, runtime)),
        asyncio.create_task(stopped.wait()),
    ]
    try:
        await listeners.open()
        await server.start()
        announce_address(settings.address_file, server.address)
        _log.info("agent listens", name=settings.name, address=server.address)
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            await task
    except FerryError as error:
        runtime.evicted = error.refusal.rule == EVICTED
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runtime.close()
        await asyncio.gather(listeners.close(), server.stop())


def _follow_nics(nics: Nics, adapters: Adapters, runtime: HostRuntime, uplink: Uplink) -> None:
    """Tell the cluster of NICs that go down and come up; leave it, as a cut cable would, with the last."""

    def look() -> None:
        if nics.is_cut_off:
            uplink.cut()
        else:
            uplink.mend()

    def turned(_nic: Nic, _up: bool) -> None:
        runtime.submit(inputs.NicsTurned(nics.faults))
        runtime.outgoing.follow_nics(nics.is_up)
        look()

    def learned(networks: tuple[Network, ...]) -> None:
        nics.learn(networks)
        adapters.obey(runtime.outgoing.rules)
        look()

    nics.on_change(turned)
    runtime.on_networks = learned
    runtime.ballots.is_cut_off = lambda: nics.is_cut_off


def _inspection(settings: AgentSettings, listening: tuple[str, ...]) -> InspectionServicer:
    host = HostReport(settings.name, settings.capacity, settings.coordinator)
    return InspectionServicer(settings.dir, listening, host=host, clock_offset_s=settings.clock_offset)


def _former_votes(directory: Path, claimed: ClaimedIdentity) -> VotingRecord | None:
    """What this host's vote has kept; nothing at all only of a host that is new."""
    votes = read_votes(directory)
    return NO_VOTES if votes is None and not claimed.is_new else votes


async def _watch_over_bus(settings: AgentSettings, runtime: HostRuntime) -> None:
    """Publish telemetry from the first welcome on, which names the cluster."""
    await runtime.welcomed.wait()
    status_topic = topics.process_status(runtime.cluster, settings.name)
    bus = open_bus(settings.broker, f"{runtime.cluster}-{settings.name}", status_topic)
    running = asyncio.create_task(bus.run())
    runtime.announce = announcing(runtime, bus)
    try:
        await publish_telemetry(runtime, bus)
    finally:
        if runtime.evicted:
            bus.clear(topics.node_telemetry(runtime.cluster, settings.name))
        await bus.close(leave_nothing=runtime.evicted)
        await running


@asynccontextmanager
async def _fed_watchdog(
    settings: AgentSettings, runtime: HostRuntime, identity: HostIdentity
) -> AsyncIterator[None]:
    """Feed the watchdog, if this process has one."""
    feeder = given_feeder()
    if feeder is None:
        yield
        return

    def patience_s() -> float | None:
        timing = runtime.host.state.timing
        if settings.watchdog_patience is not None or timing is None:
            return settings.watchdog_patience
        return PATIENCE_LEASES * timing.lease_s

    feeding = asyncio.create_task(
        feeder.run(identity.name, identity.incarnation, settings.coordinator, patience_s)
    )
    try:
        yield
    finally:
        feeding.cancel()


@contextmanager
def _opened_trace(path: Path | None) -> Iterator[RunTrace | None]:
    if path is None:
        yield None
        return
    try:
        trace = RunTrace(path)
    except OSError as error:
        reason = f"the trace {path} cannot be written: {error.strerror}"
        raise FerryError(failed(reason, "choose another --trace")) from error
    with closing(trace):
        yield trace
