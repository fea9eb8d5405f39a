"""What watchers see on the bus of real processes, and that nobody but watchers notices when it is away."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from tests.integration.processes import Cluster, eventually

from ferry.v1 import admin_pb2
from ferry_coordinator.documents import migration_view, node_view, vm_view
from ferry_types.mac import mac_address
from ferry_wire import topics

BROKERS = ("amqtt", "mosquitto")
ONE_IN_CHAOS = ("mosquitto", pytest.param("amqtt", marks=pytest.mark.chaos))
"""What hardly hangs on the broker: ``make test`` is to stay short."""
CLUSTER = "cluster"
LEASE_S = 2.0
"""Of the profile ``fast``."""

AWAY_S = 2 * LEASE_S
AT_ONCE_S = 2.0
"""More than a call takes on a busy machine, less than any time-out of the bus."""

MARKER = "test/marker"


class Broker:
    """A broker process on a port that it keeps when it is started again."""

    def __init__(self, kind: str, directory: Path) -> None:
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self._command = self._serving(kind, directory)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._listens, what="the broker")

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number is signal.SIGKILL:
            self._process.wait()

    def _serving(self, kind: str, directory: Path) -> Sequence[str]:
        if kind == "amqtt":
            return (sys.executable, "-m", "ferry_coordinator.broker", "--listen", self.address)
        found = shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin")
        if found is None:
            reason = "mosquitto is not installed (apt install mosquitto)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        config = directory / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\n")
        return (found, "-c", str(config))

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Watcher:
    """Somebody who subscribes to everything: ``seen`` in order, and the ``newest`` of each topic."""

    def __init__(self, broker: Broker) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.newest: dict[str, Any] = {}
        self._marked = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda client, *_: client.publish(MARKER, "x", 1)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        # What is retained comes before what is published after the subscription.
        assert self._marked.wait(10), "the broker does not serve"

    def _take(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == MARKER:
            self._marked.set()
            return
        document = json.loads(message.payload) if message.payload else None
        self.seen.append((message.topic, document))
        if document is None:
            self.newest.pop(message.topic, None)
        else:
            self.newest[message.topic] = document

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def watching(broker: Broker) -> Iterator[Watcher]:
    watcher = Watcher(broker)
    try:
        yield watcher
    finally:
        watcher.close()


def retained(broker: Broker) -> dict[str, Any]:
    """What a newcomer is told at once."""
    with watching(broker) as watcher:
        return dict(watcher.newest)


@contextlib.contextmanager
def published_cluster(kind: str, directory: Path) -> Iterator[tuple[Cluster, Broker]]:
    """A coordinator and the hosts n1 and n2 with one VM ``web`` on n1, all on one broker."""
    broker = Broker(kind, directory)
    broker.start()
    cluster = Cluster(directory)
    try:
        cluster.start_witness()
        cluster.start_coordinator("--broker", broker.address)
        cluster.use_witness()
        for name in ("n1", "n2"):
            cluster.start_agent(name, "--broker", broker.address, "--failpoints")
        cluster.wait_up("n1", "n2")
        cluster.wait_votes()
        cluster.create("web", node="n1", workload="web")
        yield cluster, broker
        cluster.close()
        for name in cluster.processes:
            assert "Traceback" not in cluster.log(name), cluster.log(name)
    finally:
        cluster.close()
        broker.signal(signal.SIGKILL)


def process(name: str) -> str:
    return topics.process_status(CLUSTER, name)


def state_of(document: Any) -> Any:
    return document["state"] if document else None


def telemetry(watcher: Watcher, vm: str, node: str, steps: int) -> bool:
    """Whether the VM's newest figures come from this node and are newer than a number of steps."""
    figures = watcher.newest.get(topics.vm_telemetry(CLUSTER, vm))
    return figures is not None and figures["node"] == node and figures["steps"] > steps


def as_the_coordinator_says(cluster: Cluster, seen: dict[str, Any]) -> bool:
    """Whether nodes, the VM and the moves look on the bus as the command line shows them."""
    moves = cluster.admin.ListMigrations(admin_pb2.ListMigrationsRequest(), timeout=5).migrations
    expected = {
        **{topics.node_status(CLUSTER, name): node_view(node) for name, node in cluster.nodes().items()},
        topics.vm_state(CLUSTER, "web"): vm_view(cluster.vm("web")),
    }
    progress = [seen.get(topics.migration_progress(CLUSTER, move.id), {}) for move in moves]
    return all(seen.get(topic) == document for topic, document in expected.items()) and all(
        shown.items() >= migration_view(move).items() for shown, move in zip(progress, moves, strict=True)
    )


@pytest.mark.parametrize("kind", BROKERS)
def test_watchers_see_what_the_command_line_shows(kind: str, tmp_path: Path) -> None:
    with published_cluster(kind, tmp_path) as (cluster, broker):
        with watching(broker) as watcher:
            cluster.failpoint("n1", "source.arming", "hold")
            move = cluster.migrate("web", "n2")
            progress = topics.migration_progress(CLUSTER, move)
            eventually(lambda: state_of(watcher.newest.get(progress)) == "copying", what="progress")
            cluster.failpoint("n1", "source.arming", "off")
            assert cluster.ended(move).state == "completed"
            eventually(lambda: state_of(watcher.newest[progress]) == "completed", what="end of the progress")
            eventually(lambda: telemetry(watcher, "web", "n2", 0), what="figures from n2")
            web = cluster.vm("web")
            announced = {
                "vm": "web", "node": "n2", "epoch": web.epoch,
                "echo_address": web.echo_address, "mac": mac_address("web"),
            }  # fmt: skip
            arp = topics.vm_arp(CLUSTER, "web")
            eventually(lambda: watcher.newest.get(arp) == announced, what="the ARP announcement")
            steps = watcher.newest[topics.vm_telemetry(CLUSTER, "web")]["steps"]
            events = f"{topics.ROOT}/{CLUSTER}/events/"
            eventually(
                lambda: (
                    {22507, 22508, 22509}
                    <= {document["id"] for topic, document in watcher.seen if topic.startswith(events)}
                ),
                what="the events of the move",
            )
        eventually(lambda: as_the_coordinator_says(cluster, retained(broker)), what="retained state")
        assert not [topic for topic in retained(broker) if "/events/" in topic or topic.endswith("/arp")]

        broker.signal(signal.SIGKILL)
        broker.start()
        with watching(broker) as watcher:
            eventually(lambda: as_the_coordinator_says(cluster, watcher.newest), what="state told again")
            eventually(lambda: telemetry(watcher, "web", "n2", steps), what="figures told again")
            names = ("coordinator", "n1", "n2")
            eventually(
                lambda: [state_of(watcher.newest.get(process(name))) for name in names] == ["online"] * 3
            )
            eventually(lambda: topics.node_telemetry(CLUSTER, "n1") in watcher.newest)

            cluster.admin.StopVm(admin_pb2.VmRequest(name="web"), timeout=10)
            eventually(lambda: watcher.newest[topics.vm_state(CLUSTER, "web")]["state"] == "off")
            cluster.admin.RemoveVm(admin_pb2.VmRequest(name="web"), timeout=10)
            of_the_vm = f"{topics.ROOT}/{CLUSTER}/vms/"
            eventually(lambda: not [topic for topic in watcher.newest if topic.startswith(of_the_vm)])
        assert not [topic for topic in retained(broker) if topic.startswith(of_the_vm)]


@pytest.mark.parametrize("kind", ONE_IN_CHAOS)
def test_killed_processes_go_offline_and_their_figures_with_them(kind: str, tmp_path: Path) -> None:
    with published_cluster(kind, tmp_path) as (cluster, broker), watching(broker) as watcher:
        figures = topics.node_telemetry(CLUSTER, "n1")
        eventually(lambda: figures in watcher.newest)
        cluster.kill("n1")
        eventually(lambda: state_of(watcher.newest[process("n1")]) == "offline", what="n1 offline")
        status = topics.node_status(CLUSTER, "n1")
        eventually(lambda: watcher.newest[status]["state"] == "down", what="n1 down")
        eventually(lambda: telemetry(watcher, "web", "n2", 0), what="figures of the VM that failed over")
        eventually(lambda: figures not in watcher.newest, what="figures of the lost host cleared")

        cluster.kill("coordinator")
        eventually(lambda: state_of(watcher.newest[process("coordinator")]) == "offline")
        cluster.restart_coordinator()
        eventually(lambda: state_of(watcher.newest[process("coordinator")]) == "online")
        assert state_of(watcher.newest[process("n2")]) == "online"


@pytest.mark.parametrize(
    ("kind", "number"), [("amqtt", signal.SIGKILL), ("mosquitto", signal.SIGSTOP)], ids=["killed", "frozen"]
)
def test_a_broker_that_is_away_is_missed_by_nobody(kind: str, number: signal.Signals, tmp_path: Path) -> None:
    with published_cluster(kind, tmp_path) as (cluster, broker):
        incarnations = {name: node.incarnation for name, node in cluster.nodes().items()}
        broker.signal(number)
        back = time.monotonic() + AWAY_S
        moves = 0
        while time.monotonic() < back:
            moves += 1
            move = cluster.migrate("web", "n2" if moves % 2 else "n1", verify=True)
            assert cluster.ended(move).state == "completed"
            asked = time.monotonic()
            assert cluster.vm("web").epoch == moves + 1  # nothing but the moves has begun an epoch
            assert time.monotonic() - asked < AT_ONCE_S
            assert {name: node.incarnation for name, node in cluster.nodes().items()} == incarnations
        assert moves >= 3
        events = cluster.admin.ListEvents(admin_pb2.EventQuery(), timeout=5).events
        assert not [event.message for event in events if event.level in ("critical", "error")]
        if number is signal.SIGSTOP:
            broker.signal(signal.SIGCONT)
        else:
            broker.start()
        eventually(lambda: as_the_coordinator_says(cluster, retained(broker)), what="state told again")


def on_the_bus(seen: dict[str, Any], node: str) -> list[str]:
    """Topics that are about a node."""
    return [topic for topic in seen if f"/{node}/" in topic]


@pytest.mark.parametrize("kind", ONE_IN_CHAOS)
def test_an_evicted_node_leaves_nothing_behind_dead_or_alive(kind: str, tmp_path: Path) -> None:
    with published_cluster(kind, tmp_path) as (cluster, broker):
        eventually(lambda: topics.node_telemetry(CLUSTER, "n2") in retained(broker), what="figures of n2")
        with pytest.raises(grpc.RpcError) as refused:
            cluster.admin.EvictNode(admin_pb2.NodeRequest(name="n1"), timeout=5)
        assert "n1 has VMs: web" in str(refused.value)

        cluster.admin.EvictNode(admin_pb2.NodeRequest(name="n2"), timeout=5)
        assert cluster.processes["n2"].wait(10) == 5
        assert "was evicted" in cluster.log("n2")
        assert set(cluster.nodes()) == {"n1"}
        eventually(lambda: not on_the_bus(retained(broker), "n2"), what="nothing of n2 on the bus")

        cluster.start_agent("n2", "--broker", broker.address)
        cluster.wait_up("n2")
        cluster.wait_votes()  # before that, n1 alone has one
        cluster.kill("n1")
        eventually(lambda: cluster.vm("web").node == "n2", what="failover")
        cluster.wait_running("web")
        eventually(lambda: state_of(retained(broker).get(process("n1"))) == "offline", what="last will")
        cluster.admin.EvictNode(admin_pb2.NodeRequest(name="n1"), timeout=5)
        eventually(lambda: not on_the_bus(retained(broker), "n1"), what="nothing of n1 on the bus")
        cluster.kill("coordinator")
        cluster.restart_coordinator()
        cluster.wait_up("n2")
        assert set(cluster.nodes()) == {"n2"}
        assert not on_the_bus(retained(broker), "n1")
