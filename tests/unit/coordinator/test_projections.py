"""What watchers on the bus and of the metrics see of a cluster."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client import generate_latest
from tests.unit.coordinator.reign import BRISK, MIB, Reign, eventually, join, say, spec

from ferry_cluster.commands import Changed
from ferry_cluster.inputs import CreateVm, MigrateVm, RemoveVm
from ferry_coordinator.metrics import Metrics
from ferry_coordinator.projections import Projections, everything
from ferry_types.messages import RaiseEpoch, VmRunning
from ferry_types.migrations import MigrationOptions
from ferry_wire.scrape import served_metrics

ROOT = "ferry/v1/lab"


class RecordedBus:
    """A bus whose broker keeps what is retained, and the rest in order."""

    def __init__(self) -> None:
        self.retained: dict[str, str] = {}
        self.passed: list[tuple[str, str]] = []

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        assert isinstance(payload, str)
        if retain:
            self.retained[topic] = payload
        else:
            self.passed.append((topic, payload))

    def clear(self, topic: str) -> None:
        self.retained.pop(topic, None)


@pytest.fixture
async def reign(tmp_path: Path) -> AsyncIterator[Reign]:
    begun = await Reign.begin(tmp_path / "cluster.sqlite3")
    yield begun
    await begun.end()


@pytest.fixture
def bus(reign: Reign) -> RecordedBus:
    recorded = RecordedBus()
    reign.audiences.append(Projections(recorded, "lab"))
    return recorded


async def test_objects_are_retained_while_they_exist(reign: Reign, bus: RecordedBus) -> None:
    await reign.hear(1, join("node1"))
    await reign.driver.ask(lambda number: CreateVm(number, spec(), "node1", start=False))
    await reign.told()
    node = json.loads(bus.retained[f"{ROOT}/nodes/node1/status"])
    assert (node["name"], node["state"], node["incarnation"], node["vms"]) == ("node1", "up", "a1", [])
    vm = json.loads(bus.retained[f"{ROOT}/vms/web1/state"])
    assert (vm["name"], vm["state"], vm["node"], vm["epoch"]) == ("web1", "off", None, 0)
    assert (vm["memory_bytes"], vm["workload"]) == (16 * MIB, "idle")
    await reign.driver.ask(lambda number: RemoveVm(number, "web1"))
    await reign.told()
    assert f"{ROOT}/vms/web1/state" not in bus.retained


async def test_events_pass_by_and_are_not_retained(reign: Reign, bus: RecordedBus) -> None:
    await reign.hear(1, join("node1"))
    await reign.told()
    topic, payload = bus.passed[-1]
    event = json.loads(payload)
    assert topic == f"{ROOT}/events/node1"
    assert (event["node"], event["id"], event["level"]) == ("node1", None, "information")
    assert event["time"].endswith("Z")
    assert not [topic for topic in bus.retained if "/events/" in topic]


async def running_vm(reign: Reign) -> None:
    for stream, node in ((1, "node1"), (2, "node2")):
        await reign.hear(stream, join(node))
    await reign.hear_while(
        reign.driver.ask(lambda number: CreateVm(number, spec(), "node1", start=True)),
        1,
        say(RaiseEpoch("web1", 1)),
        say(VmRunning("web1", 1, "", 0.0)),
    )


def migrate(number: int) -> MigrateVm:
    return MigrateVm(number, "web1", "node2", MigrationOptions(), False, "token", 1)


def memory_used(bus: RecordedBus, node: str) -> int:
    status: dict[str, int] = json.loads(bus.retained[f"{ROOT}/nodes/{node}/status"])
    return status["memory_used_bytes"]


async def test_a_move_is_retained_as_long_as_it_is_kept(reign: Reign, bus: RecordedBus) -> None:
    await running_vm(reign)
    await reign.driver.ask(migrate)
    await reign.told()
    topic = f"{ROOT}/migrations/m1/progress"
    move = json.loads(bus.retained[topic])
    assert (move["id"], move["vm"], move["source"], move["target"]) == ("m1", "web1", "node1", "node2")
    assert move["state"] == "preparing"
    assert memory_used(bus, "node2") == 16 * MIB
    await reign.cancel("m1")
    await reign.told()
    assert json.loads(bus.retained[topic])["state"] == "cancelled"
    assert memory_used(bus, "node2") == 0
    bus.retained[f"{ROOT}/migrations/m9/progress"] = "{}"
    forgotten = Changed(frozenset(), frozenset(), frozenset({"m9"}))
    await reign.driver.read(lambda cluster: Projections(bus, "lab").changed(cluster, forgotten))
    assert f"{ROOT}/migrations/m9/progress" not in bus.retained


async def test_figures_that_no_host_publishes_any_more_are_cleared(tmp_path: Path) -> None:
    reign = await Reign.begin(tmp_path / "cluster.sqlite3", BRISK, forced=True)
    bus = RecordedBus()
    reign.audiences.append(Projections(bus, "lab"))
    figures = {f"{ROOT}/nodes/node1/telemetry", f"{ROOT}/vms/web1/telemetry"}
    try:
        await reign.hear(1, join("node1"))
        await reign.driver.ask(lambda number: CreateVm(number, spec(), "node1", start=False))
        bus.retained.update(dict.fromkeys(figures, "{}"))
        await eventually(lambda: f"{ROOT}/nodes/node1/telemetry" not in bus.retained)
        assert json.loads(bus.retained[f"{ROOT}/nodes/node1/status"])["state"] == "down"
        await reign.driver.ask(lambda number: RemoveVm(number, "web1"))
        await reign.told()
        assert not figures & bus.retained.keys()
    finally:
        await reign.end()


async def test_a_start_shows_all_that_there_is(reign: Reign) -> None:
    await running_vm(reign)
    bus = RecordedBus()

    await reign.driver.read(lambda cluster: Projections(bus, "lab").changed(cluster, everything(cluster)))
    assert set(bus.retained) == {
        f"{ROOT}/nodes/node1/status",
        f"{ROOT}/nodes/node2/status",
        f"{ROOT}/vms/web1/state",
    }


async def test_metrics_count_objects_by_state(reign: Reign) -> None:
    metrics = Metrics()
    reign.audiences.append(metrics)
    await running_vm(reign)
    await reign.driver.ask(migrate)
    await reign.told()
    shown = generate_latest(metrics.registry).decode().splitlines()
    assert 'ferry_nodes{state="up"} 2.0' in shown
    assert 'ferry_vms{state="migrating"} 1.0' in shown
    assert 'ferry_vms{state="running"} 0.0' in shown
    assert 'ferry_migrations{state="preparing"} 1.0' in shown


async def test_the_driver_measures_itself(reign: Reign) -> None:
    await reign.hear(1, join("node1"))
    with served_metrics(reign.metrics.registry, "127.0.0.1:0") as address:
        shown = (await asyncio.to_thread(fetch, f"http://{address}/metrics")).splitlines()
    assert 'ferry_handling_seconds_count{event="Join"} 1.0' in shown
    assert "ferry_commit_seconds_count 2.0" in shown
    assert "ferry_queue_length 0.0" in shown


def fetch(url: str) -> str:
    with urlopen(url) as answer:
        content: bytes = answer.read()
    return content.decode()
