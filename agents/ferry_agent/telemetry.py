"""What the agent publishes on the bus for watchers; nothing that decides reads it."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

from ferry_agent.rack import Image
from ferry_agent.runtime import HostRuntime
from ferry_host.commands import AnnounceGuest
from ferry_types.limits import PAGE_SIZE
from ferry_types.mac import mac_address
from ferry_wire import topics
from ferry_wire.bus import Bus

INTERVAL_S = 1.0


def resident_bytes() -> int:
    """Resident memory of this process, from procfs."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * PAGE_SIZE


def _vm_telemetry(image: Image, node: str) -> dict[str, object]:
    vcpu = image.vcpu
    return {
        "vm": image.spec.name,
        "node": node,
        "paused": vcpu.paused,
        "steps": vcpu.steps,
        "pages_written": image.pages_written,
        "write_bytes_per_s": round(image.write_bytes_per_s),
        "memory_bytes": image.spec.memory_bytes,
        "dirty_pages": image.dirty_pages,
    }


def announcing(runtime: HostRuntime, bus: Bus) -> Callable[[AnnounceGuest], None]:
    """What tells the network's watchers that a guest has begun to run on this host, and answers here."""
    identity = runtime.host.state.identity

    def announce(begun: AnnounceGuest) -> None:
        document = {
            "vm": begun.vm,
            "node": identity.name,
            "epoch": begun.epoch,
            "echo_address": identity.echo_address,
            "mac": mac_address(begun.vm),
        }
        bus.publish(topics.vm_arp(runtime.cluster, begun.vm), json.dumps(document))

    return announce


async def publish_telemetry(runtime: HostRuntime, bus: Bus) -> None:
    """Publish node and VM telemetry every second, and clear what belongs to VMs that left."""
    node = runtime.host.state.identity.name
    published: set[str] = set()
    last_cpu_s, last_at_s = time.process_time(), time.monotonic()
    while True:
        await asyncio.sleep(INTERVAL_S)
        cluster = runtime.cluster
        cpu_s, at_s = time.process_time(), time.monotonic()
        state = runtime.host.state
        bus.publish(
            topics.node_telemetry(cluster, node),
            json.dumps(
                {
                    "node": node,
                    "connected": state.connected,
                    "session": state.session,
                    "vms": len(state.images),
                    "memory_used_bytes": state.memory_used_bytes(),
                    "memory_bytes": state.identity.capacity.memory_bytes,
                    "scale": state.identity.capacity.scale,
                    "resident_bytes": resident_bytes(),  # of the process: not scaled
                    "processor_share": round((cpu_s - last_cpu_s) / (at_s - last_at_s), 4),
                }
            ),
            retain=True,
        )
        last_cpu_s, last_at_s = cpu_s, at_s
        images = runtime.rack.all()
        for image in images:
            topic = topics.vm_telemetry(cluster, image.spec.name)
            bus.publish(topic, json.dumps(_vm_telemetry(image, node)), retain=True)
        here = {image.spec.name for image in images}
        for gone in published - here:
            # Another host may publish under this topic by now; it will again within a second.
            bus.clear(topics.vm_telemetry(cluster, gone))
        published = here
